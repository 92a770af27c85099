"""Pseudo-replication by the holder of the key: seeds that are one seed under several numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from studies import PLAN, Run, study_in_process

from attacks.attack import Attack
from attacks.subjects import FEW
from auditkit.records.plan import StudyPlan

GROUP = "one seed twice"

_PAIR = replace(FEW, seeds=(0, 1))
_PLAIN = _PAIR.with_perturbations(
    [spec for spec in PLAN.perturbations if spec.name in ("carry", "order-reverse")]
)


def _of(name: str, plan: StudyPlan = _PAIR) -> Callable[[Run], Run]:
    """Run a study of one of the programs."""

    def make(run: Run) -> Run:
        target = f"one_seed_study.py:make_{name}"
        return study_in_process(run.folder.parent / "forged", run.key, plan, target)

    return make


def _twice(name: str, program: str, says: str, plan: StudyPlan = _PAIR) -> Attack:
    return Attack(name, GROUP, _of(program, plan), 5, 1, says, where="seed 1")


def _honest(name: str, program: str) -> Attack:
    return Attack(f"control: {name}", GROUP, _of(program), 0, 0)


ATTACKS = (
    _twice("a parameter that nothing uses", "unused", "seeds 0 and 1 are one seed"),
    _twice(
        "the same, and the optimizer keeps nothing",
        "unused_plain",
        "losses, outcome tables",
        _PLAIN,
    ),
    _twice("a parameter that only the probe sees", "shown", "optimizer/momentum_buffer, losses"),
    _twice("and a loss with what has no gradient", "offset", "optimizer/momentum_buffer, order"),
    _twice(
        "the same with another optimizer", "adam", "optimizer/exp_avg, optimizer/exp_avg_sq", _PLAIN
    ),
    _twice(
        "without an order to draw", "sequential_copy", "momentum_buffer, losses, outcome tables"
    ),
    _twice("one generator for every seed's order", "fixed_generator", "have the same order"),
    _honest("the order is the data set's", "sequential"),
    _honest("one batch", "full_batch"),
    _honest("a sampler of the program's own", "curriculum"),
    _honest("everything is drawn", "shuffled"),
    _honest("one initialisation, and orders of their own", "alike_at_first"),
    _honest("most parameters are fixed, and not trained", "frozen"),
)
