"""Whatever a program or a probe is given, a mistake is an error of ours that says where."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from tiny_programs import Numbers, small_net
from torch import nn
from torch.utils.data import DataLoader

from auditkit.errors import AuditError, ProgramError
from auditkit.program.observables import Measure
from auditkit.program.probe import Probe
from auditkit.program.program import Program

#: What somebody may pass by mistake, wherever.
ODD: tuple[Any, ...] = (
    *(
        None,
        "x",
        "",
        b"x",
        "\udcff",
        [1],
        [None],
        (1, 2),
        {1},
        {1: 2},
        {"a": None},
        {"a": math.nan},
    ),
    *(math.nan, math.inf, 1.5, 1j, -1, 0, 10**30, True, int, object(), lambda: 1),
    *(torch.zeros(2), torch.tensor(1.0), np.zeros(2), np.array(1)),
)


def given() -> dict[str, Any]:
    model = small_net()
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loader": DataLoader(Numbers()),
        "loss": lambda model, batch: model(batch).square().mean(),
        "probe": Probe(torch.ones(3, 4), torch.tensor([0, 1, 2])),
    }


def test_no_value_of_a_program_raises_anything_else() -> None:
    base = given()
    for field in fields(Program):
        for value in ODD:
            try:
                Program(**{**base, field.name: value})
            except AuditError as error:
                str(error).encode()


@pytest.mark.parametrize(
    "probe",
    [
        {"labels": torch.tensor([0, 1, 2, 0])},
        {"labels": torch.randn(4), "outputs": "regression"},
        {"outputs": "embedding"},
    ],
    ids=["classes", "regression", "embedding"],
)
def test_no_value_of_a_probe_raises_anything_else(probe: dict[str, Any]) -> None:
    for field in fields(Probe):
        for value in ODD:
            try:
                Probe(**{"inputs": torch.randn(4, 3), **probe, field.name: value})
            except AuditError as error:
                str(error).encode()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"averaged": [small_net()]}, "Program.averaged has the wrong type"),
        ({"extras": None}, "Program.extras has the wrong type"),
        ({"measures": [len]}, "Program.measures has the wrong type"),
        ({"probes": [given()["probe"]], "probe": None}, "Program.probes has the wrong type"),
        ({"data_changes": len}, "Program.data_changes has the wrong type"),
        ({"augment": "noise"}, "Program.augment has the wrong type"),
        ({"loss": 1.0}, "Program.loss has the wrong type"),
        (
            {"scheduler": True},
            "Program.scheduler has the wrong type (expected an object with state",
        ),
        ({"scheduler": [1]}, "Program.scheduler has the wrong type"),
        ({"scaler": torch.amp.GradScaler}, "Program.scaler has the wrong type"),
        ({"averaged": {"ema": 1}}, "Program.averaged['ema'] has the wrong type"),
        ({"averaged": {1: small_net()}}, "Program.a name in averaged has the wrong type"),
        ({"extras": {"": small_net()}}, "a name in extras has the wrong type"),
        ({"extras": {"x" * 5000: small_net()}}, "expected texts of 1 to 200 characters"),
        ({"extras": {"memory": nn.Linear}}, "found the class Linear"),
        ({"measures": {"a": 1}}, "Program.measures['a'] has the wrong type"),
        ({"data_changes": {"a": 1}}, "Program.data_changes['a'] has the wrong type"),
        ({"data_version": 5}, "Program.data_version is a text, not 5"),
        ({"data_version": "\udcff"}, "Program.data_version is a text, not "),
        ({"difficulty": "hard"}, "Program.difficulty has the wrong type"),
        ({"difficulty": 5}, "Program.difficulty has the wrong type"),
        ({"accumulate": 1.5}, "accumulate must be a whole number of 1 to 1000000000, not 1.5"),
        ({"accumulate": True}, "accumulate must be a whole number of 1 to 1000000000, not True"),
        ({"accumulate": 10**30}, "accumulate must be a whole number of 1 to 1000000000, not 1"),
        ({"clip_grad_norm": -1.0}, "clip_grad_norm must be a number of at least 0, not -1.0"),
        ({"clip_grad_norm": math.nan}, "clip_grad_norm must be a number of at least 0, not nan"),
        ({"step": lambda *_: None, "accumulate": 2}, "Program.accumulate would do nothing: "),
        ({"step": lambda *_: None, "clip_grad_norm": 0.0}, "(found clip_grad_norm=0.0); leave "),
        ({"optimizer": [given()["optimizer"]] * 2}, "extras={'name': ...}, and take all steps"),
        ({"model": {"a": small_net()}}, "found dict); several are one: nn.ModuleDict({...})"),
        ({"scheduler_interval": ["step"]}, "scheduler_interval is 'step' or 'epoch', not"),
        ({"groups": {"queue": 3}}, "group 'queue' needs a pattern"),
    ],
)
def test_what_is_of_another_kind_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ProgramError) as refused:
        Program(**{**given(), **changes})
    assert says in str(refused.value)


def with_two(program: object, batch: object) -> None:
    """A step that forgets the number."""


FIRST_LINE = with_two.__code__.co_firstlineno


class Called:
    def __call__(self, batch: object, *, step: int) -> None:
        """A change of data that wants names."""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"step": with_two},
            f"test_checked_kinds.py:{FIRST_LINE}: Program.step is a function of other arguments "
            "(expected step(program, batch, t), found with_two(program: 'object', batch: 'object')",
        ),
        (
            {"data_changes": {"blur": lambda batch: batch}},
            "Program.data_changes['blur'] is a function of other arguments",
        ),
        ({"data_changes": {"blur": 3}}, "Program.data_changes['blur'] has the wrong type"),
        ({"step": lambda: None}, "expected step(program, batch, t), found <lambda>())"),
        ({"loss": functools.partial(with_two, 1)}, "expected loss(model, batch), found partial("),
        ({"augment": Called()}, "expected augment(batch, step, generator), found Called("),
        ({"on_epoch_end": lambda program: None}, "expected on_epoch_end(program, epoch)"),
        ({"recalibrate": lambda model, batch, t: None}, "expected recalibrate(model, batch)"),
    ],
)
def test_a_function_of_other_arguments_is_named_with_its_place(
    changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ProgramError) as refused:
        Program(**{**given(), **changes})
    assert says in str(refused.value)


def scaled(fn: Callable[..., object]) -> Callable[..., object]:
    """A decorator that gives what it wraps a further argument."""

    @functools.wraps(fn)
    def call(model: object, batch: object) -> object:
        return fn(model, batch, scale=2.0)

    return call


@scaled
def with_scale(model: object, batch: object, *, scale: float) -> None:
    """A loss of three arguments that is called with two."""


def test_a_decorated_function_is_judged_by_what_is_called() -> None:
    Program(**{**given(), "loss": with_scale})
    with pytest.raises(ProgramError, match=r"expected step\(program, batch, t\)"):
        Program(**{**given(), "step": with_scale})


def test_a_function_that_can_be_called_so_is_taken() -> None:
    for step in (
        lambda *_: None,
        lambda program, batch, t, more=1: None,
        functools.partial(max, 1),
    ):
        Program(**{**given(), "step": step, "loss": with_two})
    Program(**{**given(), "step": lambda program, batch, t: None, "loss": lambda outputs: outputs})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"predict": "logits"}, "Probe.predict is no function"),
        ({"of": nn.Linear(1, 1)}, "Probe.of is no name"),
        ({"ignore_index": None}, "Probe.ignore_index must be a whole number, not None"),
        ({"ignore_index": 2**63}, "Probe.ignore_index must be a number of 64 bits"),
        ({"probabilities": "yes"}, "Probe.probabilities is True or False, not 'yes'"),
        ({"outputs": ["classes"]}, "Probe.outputs is no kind of outputs"),
        ({"inputs": torch.zeros(0, 3), "labels": None}, "Probe.inputs hold no example"),
        ({"labels": "cat"}, "the labels of the probe are no tensor"),
        ({"labels": [None], "outputs": "regression"}, "the targets of the probe are no tensor"),
    ],
)
def test_what_is_of_another_kind_in_a_probe_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ProgramError) as refused:
        Probe(**{"inputs": torch.randn(2, 3), "labels": torch.tensor([0, 1]), **changes})
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"better": "more"}, "Measure.better is 'higher' or 'lower', not 'more'"),
        ({"low": "0"}, "Measure.low is a finite number, not '0'"),
        ({"low": math.nan}, "Measure.low is a finite number, not nan"),
        ({"high": math.inf}, "Measure.high is a finite number, not inf"),
        ({"on": 5}, "Measure.on is the name of a probe, not 5"),
    ],
)
def test_what_is_of_another_kind_in_a_measure_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ProgramError, match=says):
        Measure(len, **changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"loss": lambda model, batch: None}, "Program.loss gives something .*found NoneType"),
        ({"loss": lambda model, batch: 1.0}, "Program.loss gives something .*found float"),
        ({"loss": lambda model, batch: model(batch)}, r"Program.loss .*shape \(2, 3\).*mean of it"),
        ({"step": lambda program, batch, t: "1.0"}, "Program.step gives something .*found str"),
        ({"step": lambda program, batch, t: torch.ones(2)}, "Program.step gives something else"),
    ],
)
def test_what_is_no_loss_is_named(changes: dict[str, Any], says: str) -> None:
    program = Program(**{**given(), **changes})
    with pytest.raises(ProgramError, match=says):
        program.train_on(torch.ones(2, 4), 1)


@pytest.mark.parametrize("loss", [1.5, np.float32(1.5), np.array([1.5]), torch.tensor([1.5])])
def test_a_step_may_give_any_number(loss: Any) -> None:
    program = Program(**{**given(), "step": lambda program, batch, t: loss})
    assert program.train_on(None, 1) == 1.5


def test_modules_by_name_may_be_those_of_torch() -> None:
    averaged = nn.ModuleDict({"ema": small_net()})
    program = Program(**{**given(), "averaged": averaged, "clip_grad_norm": math.inf})
    assert list(program.averaged) == ["ema"]
