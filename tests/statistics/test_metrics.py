from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax
from sklearn.metrics import brier_score_loss, log_loss

from auditkit.errors import FormatError
from auditkit.records.output_kinds import KINDS
from auditkit.statistics import metrics

Table = NDArray[np.float64]


def tables(n: int, c: int) -> st.SearchStrategy[Table]:
    """Probability tables with zeros, ties and near-deterministic rows."""

    def normalise(raw: Table) -> Table:
        raw[:, 0] += raw.sum(axis=1) == 0
        table: Table = raw / raw.sum(axis=1, keepdims=True)
        return table

    entry = st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.0, 1.0, 1e-9, 1e6]))
    return arrays(np.float64, (n, c), elements=entry).map(normalise)


pairs_of_tables = st.tuples(st.integers(1, 6), st.integers(2, 5)).flatmap(
    lambda shape: st.tuples(tables(*shape), tables(*shape))
)


def random_table(n: int, c: int, seed: int = 0) -> NDArray[np.float32]:
    logits = np.random.default_rng(seed).normal(size=(n, c), scale=2)
    return np.asarray(softmax(logits, axis=1), dtype=np.float32)


def row(*values: float) -> Table:
    return np.array([values])


def test_registries_are_the_plans() -> None:
    assert tuple(metrics.SIGNED) == KINDS["classes"].signed
    assert tuple(metrics.DISTANCES) == KINDS["classes"].distances


@pytest.mark.parametrize(("name", "value"), [("tv", 1), ("js", 1), ("hellinger", 1), ("churn", 1)])
def test_opposite_predictions_are_at_distance_1(name: str, value: float) -> None:
    assert metrics.DISTANCES[name](row(1, 0), row(0, 1)) == pytest.approx(value, abs=1e-15)


@pytest.mark.parametrize(
    ("distance", "value"),
    [
        (metrics.tv, 0.4),
        (metrics.js, 0.1467931),
        (metrics.hellinger, 0.3249197),
        (metrics.kl, 0.5108256),
        (metrics.churn, 0.0),  # the tie goes to class 0
    ],
)
def test_known_distances(distance: Any, value: float) -> None:
    assert distance(row(0.5, 0.5), row(0.9, 0.1)) == pytest.approx(value, abs=1e-7)


@pytest.mark.parametrize("distance", [*metrics.DISTANCES.values(), metrics.kl])
def test_a_table_is_at_distance_0_of_itself(distance: Any) -> None:
    table = random_table(50, 7)
    assert distance(table, table.copy()) == 0.0


def test_kl_is_clipped_where_it_would_be_infinite() -> None:
    assert metrics.kl(row(1, 0), row(0, 1)) == pytest.approx(-np.log(metrics.CLIP))
    assert metrics.kl(row(1, 0), row(0, 1), clip=1e-3) == pytest.approx(-np.log(1e-3))


def test_divergences_agree_with_scipy() -> None:
    p, q = (random_table(200, 9, seed).astype(np.float64) for seed in (1, 2))
    p, q = (table / table.sum(axis=1, keepdims=True) for table in (p, q))
    assert metrics.js(p, q) == pytest.approx(
        np.mean(jensenshannon(p, q, axis=1, base=2) ** 2), rel=1e-12
    )
    assert metrics.kl(p, q) == pytest.approx(rel_entr(p, q).sum(axis=1).mean(), rel=1e-12)


def test_js_of_rounding_noise_is_not_rounding_noise() -> None:
    p, nudge = row(0.3, 0.7), 1e-9
    second_order = nudge**2 / 8 * (1 / 0.3 + 1 / 0.7) / np.log(2)
    assert metrics.js(p, p + row(nudge, -nudge)) == pytest.approx(second_order, rel=1e-5)


@settings(deadline=None)
@given(pairs_of_tables)
def test_identities_between_distances(pair: tuple[Table, Table]) -> None:
    # Per row; the means inherit them only where they are convex.
    for one, other in zip(*pair, strict=True):
        p, q = one[None], other[None]
        tv, h = metrics.tv(p, q), metrics.hellinger(p, q)
        js_nats = metrics.js(p, q) * np.log(2)
        slack = 1e-9
        assert 0 <= h**2 <= tv + slack
        assert tv <= h * np.sqrt(max(2 - h**2, 0)) + slack
        assert tv**2 / 2 <= js_nats + slack
        assert js_nats <= np.log(2) * tv + slack
        assert tv <= np.sqrt(metrics.kl(p, q) / 2) + 1e-5


@settings(deadline=None)
@given(pairs_of_tables, st.integers(0, 2**32))
def test_no_metric_moves_more_than_its_distance_allows(
    pair: tuple[Table, Table], seed: int
) -> None:
    p, q = pair
    labels = np.random.default_rng(seed).integers(0, p.shape[1], len(p))
    change = metrics.accuracy(p, labels) - metrics.accuracy(q, labels)
    assert abs(change) <= metrics.churn(p, q) + 1e-12
    for name, distance in metrics.DISTANCES.items():
        assert distance(p, q) == distance(q, p), name
        assert 0 <= distance(p, q) <= 1 + 1e-12


def test_scores_agree_with_scikit_learn() -> None:
    table = random_table(300, 6)
    labels = np.random.default_rng(3).integers(0, 6, 300)
    wide = table.astype(np.float64)
    wide /= wide.sum(axis=1, keepdims=True)
    classes = list(range(6))
    assert metrics.nll(table, labels) == pytest.approx(
        log_loss(labels, wide, labels=classes), rel=1e-6
    )
    assert metrics.brier(table, labels) == pytest.approx(
        brier_score_loss(labels, wide, labels=classes, scale_by_half=False), rel=1e-6
    )
    assert metrics.accuracy(table, labels) == np.mean(table.argmax(axis=1) == labels)


def test_nll_of_an_impossible_label_is_the_clip() -> None:
    assert metrics.nll(row(1, 0), np.array([1])) == pytest.approx(-np.log(metrics.CLIP))


def test_ties_go_to_the_lowest_class() -> None:
    assert metrics.accuracy(row(0.4, 0.4, 0.2), np.array([0])) == 1
    assert metrics.churn(row(0.4, 0.4, 0.2), row(0.5, 0.3, 0.2)) == 0


def test_ece_by_hand() -> None:
    # 30 rows make 15 bins of two: (0.51, 0.52), (0.53, 0.54) ...; only the first is right.
    confidence = 0.5 + 0.01 * np.arange(1, 31)
    table = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.ones(30, dtype=np.int64)
    labels[:2] = 0
    gaps = confidence.reshape(15, 2).mean(axis=1) - (np.arange(15) == 0)
    assert metrics.ece(table, labels) == pytest.approx(np.abs(gaps).mean())
    # Hit rates of 0 and 1 have no estimated variance.
    assert metrics.squared_calibration_error(table, labels) == pytest.approx(np.square(gaps).mean())


def test_the_debiased_error_subtracts_the_noise_of_each_bin() -> None:
    # One confidence, so one bin of 60 rows with a hit rate of 1/2.
    table = np.tile([0.8, 0.2], (60, 1))
    labels = np.arange(60) % 2
    assert metrics.squared_calibration_error(table, labels) == pytest.approx(
        0.3**2 - 0.25 / 59, rel=1e-12
    )


def test_equal_confidences_share_a_bin_in_any_row_order() -> None:
    confidence = np.repeat([0.6, 0.8], [40, 20])
    labels = (np.arange(60) % 3 == 0).astype(np.int64)
    table = np.stack([confidence, 1 - confidence], axis=1)
    expected = (
        40 * abs(0.6 - np.mean(labels[:40] == 0)) + 20 * abs(0.8 - np.mean(labels[40:] == 0))
    ) / 60
    assert metrics.ece(table, labels) == pytest.approx(expected)
    shuffled = np.random.default_rng(0).permutation(60)
    for metric in (metrics.ece, metrics.squared_calibration_error):
        assert metric(table[shuffled], labels[shuffled]) == pytest.approx(
            metric(table, labels), abs=1e-15
        )


def test_debiased_error_is_unbiased_where_ece_is_not() -> None:
    rng = np.random.default_rng(5)
    ece, squared = [], []
    for _ in range(200):
        confidence = rng.uniform(0.5, 1, 500)
        labels = (rng.uniform(size=500) > confidence).astype(np.int64)  # perfectly calibrated
        table = np.stack([confidence, 1 - confidence], axis=1)
        ece.append(metrics.ece(table, labels))
        squared.append(metrics.squared_calibration_error(table, labels))
    assert np.mean(ece) > 0.03
    assert abs(np.mean(squared)) < 4 * np.std(squared) / np.sqrt(200)
    assert min(squared) < 0


def test_a_single_row_has_calibration_numbers() -> None:
    table, labels = row(0.7, 0.3), np.array([0])
    assert metrics.ece(table, labels) == pytest.approx(0.3)
    assert metrics.squared_calibration_error(table, labels) == 0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.array([0.5, 0.5]), "not a table"),
        (np.zeros((0, 3)), "not a table"),
        (np.ones((3, 1)), "not a table"),
        (row(0.5, np.nan), "NaN or infinite"),
        (row(np.inf, -np.inf), "NaN or infinite"),
        (row(1.5, -0.5), "negative"),
        (row(0.5, 0.501), "sum to 1"),
        (row(-1.0, 3.0), "negative"),
    ],
)
def test_what_is_no_table_of_probabilities_is_refused(table: Table, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        metrics.as_probabilities(table)


@pytest.mark.parametrize(
    "labels",
    [np.array([0, 1, 2]), np.array([0.0, 1.0]), np.array([0, 3]), np.array([-1, 0])],
    ids=["too many", "no integers", "too large", "negative"],
)
def test_bad_labels_are_refused(labels: Any) -> None:
    table = np.full((2, 3), 1 / 3)
    for metric in metrics.SIGNED.values():
        with pytest.raises(FormatError, match="label"):
            metric(table, labels)


def test_tables_of_different_shape_are_refused() -> None:
    with pytest.raises(FormatError, match="different shape"):
        metrics.tv(random_table(3, 4), random_table(4, 4))


def test_a_float32_softmax_over_many_classes_is_accepted() -> None:
    metrics.as_probabilities(random_table(4, 50_000))
