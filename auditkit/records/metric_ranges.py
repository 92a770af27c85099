"""How far two values of a metric can lie apart, and what of a difference is rounding.

And the limits that a verifier asks of tables, who loads no metrics for them.
"""

from __future__ import annotations

from auditkit.records.metric_names import base_metric

#: How far a row's sum may lie from 1. A float32 softmax is within about 1e-6 even for 50,000
#: classes; logits, percentages and half-precision tables are not within 1e-4.
ROW_SUM_TOLERANCE = 1e-4

#: Smallest probability whose logarithm is taken (NLL and KL): a float32 softmax underflows to
#: exactly 0, whose logarithm would make one example decide the mean. -ln(1e-12) = 27.6 nats.
CLIP = 1e-12

#: Fewest examples that can lie in more than one way: two always lie on a line, and CKA is 1.
FEWEST_EXAMPLES = 3

#: How far two values of a metric can lie apart, where there is an end. The Brier score is summed
#: over classes; a logarithm is taken of 1e-12 at least (:data:`CLIP`); the
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
