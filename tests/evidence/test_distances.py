from __future__ import annotations

import math

import numpy as np
import pytest

from auditkit.evidence.distances import probe_distances, told, within
from auditkit.formats.run_files import Outcome
from auditkit.records.report import Distance

TIMES = ("t0", "t0+W", "T")


def outcome(**tables: list[list[float]]) -> Outcome:
    even = [[0.5, 0.5], [0.25, 0.75]]
    values = {**dict.fromkeys(TIMES, even), **tables}
    arrays = {name: np.array(value, np.float32) for name, value in values.items()}
    return Outcome(np.array([0, 1]), arrays)


def test_equal_tables_have_no_distance() -> None:
    assert list(probe_distances("x", outcome(), outcome())) == []


def test_a_table_has_its_largest_differences_and_its_mean_variation() -> None:
    moved = outcome(T=[[0.5, 0.5], [0.5, 0.5]])
    assert list(probe_distances("seed 0, carry", outcome(), moved)) == [
        Distance("seed 0, carry", "probe", "T", 0.25, 0.5, 0.125)
    ]


def test_bits_that_differ_by_nothing_are_at_distance_zero() -> None:
    left, right = outcome(T=[[0.0, 1.0], [1.0, 0.0]]), outcome(T=[[-0.0, 1.0], [1.0, 0.0]])
    (found,) = probe_distances("x", left, right)
    assert (found.largest_absolute, found.largest_relative, found.total_variation) == (0, 0, 0)


def test_equal_tables_that_are_not_finite_have_no_distance() -> None:
    nan = outcome(T=[[math.nan, math.nan], [0.5, 0.5]])
    assert list(probe_distances("x", nan, nan)) == []


@pytest.mark.parametrize(
    "other",
    [
        outcome(T=[[math.nan, 0.5], [0.5, 0.5]]),
        outcome(T=[[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]),
        Outcome(np.array([0, 1]), {name: outcome().tables[name] for name in ("t0", "t0+W")}),
    ],
    ids=["not finite", "another shape", "missing"],
)
def test_what_cannot_be_measured_is_never_within_a_tolerance(other: Outcome) -> None:
    (found,) = probe_distances("x", outcome(), other)
    assert found == Distance("x", "probe", "T", None, None, None)
    assert not within([found], 1.0)


def test_every_table_must_be_within_the_tolerance() -> None:
    near = Distance("a", "probe", "T", 0.1, 0.1, 0.01)
    far = Distance("b", "probe", "T", 0.1, 0.1, 0.03)
    state = Distance("fork", "state", "params", 9.0, 2.0)
    assert within([near, state], 0.01)
    assert not within([near, far], 0.01)
    assert within([], 0.0)


def test_the_tables_are_told_in_their_order_and_the_largest_components_first() -> None:
    state = [
        Distance("seed 0, fork", "state", name, size, size / 2)
        for name, size in [("a", 1e-3), ("b", 3e-3), ("c", 2e-3), ("d", 4e-3)]
    ]
    probe = Distance("seed 0, carry", "probe", "T", 0.1, 0.2, 0.05)
    assert told([*state, probe], "carry", TIMES) == (
        "; total variation between record and replay of carry: 0 at t0, 0 at t0+W, 0.05 at T"
        "; largest difference of the snapshots: d by 0.004 (relatively by 0.002), "
        "b by 0.003 (relatively by 0.0015), c by 0.002 (relatively by 0.001), 1 more component"
    )


def test_what_has_no_number_is_told_first() -> None:
    shapes = Distance("seed 0, fork", "state", "params", None, None)
    known = Distance("seed 0, fork", "state", "batchnorm", 1.0, 1.0)
    table = Distance("seed 0, carry", "probe", "T", None, None)
    assert told([known, shapes, table], "carry", ["T"]) == (
        "; total variation between record and replay of carry: no number at T"
        "; largest difference of the snapshots: params (no number), "
        "batchnorm by 1 (relatively by 1)"
    )


def test_nothing_is_told_where_nothing_was_measured() -> None:
    assert told([], "carry", []) == ""
