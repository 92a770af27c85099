"""A study of a tiny network trained by any optimizer: how each wants to be made and stepped.

``optimizers.py`` copies it beside its runs; ``module`` and ``name`` say which optimizer.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak

#: Those that take a class of optimizers to step with after they have moved the weights.
SHARPNESS = ("SAM", "LookSAM", "FriendlySAM", "WSAM")

#: Those that call a closure themselves, and those that want gradients before they do.
CLOSURES = ("LBFGS", "BSAM", *SHARPNESS)

#: Those whose slots are small tensors of eight or four bits only above this many elements.
WIDE = ("torchao.optim", "bitsandbytes.optim")


def make_program(seed: int, module: str = "torch.optim", name: str = "SGD") -> ak.Program:
    """A classifier with the optimizer of that name."""
    x = torch.randn(96, 8, generator=torch.Generator().manual_seed(0))
    y = (x.sum(1) > 0).long()
    if name == "SparseAdam":
        x = x.abs().mul(10).long().clamp(max=31)
    model = network(module, name)
    made = optimizer(getattr(importlib.import_module(module), name), name, model)

    def step(program: ak.Program, batch: Any, t: int) -> Tensor:
        return train(made, name, model, batch)

    extras = {}
    if name == "SPAM":  # the line to add: its schedule has a parameter that no module holds
        held = made.warmup.sgd.param_groups[0]["params"]
        extras["warmup"] = nn.ParameterList(held)
    return ak.Program(
        model=model,
        optimizer=made,
        extras=extras,
        step=step,
        loader=DataLoader(TensorDataset(x[:64], y[:64]), batch_size=16, shuffle=True),
        probe=ak.Probe(x[64:], y[64:]),
    )


def network(module: str, name: str) -> nn.Module:
    """Matrices and vectors; matrices alone, or an embedding, where an optimizer takes no more."""
    if name == "SparseAdam":
        return nn.Sequential(nn.EmbeddingBag(32, 2, mode="sum", sparse=True))
    width = 640 if module in WIDE else 8
    bias = name != "SpectralSphere"
    return nn.Sequential(nn.Linear(8, width, bias=bias), nn.ReLU(), nn.Linear(width, 2, bias=bias))


def optimizer(kind: Any, name: str, model: nn.Module) -> Any:
    """Made as it wants to be made."""
    parameters = list(model.parameters())
    if name in ("LOMO", "AdaLOMO"):
        return kind(model)
    if name in SHARPNESS:
        models = [model] if name == "WSAM" else []
        return kind(*models, parameters, base_optimizer=torch.optim.SGD, lr=0.01, momentum=0.9)
    if name == "GSAM":
        base = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(base, 2)
        module = importlib.import_module("pytorch_optimizer.lr_scheduler")
        rho = module.ProportionScheduler(schedule, max_lr=0.01, min_value=0.01, max_value=0.05)
        return kind(parameters, base_optimizer=base, model=model, rho_scheduler=rho)
    if name == "BSAM":
        return kind(parameters, num_data=64)
    made = first_that_works(kind, parameters, model)
    if name == "ScheduleFreeWrapper":
        made.train()
    return made


def first_that_works(kind: Any, parameters: list[nn.Parameter], model: nn.Module) -> Any:
    """Made with what a constructor may ask for."""
    matrices = [p for p in parameters if p.ndim == 2]
    vectors = [p for p in parameters if p.ndim != 2]
    flagged = [{"params": matrices, "use_muon": True}, {"params": vectors, "use_muon": False}]
    attempts: list[tuple[Any, dict[str, Any]]] = [
        (parameters, {}),
        (parameters, {"lr": 1e-3}),
        (parameters, {"lr": 1e-3, "momentum": 0.9}),
        (parameters, {"num_iterations": 10}),
        (matrices, {}),
        (model, {}),
        (flagged, {}),
        (torch.optim.SGD(parameters, lr=1e-3, momentum=0.9), {}),
    ]
    needs = inspect.signature(kind).parameters
    if "use_muon" in (inspect.getdoc(kind) or "") and "params" in needs:
        attempts.insert(0, (flagged, {}))
    problem: Exception | None = None
    for arguments, options in attempts:
        try:
            return kind(arguments, **options)
        except Exception as error:
            problem = problem or error
    assert problem is not None
    raise problem


def train(made: Any, name: str, model: nn.Module, batch: Any) -> Tensor:
    """One step as the optimizer wants it."""

    def loss_of() -> Tensor:
        return functional.cross_entropy(model(batch[0]), batch[1])

    def closure() -> Tensor:
        made.zero_grad()
        loss = loss_of()
        loss.backward(create_graph=name in ("AdaHessian", "SophiaH"))  # type: ignore[no-untyped-call]
        return loss

    if name in ("LOMO", "AdaLOMO"):  # updates in the backward pass
        loss = loss_of()
        made.fused_backward(loss, 1e-3)
        return loss
    if name == "GSAM":
        made.set_closure(functional.cross_entropy, *batch)
        made.step()
        made.update_rho_t()
        return loss_of()
    if name == "SafeFP16Optimizer":
        made.zero_grad()
        loss = loss_of()
        made.backward(loss)
        made.step()
        return loss
    loss = closure()
    taken: Callable[[], Any] | None = closure if name in CLOSURES else None
    if name == "AliG":
        taken = loss.item  # it asks for the value only
    if taken is None:
        made.step()
    else:
        made.step(taken)
    if name == "SparseAdam":  # the line to add: sparse gradients are in no snapshot
        made.zero_grad()
    return loss


STUDY = ak.StudyPlan(
    fork_at=3,
    window=1,
    horizon=6,
    seeds=[0],
    placebos=1,
    perturbations=["optimizer-reset"],
)
