"""How far two values of a metric can lie apart, and what of a difference is rounding."""

from __future__ import annotations

from auditkit.records.metric_names import base_metric

#: How far two values of a metric can lie apart, where there is an end. The Brier score is summed
#: over classes; a logarithm is taken of 1e-12 at least (``auditkit.statistics.metrics.CLIP``); the
#: debiased calibration error of bins of two rows goes down to -1/4.
RANGES = {
    "accuracy": 1.0,
    "nll": 27.631,
    "brier": 2.0,
    "ece": 1.0,
    "squared_calibration_error": 1.25,
    "tv": 1.0,
    "js": 1.0,
    "hellinger": 1.0,
    "churn": 1.0,
    "cka_distance": 1.0,
    "relative_distance": 1.0,
}

#: A difference this small beside the range of its metric is made by rounding.
_ROUNDING = 1e-14


def rounded(value: float | None, metric: str) -> float | None:
    """A difference of a metric, 0 where only rounding made it."""
    largest = RANGES.get(base_metric(metric), 0)
    is_rounding = value is not None and abs(value) < _ROUNDING * largest
    return 0.0 if is_rounding else value
