"""Distances of embeddings against brute force, and what they do not see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from auditkit.errors import FormatError
from auditkit.records.output_kinds import KINDS
from auditkit.statistics import embeddings

Reals = NDArray[np.float64]

shapes = st.tuples(st.integers(3, 9), st.integers(1, 12))
seeds = st.integers(0, 10**6)
DISTANCES = list(embeddings.DISTANCES_OF_EMBEDDINGS.values())


def table(shape: tuple[int, int], seed: int = 0) -> Reals:
    return np.random.default_rng(seed).normal(size=shape)


def brute_force_cka(x: Reals, y: Reals) -> float:
    """Linear CKA by HSIC over all pairs, as Kornblith and others write it."""
    n = len(x)
    centring = np.eye(n) - np.ones((n, n)) / n
    k, el = x @ x.T, y @ y.T

    def hsic(a: Reals, b: Reals) -> float:
        return float(np.trace(a @ centring @ b @ centring)) / (n - 1) ** 2

    return hsic(k, el) / float(np.sqrt(hsic(k, k) * hsic(el, el)))


def brute_force_relative(x: Reals, y: Reals) -> float:
    """Half of the mean difference of cosines, pair by pair."""
    n = len(x)
    total = 0.0
    for i in range(n):
        for j in range(n):
            cosines = [
                float(z[i] @ z[j]) / float(np.linalg.norm(z[i]) * np.linalg.norm(z[j]))
                for z in (x, y)
            ]
            total += abs(cosines[0] - cosines[1])
    return total / (2 * n * n)


def test_registry_is_the_records() -> None:
    assert tuple(embeddings.DISTANCES_OF_EMBEDDINGS) == KINDS["embedding"].distances


@given(shapes, seeds)
def test_they_are_what_brute_force_gives(shape: tuple[int, int], seed: int) -> None:
    x, y = table(shape, seed), table(shape, seed + 1)
    assert embeddings.cka_distance(x, y) == pytest.approx(1 - brute_force_cka(x, y), abs=1e-9)
    found = embeddings.relative_distance(x, y)
    assert found == pytest.approx(brute_force_relative(x, y), abs=1e-9)


@given(shapes, seeds, st.floats(1e-3, 1e3))
def test_they_do_not_see_a_rotation_nor_a_scale(
    shape: tuple[int, int], seed: int, scale: float
) -> None:
    x, y = table(shape, seed), table(shape, seed + 1)
    turned = scale * x @ np.linalg.qr(table((shape[1], shape[1]), seed + 2))[0]
    for distance in DISTANCES:
        assert distance(x, turned) == pytest.approx(0, abs=1e-12)
        assert distance(turned, y) == pytest.approx(distance(x, y), abs=1e-9)
        assert distance(y, x) == pytest.approx(distance(x, y), abs=1e-12)
        assert 0 <= distance(x, y) <= 1


@given(shapes, seeds)
def test_cka_does_not_see_a_shift(shape: tuple[int, int], seed: int) -> None:
    x = table(shape, seed)
    assert embeddings.cka_distance(x, x + 5) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shape", [(40, 5), (40, 80)])
def test_small_distances_keep_their_digits(shape: tuple[int, int]) -> None:
    # 1 - CKA goes with the square of a small nudge; taken from 1 it would be rounding below 1e-8.
    x, nudge = table(shape), table(shape, 1)
    large = embeddings.cka_distance(x, x + 1e-3 * nudge)
    small = embeddings.cka_distance(x, x + 1e-9 * nudge)
    assert small == pytest.approx(large * 1e-12, rel=1e-2)
    assert [distance(x, x.copy()) for distance in DISTANCES] == [0.0, 0.0]


def test_equal_embeddings_are_at_distance_0_however_a_platform_sums(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, drawn = table((40, 5)), np.random.default_rng(0)
    for name in ("_normalised", "_directions"):
        exact = getattr(embeddings, name)
        rounded = lambda t, f=exact: f(t) * (1 + 1e-15 * drawn.normal(size=t.shape))  # noqa: E731
        monkeypatch.setattr(embeddings, name, rounded)
    assert [distance(x, x.copy()) for distance in DISTANCES] == [0.0, 0.0]
    assert all(distance(x, x + 1e-12) > 0 for distance in DISTANCES)


def test_more_rows_than_are_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = table((30, 40)), table((30, 40), 1)
    whole = [distance(x, y) for distance in DISTANCES]
    monkeypatch.setattr(embeddings, "_ROWS", 7)
    assert [distance(x, y) for distance in DISTANCES] == pytest.approx(whole, rel=1e-12)


def test_anchors_are_spread_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = table((10, 3)), table((10, 3), 1)
    monkeypatch.setattr(embeddings, "MOST_ANCHORS", 4)

    def cosines(z: Reals) -> Reals:
        unit = z / np.linalg.norm(z, axis=1, keepdims=True)
        return np.asarray(unit @ unit[[0, 2, 5, 7]].T)

    expected = np.abs(cosines(x) - cosines(y)).mean() / 2
    assert embeddings.relative_distance(x, y) == pytest.approx(expected)


def test_a_collapse_is_at_distance_1_and_no_nan() -> None:
    x, point = table((5, 3)), np.ones((5, 3))
    assert embeddings.is_collapsed(point)
    assert embeddings.cka_distance(x, point) == embeddings.cka_distance(point, x) == 1.0
    assert embeddings.cka_distance(point, 2 * point) == 0.0
    assert embeddings.relative_distance(0 * x, 0 * x) == 0.0
    assert 0 < embeddings.relative_distance(x, 0 * x) < 1


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_numbers_of_any_size(scale: float) -> None:
    x, y = table((6, 3)), table((6, 3), 1)
    for distance in DISTANCES:
        assert distance(scale * x, y) == pytest.approx(distance(x, y), rel=1e-9)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (table((5, 3)), table((5, 2)), "different shape"),
        (table((2, 3)), table((2, 3)), "too few examples"),
        (table((5, 3)), table((5, 3)) * np.nan, "NaN or infinite"),
        (np.zeros((5, 0)), np.zeros((5, 0)), "another shape"),
    ],
)
def test_what_does_not_fit_is_refused(distance: Any, x: Reals, y: Reals, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        distance(x, y)
