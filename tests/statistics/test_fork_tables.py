"""The tables of several forks as one: what each says of its floor and of equal treatments stays."""

from __future__ import annotations

import numpy as np
import pytest

from auditkit.records.estimate import EstimateTable
from auditkit.records.observed import Observed
from auditkit.records.output_kinds import EMBEDDING, REGRESSION
from auditkit.records.plan import StudyPlan
from auditkit.statistics.estimands import estimate
from auditkit.statistics.fork_tables import joined
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes
from auditkit.statistics.real_tables import RealTable

FIRST, SECOND = "momentum-reset", "optimizer-reset"
FORKS = (10, 20)


def plan(kind: str = EMBEDDING) -> StudyPlan:
    return StudyPlan(
        fork_at=list(FORKS),
        window=5,
        horizon=50,
        seeds=range(3),
        perturbations=[FIRST, SECOND],
        placebos=1,
        primary_metric="rmsd" if kind == REGRESSION else "cka_distance",
    )


def branch(number: int, kind: str) -> BranchTables:
    """The same numbers in new objects for the same number."""
    values = np.random.default_rng(number).normal(size=(20, 3)).astype(np.float32)
    return BranchTables({time: RealTable(kind, values) for time in ("t0+W", "T")})


def at_fork(fork: int, kind: str, *, are_equal: bool = True) -> EstimateTable:
    outcomes = [
        SeedOutcomes(
            seed,
            np.random.default_rng(99).normal(size=(20, 3)) if kind == REGRESSION else np.empty(0),
            branch(100 + seed, kind),
            (branch(200 + fork + seed, kind),),
            {
                FIRST: branch(300 + fork + seed, kind),
                SECOND: branch(300 + fork + seed if are_equal else 400 + seed, kind),
            },
            Observed(outputs=(kind,)),
        )
        for seed in range(3)
    ]
    return estimate(outcomes, plan(kind).at(fork))


@pytest.mark.parametrize("kind", [REGRESSION, EMBEDDING])
def test_treatments_with_equal_outputs_are_said_to_be_one(kind: str) -> None:
    note = f"{FIRST}, {SECOND}: equal bits in every seed, so each of their tests is counted once"
    found = at_fork(10, kind)
    assert note in found.notes
    assert found.equal == {SECOND: FIRST}
    assert note not in at_fork(10, kind, are_equal=False).notes


def test_a_note_of_equal_treatments_stands_once_for_all_forks_or_names_the_one() -> None:
    note = f"{FIRST}, {SECOND}: equal bits in every seed, so each of their tests is counted once"
    both = joined({fork: at_fork(fork, EMBEDDING) for fork in FORKS}, plan())
    assert [text for text in both.notes if "equal bits" in text] == [note]
    tables = {10: at_fork(10, EMBEDDING, are_equal=False), 20: at_fork(20, EMBEDDING)}
    one = joined(tables, plan())
    assert [text for text in one.notes if "equal bits" in text] == [f"at t0=20: {note}"]
    assert one.equal == {f"{SECOND}/t0=20": f"{FIRST}/t0=20"}


@pytest.mark.parametrize("kind", [REGRESSION, EMBEDDING])
def test_what_has_to_exceed_the_floors_threshold_is_that_of_each_fork(kind: str) -> None:
    tables = {fork: at_fork(fork, kind) for fork in FORKS}
    floor = joined(tables, plan(kind)).floor
    assert floor.of == tables[10].floor.of != "TV"
    assert (floor.n_above, floor.n_placebos, floor.developed) == (6, 6, True)
