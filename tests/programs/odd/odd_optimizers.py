"""Optimizers, schedulers and averages beyond the usual, a factory each."""

# Written as people write programs, without a word for the type checker.
# mypy: disable-error-code="arg-type, no-untyped-call, override, return-value"

from __future__ import annotations

from typing import Any

import torch
from odd_kit import STUDY, classify, mlp, points, program, sgd
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn

import auditkit as ak

__all__ = ["STUDY"]


def lbfgs(seed: int) -> ak.Program:
    """Several passes a step, by a closure."""
    model = mlp()

    def train(this: ak.Program, batch: Any, t: int) -> Tensor:
        def closure() -> Tensor:
            this.optimizer.zero_grad()
            loss = classify(this.model, batch)
            loss.backward()
            return loss

        return this.optimizer.step(closure)

    return program(
        model, points(), optimizer=optim.LBFGS(model.parameters(), max_iter=3), step=train
    )


def _with(kind: Any, **options: Any) -> ak.Program:
    model = mlp()
    return program(model, points(), optimizer=kind(model.parameters(), **options))


def rprop(seed: int) -> ak.Program:
    return _with(optim.Rprop, lr=0.01)


def asgd(seed: int) -> ak.Program:
    return _with(optim.ASGD, lr=0.01, t0=3)


def nadam(seed: int) -> ak.Program:
    return _with(optim.NAdam, lr=0.01)


def radam(seed: int) -> ak.Program:
    return _with(optim.RAdam, lr=0.01, decoupled_weight_decay=True, weight_decay=0.1)


def adamax(seed: int) -> ak.Program:
    return _with(optim.Adamax, lr=0.01)


def adafactor(seed: int) -> ak.Program:
    return _with(optim.Adafactor, lr=0.01)


def amsgrad_of_one_tensor(seed: int) -> ak.Program:
    """One tensor at a time, with a learning rate that is a tensor."""
    return _with(optim.Adam, lr=torch.tensor(0.01), amsgrad=True, foreach=False, maximize=False)


def fused_adamw(seed: int) -> ak.Program:
    return _with(optim.AdamW, lr=0.01, fused=True)


def centered_rmsprop(seed: int) -> ak.Program:
    return _with(optim.RMSprop, lr=0.01, centered=True, momentum=0.5)


def several_groups(seed: int) -> ak.Program:
    """Groups with settings, and a name, of their own."""
    model = mlp(nn.BatchNorm1d(8))
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1, "role": "w"},
        {"params": [p for p in model.parameters() if p.ndim < 2], "lr": 0.2, "role": "b"},
    ]
    return program(model, points(), optimizer=optim.SGD(groups, lr=0.05, momentum=0.9))


def group_added(seed: int) -> ak.Program:
    """The second group joins before training."""
    model = mlp()
    optimizer = optim.SGD(model[0].parameters(), lr=0.05, momentum=0.9)
    optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.01})
    return program(model, points(), optimizer=optimizer)


def group_added_while_training(seed: int) -> ak.Program:
    """The first layer thaws after the second step."""
    model = mlp()
    model[0].requires_grad_(False)
    made = program(
        model, points(), optimizer=optim.SGD(model[2].parameters(), lr=0.05, momentum=0.9)
    )

    def train(this: ak.Program, batch: Any, t: int) -> float | None:
        if t == 3:
            model[0].requires_grad_(True)
            made.optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.01})
        return made.train_on(batch, t)

    return program(model, points(), optimizer=made.optimizer, step=train)


def plateau(seed: int) -> ak.Program:
    """The learning rate falls where the loss does not."""
    model = mlp()
    optimizer = sgd(model)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5, threshold=1.0)

    def train(this: ak.Program, batch: Any, t: int) -> float:
        loss = classify(this.model, batch)
        this.optimizer.zero_grad()
        loss.backward()
        this.optimizer.step()
        scheduler.step(loss.item())
        return loss.item()

    return program(model, points(), optimizer=optimizer, scheduler=scheduler, step=train)


def _scheduled(kind: Any, interval: str = "step", **options: Any) -> ak.Program:
    model = mlp()
    optimizer = sgd(model)
    scheduler = kind(optimizer, **options)
    return program(
        *(model, points()),
        optimizer=optimizer,
        scheduler=scheduler,
        scheduler_interval=interval,
    )


def one_cycle(seed: int) -> ak.Program:
    return _scheduled(lr_scheduler.OneCycleLR, max_lr=0.2, total_steps=12)


def warm_restarts(seed: int) -> ak.Program:
    return _scheduled(lr_scheduler.CosineAnnealingWarmRestarts, T_0=3, T_mult=2)


def cyclic(seed: int) -> ak.Program:
    return _scheduled(lr_scheduler.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=2)


def lambda_each_epoch(seed: int) -> ak.Program:
    return _scheduled(lr_scheduler.LambdaLR, "epoch", lr_lambda=lambda epoch: 0.5**epoch)


def warm_up_then_decay(seed: int) -> ak.Program:
    model = mlp()
    optimizer = sgd(model)
    scheduler = lr_scheduler.SequentialLR(
        optimizer,
        [
            lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3),
            lr_scheduler.CosineAnnealingLR(optimizer, T_max=6),
        ],
        milestones=[3],
    )
    return program(model, points(), optimizer=optimizer, scheduler=scheduler)


def accumulated_and_clipped(seed: int) -> ak.Program:
    return program(mlp(), points(), accumulate=2, clip_grad_norm=0.1)


def disabled_scaler(seed: int) -> ak.Program:
    return program(mlp(), points(), scaler=torch.amp.GradScaler("cpu", enabled=False))


def bfloat16_autocast(seed: int) -> ak.Program:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return classify(model, batch)

    return program(mlp(nn.Dropout(0.2)), points(), loss=loss)


def exponential_average(seed: int) -> ak.Program:
    model = mlp(nn.BatchNorm1d(8))
    average = AveragedModel(
        model,
        multi_avg_fn=get_ema_multi_avg_fn(0.9),
        use_buffers=True,
    )
    return program(model, points(), averaged={"ema": average})


def stochastic_weight_average(seed: int) -> ak.Program:
    """Averaged from the second epoch on, with its own learning rate."""
    model = mlp()
    optimizer = sgd(model)
    average = AveragedModel(model)

    def end(this: ak.Program, epoch: int) -> None:
        average.update_parameters(model)

    def train(this: ak.Program, batch: Any, t: int) -> Tensor:
        loss = classify(this.model, batch)
        this.optimizer.zero_grad()
        loss.backward()
        this.optimizer.step()
        return loss

    return program(
        *(model, points()),
        optimizer=optimizer,
        scheduler=SWALR(optimizer, swa_lr=0.01, anneal_epochs=2),
        scheduler_interval="epoch",
        averaged={"swa": average},
        on_epoch_end=end,
        step=train,
    )


class Sharpness(optim.Optimizer):
    """Sharpness-aware minimisation: an optimizer around an optimizer."""

    def __init__(self, parameters: Any, rho: float, lr: float) -> None:
        super().__init__(parameters, {"rho": rho, "lr": lr})
        self.inner = optim.SGD(self.param_groups, lr=lr, momentum=0.9)
        self.param_groups = self.inner.param_groups

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Climb by rho, take the gradient there, come back and descend."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        norm = torch.stack([p.grad.norm() for p in parameters]).norm() + 1e-12
        climbs = [p.grad * self.param_groups[0]["rho"] / norm for p in parameters]
        torch._foreach_add_(parameters, climbs)
        with torch.enable_grad():
            closure()
        torch._foreach_sub_(parameters, climbs)
        self.inner.step()


def _two_passes(this: ak.Program, batch: Any, t: int) -> Tensor:
    def closure() -> Tensor:
        this.optimizer.zero_grad()
        loss = classify(this.model, batch)
        loss.backward()
        return loss

    loss = closure()
    this.optimizer.step(closure)
    return loss


def sharpness_aware(seed: int) -> ak.Program:
    model = mlp()
    inner = Sharpness(model.parameters(), rho=0.05, lr=0.05)
    return program(model, points(), optimizer=inner, step=_two_passes)


def sharpness_aware_registered(seed: int) -> ak.Program:
    """The same, with the inner optimizer named as an extra."""
    model = mlp()
    outer = Sharpness(model.parameters(), rho=0.05, lr=0.05)
    return program(
        model, points(), optimizer=outer, extras={"inner": outer.inner}, step=_two_passes
    )
