"""The trial of a placebo: nudged copies of a program, held as a branch will be.

It begins at t0 and lasts as long as a branch, or as near and as long as a trial may; of several
forks at the last, whose branches have the least time. How many steps were timed before it does
not matter, so every preflight of a plan gives the same trial, and so the same choice of scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from auditkit.formats.outcome_names import REAL, split_column, table_name
from auditkit.observe.loader.driver import Delivery
from auditkit.observe.state.components import State
from auditkit.observe.values.codec import Leaves
from auditkit.program.reference import Reference
from auditkit.program.session import Session
from auditkit.records.output_kinds import CLASSES, KINDS
from auditkit.records.plan import PerturbationSpec, StudyPlan
from auditkit.records.preflight import NudgeTrial
from auditkit.statistics.design import has_grown
from auditkit.statistics.looks import floor_probe
from auditkit.statistics.positions import Table, distances, growth, position_tables
from auditkit.study.stages.auditor import Auditor
from auditkit.study.stages.evaluator import Tables, evaluate_probe
from auditkit.study.stages.forker import read_fork, restore_fork
from auditkit.study.stages.holder import hold
from auditkit.study.stages.perturber import perturb
from auditkit.study.stages.snapshotter import Snapshot

#: Steps that are trained at most before a trial, and in it.
_MOST_BEFORE, _MOST_STEPS = 256, 128

#: Nudges that are tried of one scale, the plan's first placebos: all of them have to grow.
_DRAWS = 2


def nudged_after(plan: StudyPlan) -> int:
    """The step after which nudges are tried."""
    return min(plan.forks[-1], _MOST_BEFORE)


def try_nudges(
    make: Callable[[], Session], snapshot: Snapshot, plan: StudyPlan, scales: tuple[int, ...]
) -> tuple[NudgeTrial, ...]:
    """Hold nudged copies of a program for a while, until a nudge has grown.

    Args:
        make: Builds the program anew.
        snapshot: The state that is nudged, after step :func:`nudged_after`.
        plan: Says how long a branch will be, and by which probe its floor is judged.
        scales: Sizes of the nudge, ascending; none larger than the first that has grown is tried.
    """
    began, steps = nudged_after(plan), min(plan.horizon - plan.forks[-1], _MOST_STEPS)
    control = _held(make(), snapshot, plan, steps, None, None)
    trials: list[NudgeTrial] = []
    for scale in scales:
        specs = [PerturbationSpec("ulp", {"scale": scale, "draw": draw}) for draw in range(_DRAWS)]
        nudged = [_held(make(), snapshot, plan, steps, spec, control) for spec in specs]
        far = [[looks[at].variation(control[at]) for at in (0, 1)] for looks in nudged]
        halfway, end = min(far, key=lambda each: each[1])
        trials.append(NudgeTrial(scale, steps, halfway, end, control[0].of, began))
        if has_grown(trials[-1], plan):
            break
    return tuple(trials)


@dataclass(frozen=True)
class _Look:
    """What the probe showed once, and what others are compared with where it is by position.

    Attributes:
        tables: Every table.
        reference: The control's.
        probe: The probe whose floor is spoken of.
    """

    tables: Tables
    reference: Reference
    probe: str

    @property
    def of(self) -> str:
        """What is said to vary."""
        columns = [column for table, column in map(split_column, self.tables) if table == self._key]
        kinds = [column for column in columns if column in REAL]
        return KINDS[kinds[0] if kinds else CLASSES].growth

    @property
    def _key(self) -> str:
        return table_name("", self.probe)

    @property
    def _table(self) -> Table:
        return position_tables(self.tables)[self._key]

    def variation(self, control: _Look) -> float:
        """Total variation from the control's look, or what stands for it."""
        return growth(control._table, distances(control._table, self._table)) or 0.0


def _held(
    session: Session,
    snapshot: Snapshot,
    plan: StudyPlan,
    steps: int,
    spec: PerturbationSpec | None,
    control: list[_Look] | None,
) -> list[_Look]:
    """Looks at the probe at half of the steps and at their end."""
    first = nudged_after(plan) + 1
    observed = session.program.observed
    try:
        restore_fork(session, read_fork(snapshot.tensors, snapshot.meta))
        perturb(session, spec)
        at = (first + max(steps // 2, 1) - 1, first + steps - 1)
        callback = _Halves(session, floor_probe(observed, observed.primary(plan)), at, control)
        hold(session, first, first + steps - 1, Auditor(first), callback)
    finally:
        session.close()
    return callback.looks


class _Halves:
    """Evaluates the probe at two steps."""

    def __init__(
        self, session: Session, probe: str, steps: tuple[int, ...], control: list[_Look] | None
    ) -> None:
        self._session, self._probe, self._steps, self._control = session, probe, steps, control
        self.looks: list[_Look] = []

    def on_boundary(self, step: int, state: State) -> None:
        """Nothing to do."""

    def on_batch(self, step: int, delivery: Delivery, leaves: Leaves) -> None:
        """Nothing to do."""

    def on_step_end(self, step: int, loss: float | None) -> None:
        """Evaluate where it is asked for."""
        for _ in range(self._steps.count(step)):
            of_control = self._control[len(self.looks)].reference if self._control else None
            reference = Reference() if of_control is None else of_control
            tables = evaluate_probe(self._session, [], reference)
            reference.complete = True
            self.looks.append(_Look(tables, reference, self._probe))
