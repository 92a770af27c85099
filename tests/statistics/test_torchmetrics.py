"""Metrics beside torchmetrics, and power beside plain integration: they share no code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from auditkit.statistics import metrics, power, real_outputs


@pytest.fixture(scope="module")
def functional() -> Any:
    """torchmetrics.functional."""
    return pytest.importorskip(
        "torchmetrics.functional", reason="torchmetrics, of the test extra, is not installed"
    )


@pytest.mark.slow  # importing it takes seconds
def test_scores_agree_with_torchmetrics(functional: Any) -> None:
    rng = np.random.default_rng(0)
    table, other = (rng.dirichlet(np.ones(5), size=64) for _ in range(2))
    labels = rng.integers(5, size=64)
    given = torch.from_numpy(table)
    accuracy = functional.classification.multiclass_accuracy(
        given, torch.from_numpy(labels), num_classes=5, average="micro"
    )
    assert metrics.accuracy(table, labels) == pytest.approx(float(accuracy), abs=1e-7)
    kl = functional.kl_divergence(torch.from_numpy(table), torch.from_numpy(other))
    assert metrics.kl(table, other) == pytest.approx(float(kl), abs=1e-9)


@pytest.mark.slow  # importing it takes seconds
def test_the_calibration_error_agrees_with_torchmetrics(functional: Any) -> None:
    """Evenly spread confidences: then bins of equal mass are bins of equal width."""
    n = 15 * 8
    confidence = 0.5 + 0.5 * (np.arange(n) + 0.5) / n  # of two classes: upper half of 30 bins
    table = np.stack([confidence, 1 - confidence], axis=1)
    labels = (np.random.default_rng(1).random(n) > confidence).astype(np.int64)
    expected = functional.classification.multiclass_calibration_error(
        torch.from_numpy(table), torch.from_numpy(labels), num_classes=2, n_bins=30, norm="l1"
    )
    assert metrics.ece(table, labels) == pytest.approx(float(expected), abs=1e-6)  # float32 bins


@pytest.mark.slow  # importing it takes seconds
def test_errors_agree_with_torchmetrics(functional: Any) -> None:
    rng = np.random.default_rng(2)
    table, targets = rng.normal(size=(2, 40, 3))
    given = (torch.from_numpy(table), torch.from_numpy(targets))
    for name, expected in (
        ("mse", functional.mean_squared_error(*given)),
        ("mae", functional.mean_absolute_error(*given)),
        ("r2", functional.r2_score(*given, multioutput="uniform_average")),
    ):
        found = real_outputs.SIGNED_OF_REALS[name](table, targets)
        assert found == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize(("margin", "n", "true"), [(1.0, 12, 0.0), (1.5, 8, 0.5), (0.3, 40, 0.1)])
def test_power_of_equivalence_is_its_integral(margin: float, n: int, true: float) -> None:
    critical = stats.t.ppf(0.95, n - 1)

    def given(s: float) -> float:
        """The chance that the interval lies inside, where the sample's SD is s."""
        low, high = (side * margin - true for side in (-1, 1))
        half = critical * s / math.sqrt(n)
        mean = stats.norm(scale=1 / math.sqrt(n))
        inside = mean.cdf(high - half) - mean.cdf(low + half)
        return max(float(inside), 0.0) * float(stats.chi(n - 1, scale=1 / math.sqrt(n - 1)).pdf(s))

    most = margin * math.sqrt(n) / critical  # beyond, the interval is wider than the margin
    expected, _ = integrate.quad(given, 0, most, epsabs=1e-12, epsrel=1e-12, limit=200)
    assert power.equivalence_power(margin, n, true) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n", [2, 3, 8, 50])
def test_the_upper_limit_is_by_the_distribution_of_the_variance(n: int) -> None:
    expected = 1.7 * math.sqrt((n - 1) / stats.chi2.ppf(0.2, n - 1))
    assert power.upper_limit(1.7, n) == pytest.approx(expected, rel=1e-9)
