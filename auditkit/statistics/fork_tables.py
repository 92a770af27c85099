"""The estimates of a study with several forks: those of each fork, corrected together.

Every fork is estimated by itself, against the control, the placebos and the floor that branch off
there. What is joined is the family: Holm's correction spans perturbations, times and forks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from auditkit.records.estimate import (
    ControlLevel,
    DistanceEstimate,
    EstimateTable,
    FloorDevelopment,
    Persistence,
    SignedEstimate,
)
from auditkit.records.fork_points import marked
from auditkit.records.further_estimates import Generalised, ProfileRow, Spread
from auditkit.records.plan import CONFIRMATORY, StudyPlan
from auditkit.statistics.multiplicity import assign_verdicts, out_of_reach, q_values

_Row = TypeVar(
    "_Row", SignedEstimate, DistanceEstimate, Persistence, Spread, Generalised, ProfileRow
)
_Exploratory = TypeVar("_Exploratory", Spread, ProfileRow)


def joined(tables: Mapping[int, EstimateTable], plan: StudyPlan) -> EstimateTable:
    """The tables of all forks as one.

    Args:
        tables: Of each fork, estimated by the plan of it alone.
        plan: The plan of all.

    Returns:
        Rows named after perturbation and fork, with p values corrected over all of them.
    """
    first = tables[plan.fork_at]
    equal = {
        marked(name, fork): marked(same, fork)
        for fork, table in tables.items()
        for name, same in table.equal.items()
    }
    signed, distances = assign_verdicts(
        [row for fork, table in tables.items() for row in _of(table.signed, fork)],
        [row for fork, table in tables.items() for row in _of(table.distances, fork)],
        first.alpha,
        equal,
    )
    return replace(
        first,
        forks=plan.forks,
        n_seeds_left_out=max(table.n_seeds_left_out for table in tables.values()),
        floor=_floor([table.floor for table in tables.values()]),
        diverged={
            marked(name, fork): count
            for fork, table in tables.items()
            for name, count in table.diverged.items()
        },
        signed=tuple(signed),
        distances=tuple(distances),
        persistence=tuple(
            row for fork, table in tables.items() for row in _of(table.persistence, fork)
        ),
        notes=tuple(_notes(tables, plan)),
        levels=tuple(_levels(tables)),
        equal=equal,
        spreads=_corrected([row for fork, t in tables.items() for row in _of(t.spreads, fork)]),
        generalised=tuple(row for fork, t in tables.items() for row in _of(t.generalised, fork)),
        profiles=_corrected([row for fork, t in tables.items() for row in _of(t.profiles, fork)]),
    )


def _of(rows: Sequence[_Row], fork: int) -> list[_Row]:
    return [replace(row, perturbation=marked(row.perturbation, fork)) for row in rows]


def _corrected(rows: Sequence[_Exploratory]) -> tuple[_Exploratory, ...]:
    adjusted = q_values([row.p for row in rows])
    return tuple(replace(row, adjusted_p=q) for row, q in zip(rows, adjusted, strict=True))


def _levels(tables: Mapping[int, EstimateTable]) -> Iterator[ControlLevel]:
    """The control at the end of each window, and once at T: there all forks' controls are one."""
    first, last = CONFIRMATORY
    for fork, table in tables.items():
        for level in table.levels:
            if level.time == first:
                yield replace(level, time=marked(first, fork))
    for level in next(iter(tables.values())).levels:
        if level.time == last:
            yield level


def _floor(floors: Sequence[FloorDevelopment]) -> FloorDevelopment:
    """Developed where it is at every fork."""
    judged = [floor.developed for floor in floors if floor.developed is not None]
    return replace(
        floors[0],
        n_above=sum(floor.n_above for floor in floors),
        n_placebos=sum(floor.n_placebos for floor in floors),
        developed=all(judged) if judged else None,
    )


def _notes(tables: Mapping[int, EstimateTable], plan: StudyPlan) -> Iterator[str]:
    """Notes of all forks once, of some with their fork; what all tests together need."""
    shared = set.intersection(*(set(table.notes) for table in tables.values()))
    # What the tests of one fork would need by themselves says too little.
    alone = {_out_of_reach([table], plan) for table in tables.values()}
    for note in dict.fromkeys(note for table in tables.values() for note in table.notes):
        if note in shared - alone:
            yield note
        elif note not in alone:
            yield from (f"at t0={fork}: {note}" for fork in tables if note in tables[fork].notes)
    together = _out_of_reach(tables.values(), plan)
    if together is not None:
        yield together


def _out_of_reach(tables: Collection[EstimateTable], plan: StudyPlan) -> str | None:
    """A note where the tests of such forks, corrected together, can show nothing."""
    first, *_ = tables
    counted = [len(plan.perturbations) - len(table.equal) for table in tables]
    n_seeds = min(table.n_seeds - table.n_seeds_left_out for table in tables)
    n_tests = len(plan.times) * sum(counted)
    return out_of_reach(first.primary_metric, n_seeds, plan.placebos, n_tests)
