from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from auditkit.evidence.distances import (
    Magnitude,
    describe_distances,
    measure,
    probe_distances,
    total_variations,
    within,
)
from auditkit.formats.run_files import Outcome
from auditkit.formats.snapshot_file import FORMAT, tensor_key
from auditkit.records.report import Distance
from auditkit.records.tensor import RawTensor

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
    assert describe_distances([*state, probe], "carry", TIMES) == (
        "; total variation between record and replay of carry: 0 at t0, 0 at t0+W, 0.05 at T"
        "; largest difference of the snapshots: d by 0.004 (relatively by 0.002), "
        "b by 0.003 (relatively by 0.0015), c by 0.002 (relatively by 0.001), 1 more component"
    )


def test_what_has_no_number_is_told_first() -> None:
    shapes = Distance("seed 0, fork", "state", "params", None, None)
    known = Distance("seed 0, fork", "state", "batchnorm", 1.0, 1.0)
    table = Distance("seed 0, carry", "probe", "T", None, None)
    assert describe_distances([known, shapes, table], "carry", ["T"]) == (
        "; total variation between record and replay of carry: no number at T"
        "; largest difference of the snapshots: params (no number), "
        "batchnorm by 1 (relatively by 1)"
    )


def test_of_several_probes_the_largest_is_told_and_of_tables_by_position_none() -> None:
    of_named = [
        Distance("seed 0, carry", "probe", name, 0.1, 0.2, size)
        for name, size in [("T@in", 0.05), ("T@out", 0.25), ("T@out/recalibrated", 0.5)]
    ]
    by_position = Distance("seed 0, carry", "probe", "t0+W@in:tv", None, None)
    measure = Distance("seed 0, carry", "probe", "t0=return", None, None)
    assert describe_distances([*of_named, by_position, measure], "carry", TIMES) == (
        "; total variation between record and replay of carry: 0 at t0, no number at t0+W, "
        "0.25 at T"
    )


def test_a_table_by_position_and_a_measure_have_no_distance() -> None:
    here, there = (
        Outcome(np.array([0, 1]), {"T:tv": np.array([0.0, value]), "T=return": np.array([value])})
        for value in (0.25, 0.5)
    )
    found = list(probe_distances("x", here, there))
    assert [item.name for item in found] == ["T:tv", "T=return"]
    assert all(item.total_variation is None for item in found)
    assert total_variations(here, there) == {}
    assert list(probe_distances("x", here, here)) == []


def test_what_holds_no_probabilities_has_no_distance() -> None:
    names = ("T:regression", "T:embedding", "targets")
    here, there = (
        Outcome(np.array([]), {name: np.full((2, 3), value) for name in names})
        for value in (0.25, 0.5)
    )
    found = list(probe_distances("x", here, there))
    assert {(item.name, item.total_variation) for item in found} == {(name, None) for name in names}
    assert total_variations(here, there) == {}
    assert not within(found, 1.0)


def test_nothing_is_told_where_nothing_was_measured() -> None:
    assert describe_distances([], "carry", []) == ""


def test_the_distance_is_the_mean_total_variation_of_each_table() -> None:
    gaps = total_variations(outcome(), outcome(T=[[0.75, 0.25], [0.25, 0.75]]))
    assert gaps == {"t0": 0.0, "t0+W": 0.0, "T": 0.125}


def test_tables_of_another_shape_have_no_distance() -> None:
    smaller = outcome(T=[[1.0, 1.0]])
    assert set(total_variations(outcome(), smaller)) == {"t0", "t0+W"}


# Magnitudes


def snapshot(**tensors: RawTensor | bytes) -> tuple[Mapping[str, RawTensor], object]:
    specs: dict[str, Any] = {}
    stored = {}
    for name, value in tensors.items():
        if isinstance(value, bytes):
            specs[name] = {"json": json.loads(value)}
            continue
        specs[name] = {"dtype": value.dtype, "shape": list(value.shape)}
        as_bytes = RawTensor("uint8", (value.n_bytes,), value.data)
        stored[tensor_key("params", name)] = as_bytes if value.dtype == "complex64" else value
    return stored, {"format": FORMAT, "components": {"params": specs}}


def raw(dtype: str, values: Any, kind: str | None = None) -> RawTensor:
    array = np.array(values, dtype=kind or dtype)
    return RawTensor(dtype, array.shape, array.tobytes())


def gap(left: RawTensor | bytes, right: RawTensor | bytes) -> Magnitude:
    (found,) = measure(snapshot(x=left), snapshot(x=right))
    return found


@pytest.mark.parametrize(
    ("left", "right", "absolute", "relative"),
    [
        (raw("float32", [1, 2, 3]), raw("float32", [1, 4, 3.5]), 2.0, 0.5),
        (raw("float64", [0.0, -1]), raw("float64", [1e-9, -1]), 1e-9, 1.0),
        (raw("float64", [1.0]), raw("float64", [-1.0]), 2.0, 2.0),
        (raw("float16", [1.0]), raw("float16", [1.5]), 0.5, 1 / 3),
        (raw("bfloat16", [0x3F80], "<u2"), raw("bfloat16", [0x4000], "<u2"), 1.0, 0.5),
        (raw("float8_e4m3fn", [0x38], "u1"), raw("float8_e4m3fn", [0x40], "u1"), 1.0, 0.5),
        (raw("float8_e4m3fn", [0x01], "u1"), raw("float8_e4m3fn", [0x81], "u1"), 2**-8, 2.0),
        (raw("float8_e5m2", [0x3C], "u1"), raw("float8_e5m2", [0x40], "u1"), 1.0, 0.5),
        (raw("complex64", [3 + 4j]), raw("complex64", [0j]), 5.0, 1.0),
        (raw("bool", [True]), raw("bool", [False]), 1.0, 1.0),
        (raw("int8", [-128]), raw("int8", [127]), 255.0, 255 / 128),
        (raw("uint8", [0]), raw("uint8", [255]), 255.0, 1.0),
        (raw("int64", [2**62]), raw("int64", [2**62 + 1]), 1.0, 2**-62),
        (raw("int64", [-(2**63)]), raw("int64", [2**63 - 1]), 2.0**64, 2.0),
        (raw("uint64", [2**64 - 1]), raw("uint64", [0]), 2.0**64, 1.0),
        (raw("float32", [0.0]), raw("float32", [-0.0]), 0.0, 0.0),
        (raw("float32", 2.0), raw("float32", 3.0), 1.0, 1 / 3),
    ],
)
def test_the_largest_difference_is_found_in_every_dtype(
    left: RawTensor, right: RawTensor, absolute: float, relative: float
) -> None:
    found = gap(left, right)
    assert found.absolute == absolute
    assert found.relative == pytest.approx(relative)
    assert (found.absolute_tensor, found.relative_tensor, found.not_finite) == ("x", "x", 0)
    assert measure(snapshot(x=left), snapshot(x=left)) == ()


def test_each_largest_difference_names_its_tensor() -> None:
    left = snapshot(big=raw("float32", [100.0]), small=raw("float32", [1e-3, 5]))
    right = snapshot(big=raw("float32", [101.0]), small=raw("float32", [2e-3, 5]))
    (found,) = measure(left, right)
    assert (found.absolute_tensor, found.relative_tensor, found.elements) == ("big", "small", 2)


def test_what_is_not_finite_is_counted() -> None:
    found = gap(raw("float32", [math.nan, math.inf, 1]), raw("float32", [1, -math.inf, 2]))
    assert (found.elements, found.not_finite, found.absolute) == (3, 2, 1.0)
    found = gap(raw("float32", [math.nan]), raw("float32", [0]))
    assert (found.not_finite, found.absolute, found.relative) == (1, None, None)


def test_what_has_no_number_is_named() -> None:
    for left, right in (
        (raw("float32", [1.0]), raw("float32", [1.0, 2.0])),
        (raw("float32", [1.0]), raw("float64", [1.0])),
        (raw("float32", [1.0]), b"1"),
        (b"1", b"2"),
    ):
        found = gap(left, right)
        assert (found.unmeasured, found.absolute) == (("x",), None)
    (found,) = measure(snapshot(x=b"1"), snapshot(y=b"1"))
    assert found.unmeasured == ("x", "y")


def position(**parts: int) -> tuple[Mapping[str, RawTensor], object]:
    """A snapshot with nothing but a data position."""
    names = [name.replace("_", "/") for name in parts]
    tree = {"$": "dict", "keys": names, "values": list(parts.values())}
    return {}, {"format": FORMAT, "components": {"loader/val": {"": {"json": tree}}}}


def test_where_an_idle_stream_stood_is_no_difference_of_a_position() -> None:
    here, there = position(epoch=1, rng_numpy=1), position(epoch=1, rng_numpy=2)
    assert measure(here, there, ["rng/numpy"]) == ()
    for other, idle in [(there, ["rng/python"]), (position(epoch=2, rng_numpy=2), ["rng/numpy"])]:
        (found,) = measure(here, other, idle)
        assert (found.component, found.unmeasured) == ("loader/val", ("",))
