"""Going on after a kill with state that no ``state_dict`` of the loop's optimizer holds."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loop_styles
import numpy as np
import pytest
import torch

import auditkit as ak
from auditkit.errors import RestoreMismatch, ResumeMismatch


class Killed(Exception):
    """Ends a loop between two statements."""


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home and a script of nobody's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)


class Schedule:
    def __init__(self) -> None:
        self.calls = 0


class SelfScheduled(torch.optim.SGD):
    """Sets its rate by a counter in an object of its own."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, lr=0.1, momentum=0.9)
        self.schedule, self.ready = Schedule(), False

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.schedule.calls += 1
        self.ready = True
        for group in self.param_groups:
            group["lr"] = 0.1 / self.schedule.calls
        super().step(closure)


class Sharp(torch.optim.Optimizer):
    """Holds the optimizer that steps."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.05, "momentum": 0.9})
        self.base_optimizer = torch.optim.SGD(self.param_groups, lr=0.05, momentum=0.9)
        self.param_groups = self.base_optimizer.param_groups

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.base_optimizer.step()


def run(
    rec: Any, make: Callable[[Any], torch.optim.Optimizer], kill_at: int | None = None
) -> bytes:
    """Three epochs; the final bits."""
    _seed()
    model = loop_styles.network()
    optimizer = make(model.parameters())
    model, optimizer, loader = rec.wrap(model, optimizer, loop_styles.loader_of())
    for _ in rec.epochs(range(3)):
        for x, y, _index in loader:
            loop_styles.update(optimizer, loop_styles.loss_of(model(x), y))
            if kill_at is not None and rec.step + 1 == kill_at:
                raise Killed
    return _bits(model)


def grows(rec: Any, kill_at: int | None = None, *, told: bool) -> bytes:
    """The first layer thaws after step 4; ``told``: as a resume's refusal advises."""
    _seed()
    model: Any = loop_styles.network()
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    layers[0].requires_grad_(False)
    optimizer = torch.optim.SGD(layers[-1].parameters(), lr=0.05, momentum=0.9)
    model, optimizer, loader = rec.wrap(model, optimizer, loop_styles.loader_of())

    def thaw() -> None:
        layers[0].requires_grad_(True)
        optimizer.add_param_group({"params": list(layers[0].parameters()), "lr": 0.01})

    if told and rec.step >= 4:
        thaw()
    for _ in rec.epochs(range(3)):
        for x, y, _index in loader:
            loop_styles.update(optimizer, loop_styles.loss_of(model(x), y))
            if rec.step + 1 == 4:
                thaw()
            if kill_at is not None and rec.step + 1 == kill_at:
                raise Killed
    return _bits(model)


def _seed() -> None:
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)


def _bits(model: torch.nn.Module) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())


def _killed(folder: Path, loop: Callable[..., bytes], *arguments: Any, **options: Any) -> None:
    rec = ak.Recorder.resume(folder, checkpoint_every=2)
    with pytest.raises(Killed), rec:
        loop(rec, *arguments, kill_at=7, **options)


@pytest.mark.parametrize("make", [SelfScheduled, Sharp])
def test_what_an_optimizer_holds_is_resumed(make: Any, tmp_path: Path) -> None:
    with ak.Recorder(tmp_path / "whole") as rec:
        whole = run(rec, make)
    _killed(tmp_path / "killed", run, make)
    with ak.Recorder.resume(tmp_path / "killed", checkpoint_every=2) as rec:
        assert run(rec, make) == whole
    assert rec.manifest is not None


def test_without_its_attributes_the_resumed_run_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above rests on."""
    from auditkit.observe.state.attributes import Attributes

    _killed(tmp_path / "killed", run, SelfScheduled)
    monkeypatch.setattr(Attributes, "restore", lambda self, state: None)
    rec = ak.Recorder.resume(tmp_path / "killed", checkpoint_every=2)
    with pytest.raises(ResumeMismatch, match="another param_groups"), rec:
        run(rec, SelfScheduled)


def test_a_group_that_joined_is_named_and_the_advice_works(tmp_path: Path) -> None:
    with ak.Recorder(tmp_path / "whole") as rec:
        whole = grows(rec, told=True)
    _killed(tmp_path / "killed", grows, told=True)
    # The latest checkpoint, which too few rows follow.
    rec = ak.Recorder.resume(tmp_path / "killed", checkpoint_every=2, unproven=True)
    with (
        pytest.raises(RestoreMismatch, match=r"had 2 parameter groups .* rec\.step") as error,
        rec,
    ):
        grows(rec, told=False)
    assert "0.weight" in str(error.value)
    with ak.Recorder.resume(tmp_path / "killed", checkpoint_every=2) as rec:
        assert grows(rec, told=True) == whole
