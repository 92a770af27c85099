from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from auditkit.statistics import inference, resampling

Values = NDArray[np.float64]


def draw(n: int, seed: int = 0, shift: float = 0.3) -> Values:
    return np.random.default_rng(seed).normal(shift, 1, n)


@pytest.mark.parametrize("n", [2, 6, 9, 12])
def test_sign_flip_agrees_with_scipy(n: int) -> None:
    values = draw(n, n)
    expected = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=np.inf
    )
    test = resampling.sign_flip_test(values)
    assert test.p == pytest.approx(expected.pvalue)
    assert (test.kind, test.n_labelings) == ("exact", 2**n)


def test_sign_flip_counts_ties() -> None:
    assert resampling.sign_flip_test(np.ones(1)).p == 1
    assert resampling.sign_flip_test(np.zeros(6)).p == 1
    assert resampling.sign_flip_test(np.full(6, 0.1)).p == 2 / 64
    assert resampling.sign_flip_test(np.array([0.1, 0.2, 0.3, 0.0])).p == 4 / 16


def test_sign_flip_draws_above_20_pairs() -> None:
    values = draw(21, 5, 0.45)
    test = resampling.sign_flip_test(values)
    assert (test.kind, test.n_labelings) == ("monte-carlo", resampling.DRAWS)
    exact = np.mean(
        np.abs(resampling._all_sums([np.array([v, -v]) for v in values]))
        >= abs(values.sum()) - 1e-9
    )
    assert test.p == pytest.approx(exact, abs=5 * np.sqrt(exact / resampling.DRAWS))
    assert resampling.sign_flip_test(values) == test
    assert resampling.sign_flip_test(np.ones(40)).p == pytest.approx(1e-5)  # never 0


def permutation_p_by_hand(treatments: list[float], placebos: list[list[float]]) -> float:
    branches = [[t, *others] for t, others in zip(treatments, placebos, strict=True)]

    def statistic(labels: tuple[int, ...]) -> float:
        return sum(
            values[k] - float(np.mean([v for i, v in enumerate(values) if i != k]))
            for values, k in zip(branches, labels, strict=True)
        )

    null = [statistic(labels) for labels in product(*(range(len(b)) for b in branches))]
    return float(np.mean(np.array(null) >= statistic((0,) * len(branches)) - 1e-12))


@settings(deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_within_seed_permutation_agrees_with_its_definition(seed: int, counts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    placebos = [rng.integers(0, 6, k).astype(float).tolist() for k in counts]  # with ties
    treatments = rng.integers(0, 6, len(counts)).astype(float).tolist()
    test = resampling.within_seed_permutation_test(treatments, placebos)
    assert test.p == pytest.approx(permutation_p_by_hand(treatments, placebos))
    assert test.kind == "exact"
    assert test.n_labelings == np.prod([k + 1 for k in counts])


def test_within_seed_permutation_rejects_with_three_seeds() -> None:
    test = resampling.within_seed_permutation_test([1.0] * 3, [[0.1, 0.2, 0.3]] * 3)
    assert (test.p, test.n_labelings) == (1 / 64, 64)


def test_within_seed_permutation_ties_survive_rounding() -> None:
    # 0.1 + 0.2 and 0.3 are one number on paper: the other labeling ties with the observed.
    test = resampling.within_seed_permutation_test([0.1, 0.2, 0.3], [[0.2], [0.1], [0.3]])
    assert test.p == pytest.approx(permutation_p_by_hand([0.1, 0.2, 0.3], [[0.2], [0.1], [0.3]]))
    assert resampling.within_seed_permutation_test([0.0] * 8, [[0.0] * 3] * 8).p == 1


def test_within_seed_permutation_draws_above_its_limit() -> None:
    rng = np.random.default_rng(1)
    treatments = rng.exponential(1.7, 6).tolist()
    placebos = rng.exponential(1.0, (6, 3)).tolist()
    exact = resampling.within_seed_permutation_test(treatments, placebos)
    drawn = resampling.within_seed_permutation_test(treatments, placebos, limit=100)
    assert (exact.kind, drawn.kind) == ("exact", "monte-carlo")
    assert drawn.n_labelings == resampling.DRAWS
    assert drawn.p == pytest.approx(exact.p, abs=5 * np.sqrt(exact.p / resampling.DRAWS))
    assert drawn == resampling.within_seed_permutation_test(treatments, placebos, limit=100)
    assert drawn != resampling.within_seed_permutation_test(treatments, placebos, limit=100, seed=1)


def test_many_seeds_are_drawn_and_never_give_p_0() -> None:
    test = resampling.within_seed_permutation_test([1.0] * 30, [[0.0] * 3] * 30)
    assert test.kind == "monte-carlo"
    assert test.p == pytest.approx(1e-5)


@pytest.mark.parametrize(("n", "k"), [(3, 3), (4, 2)])
@pytest.mark.parametrize("kind", ["exact", "monte-carlo"])
def test_within_seed_permutation_is_calibrated(n: int, k: int, kind: str) -> None:
    rng = np.random.default_rng(7)
    tries = 1500
    distances = rng.lognormal(rng.normal(size=(tries, n, 1)), 1.0, (tries, n, k + 1))
    limit, draws = (10**6, 99) if kind == "exact" else (1, 99)
    p = np.array(
        [
            resampling.within_seed_permutation_test(
                d[:, 0].tolist(), d[:, 1:].tolist(), limit=limit, draws=draws, seed=seed
            ).p
            for seed, d in enumerate(distances)
        ]
    )
    for alpha in (0.05, 0.1, 0.25, 0.5):
        assert stats.binomtest(int((p <= alpha).sum()), tries, alpha, "greater").pvalue > 1e-3


def test_sign_flip_is_calibrated() -> None:
    rng = np.random.default_rng(8)
    p = np.array([resampling.sign_flip_test(rng.standard_t(3, 7)).p for _ in range(1500)])
    for alpha in (0.05, 0.2, 0.5):
        assert stats.binomtest(int((p <= alpha).sum()), 1500, alpha, "greater").pvalue > 1e-3


def test_random_indices_are_pinned() -> None:
    # A verifier with another NumPy must draw the same labelings.
    draws = resampling._Draws(0)
    assert draws.indices(10, (2, 4)).tolist() == [[6, 2, 0, 0], [8, 9, 6, 7]]


def test_random_indices_are_uniform() -> None:
    indices = resampling._Draws(3).indices(7, (70_000,))
    assert stats.chisquare(np.bincount(indices, minlength=7)).pvalue > 1e-3


def test_studentised_interval_by_hand() -> None:
    values = np.exp(draw(20))
    interval = resampling.studentised_bootstrap_interval(values)
    assert interval is not None
    sample = values[resampling._Draws(0).indices(20, (1999, 20))]
    t = np.sort((sample.mean(1) - values.mean()) / (sample.std(1, ddof=1) / np.sqrt(20)))
    error = values.std(ddof=1) / np.sqrt(20)
    assert interval.low == pytest.approx(values.mean() - t[1949] * error)
    assert interval.high == pytest.approx(values.mean() - t[49] * error)


def test_studentised_interval_where_it_does_not_exist() -> None:
    assert resampling.studentised_bootstrap_interval(draw(4)) is None
    assert resampling.studentised_bootstrap_interval(np.ones(9)) is None
    # Nearly every resample that misses the outlier has no spread: an open end, not infinity.
    lonely = resampling.studentised_bootstrap_interval(np.array([0.0, 0, 0, 0, 0, 1]))
    assert lonely is not None
    assert lonely.high is None


def test_studentised_interval_covers_a_skewed_mean_better_than_t() -> None:
    rng = np.random.default_rng(2)
    hits = np.zeros(2)
    tries = 600
    for _ in range(tries):
        values = rng.exponential(1, 8)
        for index, interval in enumerate(
            (
                inference.t_interval(values),
                resampling.studentised_bootstrap_interval(values, resamples=399),
            )
        ):
            assert interval is not None
            low = -np.inf if interval.low is None else interval.low
            high = np.inf if interval.high is None else interval.high
            hits[index] += low <= 1 <= high
    t, studentised = hits / tries
    assert studentised > t
    assert studentised > 0.9


@pytest.mark.parametrize("limit", [resampling.ENUMERATION_LIMIT, 1])
def test_the_other_side_of_the_permutation_is_that_of_mirrored_distances(limit: int) -> None:
    rng = np.random.default_rng(5)
    treated, placebos = rng.uniform(1, 2, 5), rng.uniform(1, 2, (5, 3))
    found, other = (
        resampling.within_seed_permutation_test(a.tolist(), b.tolist(), limit=limit, draws=9999)
        for a, b in ((treated, placebos), (3 - treated, 3 - placebos))
    )
    assert found.lower_p is not None
    assert found.lower_p == pytest.approx(other.p)
    assert found.p == pytest.approx(other.lower_p)
    assert found.p + found.lower_p > 1  # the observed labeling is on both sides
