"""Edits that another environment is claimed for: it excuses states that differ, nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import forging
import numpy as np
import pytest
import studies
from studies import InProcessWorkers, Run

from attacks.attack import Attack
from attacks.envelope import predicate
from attacks.forgeries import LAST_ROW, TREATED, branch

GROUP = "another environment claimed"

Forge = Callable[[Run], object]


def claimed(section: str, name: str, value: str) -> Forge:
    """Let the record claim another environment."""
    return predicate(lambda told: told["environment"][section].update({name: value}))


def both(*forges: Forge) -> Forge:
    """One after the other."""

    def apply(run: Run) -> None:
        for forge in forges:
            forge(run)

    return apply


def table(time: str, *names: str) -> Forge:
    """Make tables of branches flatter."""

    def apply(run: Run) -> None:
        for name in names:
            forging.edit_outcome(run, name, time, forging.flatter)

    return apply


def end(name: str, time: str = "T") -> Forge:
    """Commit to other weights."""
    return branch(name, lambda told: told["digests"][time].update(params="5" * 64))


def row(name: str, step: int = LAST_ROW, component: str = "params") -> Forge:
    """Other evidence of one step."""
    return lambda run: forging.edit_trace(run, name, step, component)


def _losses(run: Run) -> None:
    def edit(told: forging.Arrays) -> None:
        told["loss_bits"][3] ^= 1

    forging.edit_tensors(run, forging.trace_name(run, "momentum-reset"), edit)


def _labels(run: Run) -> None:
    def edit(labels: np.ndarray[Any, Any]) -> None:
        labels[0] = (labels[0] + 1) % 3

    for told in forging.statement_of(run)["predicate"]["seeds"][0]["branches"]:
        forging.edit_outcome(run, told["name"], "labels", edit)


@contextlib.contextmanager
def _really_here(_: Run) -> Iterator[None]:
    """Replays run in the environment that they run in, whatever the record claims."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies, "InProcessWorkers", lambda _: InProcessWorkers())
        yield


_OTHER_TORCH = claimed("packages", "torch", "2.99.0")
_OTHER_CPU = claimed("hardware", "processor", "an abacus")

_LR = "param_groups[0].lr"


def _excused(
    name: str, apply: Forge, component: str, where: str = TREATED, **options: Any
) -> Attack:
    says = "no other environment excuses it"
    return Attack(
        name, GROUP, apply, 8, 1, says, where, None, component, True, "few", options, _really_here
    )


def _contradiction(name: str, value: str) -> Attack:
    forge = claimed("variables", name, value)
    says = f"{name} was {value}, the protocol asks for"
    return Attack(f"{name} is {value}", GROUP, forge, 4, 1, says, where="environment")


def _told(name: str, change: Callable[[dict[str, Any]], object], component: str) -> Attack:
    """What people are told of program and data, under cover of another processor."""
    return _excused(name, both(predicate(change), _OTHER_CPU), component, "seed 0, trunk")


def _data(told: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = told["seeds"][0]["data"]
    return data


_TOLD = (
    _told("the model's class", lambda t: t["program"]["description"].update(model="R"), "model"),
    _told(
        "the optimizer's class, another torch claimed, too",
        lambda t: (
            t["program"]["description"].update(optimizer="AdamW"),
            t["environment"]["packages"].update(torch="2.99.0"),
        ),
        "optimizer",
    ),
    _told(
        "the batch size",
        lambda t: _data(t)["loader"].update({"batch size": "256"}),
        "data (loader)",
    ),
    _told("the declared digest", lambda t: _data(t).update(declared="0" * 64), "data (declared)"),
    _told("the number of samples", lambda t: _data(t).update(samples=1281167), "data (samples)"),
    _excused(
        "what was reset",
        both(
            branch("momentum-reset", lambda told: told.update(reset=["param_groups[0].lr"])),
            _OTHER_CPU,
        ),
        _LR,
    ),
)

ATTACKS = (
    _contradiction("OMP_NUM_THREADS", "7"),
    _contradiction("MKL_NUM_THREADS", "2"),
    _contradiction("OPENBLAS_NUM_THREADS", "1,1"),
    _contradiction("PYTHONHASHSEED", "random"),
    _excused(
        "a table, another torch claimed", both(table("T", "momentum-reset"), _OTHER_TORCH), "T"
    ),
    _excused(
        "a table, another processor claimed, within a tolerance",
        both(table("T", "momentum-reset"), _OTHER_CPU),
        "T",
        tolerance=0.5,
    ),
    _excused(
        "a table, and the commitment beside it",
        both(table("T", "momentum-reset"), end("momentum-reset"), _OTHER_TORCH),
        "T",
        tolerance=0.5,
    ),
    _excused(
        "a table, the commitment beside it and a loss",
        both(table("t0+W", "momentum-reset"), end("momentum-reset", "t0+W"), _losses, _OTHER_CPU),
        "t0+W",
    ),
    _excused(
        "an early table, and a late state",
        both(
            table("t0+W", "momentum-reset"),
            end("momentum-reset"),
            row("momentum-reset"),
            _OTHER_CPU,
        ),
        "t0+W",
        tolerance=1.0,
    ),
    _excused(
        "the control's table, and all that must equal it",
        both(table("T", "control", "replica", "carry"), _OTHER_TORCH),
        "T",
        "seed 0, control",
    ),
    _excused("every label column", both(_labels, _OTHER_TORCH), "labels", "seed 0, control"),
    _excused(
        "a commitment alone", both(end("momentum-reset"), _OTHER_TORCH), "params", tolerance=0.5
    ),
    *_TOLD,
    Attack(
        "control: another torch claimed, and nothing edited",
        GROUP,
        _OTHER_TORCH,
        0,
        0,
        needs_replay=True,
        subject="few",
        during=_really_here,
    ),
)
