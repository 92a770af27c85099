"""Function-space metrics: numbers that tables of class probabilities are compared by.

Every metric takes tables ``(N, C)``, one row a probe example, one column a class, computes in
float64 whatever comes in, and returns the mean over the N rows as a Python float. Signed
metrics judge one table against labels ``(N,)``; distances compare two tables of one probe.
Tables are used as recorded: checked, never renormalised.

What is left to others: which tables are compared (``estimands``), and what a number means
beside its noise floor (``inference``, ``resampling``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.errors import FormatError
from auditkit.records import metric_ranges

Table = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]
SignedMetric = Callable[[Table, Labels], float]
DistanceMetric = Callable[[Table, Table], float]

ROW_SUM_TOLERANCE = metric_ranges.ROW_SUM_TOLERANCE
CLIP = metric_ranges.CLIP

#: Bins of the calibration errors.
N_BINS = 15


def as_probabilities(table: Table, where: str | None = None) -> NDArray[np.float64]:
    """Check a table and widen it to float64.

    Args:
        table: ``(N, C)``, any floating type, N >= 1, C >= 2.
        where: Whose table it is, for the message.

    Returns:
        The same numbers as float64 ``(N, C)``; no copy where they are float64 already.

    Raises:
        FormatError: When it is no table of class probabilities.
    """
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] < 2:
        raise FormatError(
            "not a table of probabilities", expected="(N, C)", found=table.shape, where=where
        )
    wide: NDArray[np.float64] = np.asarray(table, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf is about to be reported
        sums = wide.sum(axis=1)  # finite only where every entry is
    if not np.isfinite(sums).all():
        raise FormatError("probabilities that are NaN or infinite", where=where)
    if wide.min() < 0:
        raise FormatError("a probability is negative", found=float(wide.min()), where=where)
    worst = float(np.abs(sums - 1).max())
    if worst > ROW_SUM_TOLERANCE:
        raise FormatError(
            "rows do not sum to 1",
            expected=f"within {ROW_SUM_TOLERANCE:g}",
            found=f"{worst:g} off",
            where=where,
        )
    return wide


def as_labels(labels: Labels, shape: tuple[int, ...], where: str | None = None) -> Labels:
    """Check that ``labels`` are class indices ``(N,)`` for a table of ``shape`` ``(N, C)``.

    Raises:
        FormatError: On another shape, another kind of number, or an index outside 0 .. C-1.
    """
    if labels.shape != shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise FormatError(
            "labels are not one class index a row",
            expected=f"integers {shape[:1]}",
            found=f"{labels.dtype} {labels.shape}",
            where=where,
        )
    if labels.min() < 0 or labels.max() >= shape[1]:
        raise FormatError(f"a label lies outside 0 .. {shape[1] - 1}", where=where)
    return labels


def _checked_scores(table: Table, labels: Labels) -> tuple[NDArray[np.float64], Labels]:
    wide = as_probabilities(table)
    return wide, as_labels(labels, wide.shape)


def _checked_pair(p: Table, q: Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if p.shape != q.shape:
        raise FormatError("two tables of different shape", expected=p.shape, found=q.shape)
    return as_probabilities(p), as_probabilities(q)


def accuracy(table: Table, labels: Labels) -> float:
    """Share of rows ``(N, C)`` whose largest probability is the label's, in 0 .. 1.

    The lowest class index wins a tie.

    Raises:
        FormatError: On a bad table or bad labels.
    """
    wide, classes = _checked_scores(table, labels)
    return float(np.mean(wide.argmax(axis=1) == classes))


def nll(table: Table, labels: Labels) -> float:
    """Negative log-likelihood in nats; probabilities below :data:`CLIP` count as CLIP.

    Raises:
        FormatError: On a bad table or bad labels.
    """
    wide, classes = _checked_scores(table, labels)
    of_label = wide[np.arange(len(classes)), classes]
    return float(-np.log(np.maximum(of_label, CLIP)).mean())


def brier(table: Table, labels: Labels) -> float:
    """Brier score, summed over classes: 0 .. 2 (scikit-learn's ``scale_by_half=False``).

    Raises:
        FormatError: On a bad table or bad labels.
    """
    wide, classes = _checked_scores(table, labels)
    error = wide.copy()
    error[np.arange(len(classes)), classes] -= 1
    return float(np.square(error).sum(axis=1).mean())


def _confidence(table: Table, labels: Labels) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Confidence in the top label of every row, and whether it is the right one."""
    wide, classes = _checked_scores(table, labels)
    return wide.max(axis=1), wide.argmax(axis=1) == classes


def _bins(
    confidence: NDArray[np.float64], is_right: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Rows, mean confidence and accuracy per non-empty bin of the top-label confidence.

    Equal mass: the upper edge of bin k of B is the ceil(kN/B)-th smallest confidence, and a
    bin is (lower edge, upper edge]. So all equal confidences share a bin, the lowest that
    their value ends, and the order of the rows plays no part; heavy ties leave fewer bins.
    """
    correct = is_right.astype(np.float64)
    n = len(confidence)
    ranks = -(-np.arange(1, N_BINS + 1) * n // N_BINS)  # ceil(kN/B), from 1
    edges = np.unique(np.sort(confidence)[ranks - 1])
    index = np.searchsorted(edges, confidence, side="left")
    size = np.bincount(index, minlength=len(edges)).astype(np.float64)
    return (
        size,
        np.bincount(index, weights=confidence, minlength=len(edges)) / size,
        np.bincount(index, weights=correct, minlength=len(edges)) / size,
    )


def top_label(table: Table, labels: Labels) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Confidence in the top label of every row, and whether it is the right one.

    Raises:
        FormatError: On a bad table or bad labels.
    """
    return _confidence(table, labels)


def reliability(
    confidence: NDArray[np.float64], is_right: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean confidence and accuracy of the bins of :func:`ece`: what a reliability diagram shows."""
    _, mean, hit_rate = _bins(confidence, is_right)
    return mean, hit_rate


def ece(table: Table, labels: Labels) -> float:
    """Expected calibration error of the top label, 15 equal-mass bins, edges (a, b].

    Biased upward (about .02 at N = 2000) and its differences are attenuated: read it, but
    take effects from :func:`squared_calibration_error`.

    Raises:
        FormatError: On a bad table or bad labels.
    """
    return calibration_error(*_confidence(table, labels))


def calibration_error(confidence: NDArray[np.float64], is_right: NDArray[np.bool_]) -> float:
    """:func:`ece` of rows with a confidence each, of which some are right."""
    size, mean, hit_rate = _bins(confidence, is_right)
    return float((size * np.abs(mean - hit_rate)).sum() / size.sum())


def squared_calibration_error(table: Table, labels: Labels) -> float:
    """Debiased squared calibration error of the top label; may be negative.

    Kumar, Liang and Ma 2019 (arXiv 1909.10155), the debiased estimator: per bin of n rows
    the squared gap less hit_rate (1 - hit_rate) / (n - 1). Same bins as :func:`ece`. A bin
    of one row has no variance estimate and counts 0, as in the authors' library.

    Raises:
        FormatError: On a bad table or bad labels.
    """
    return squared_calibration_error_of(*_confidence(table, labels))


def squared_calibration_error_of(
    confidence: NDArray[np.float64], is_right: NDArray[np.bool_]
) -> float:
    """:func:`squared_calibration_error` of rows with a confidence each, of which some are right."""
    size, mean, hit_rate = _bins(confidence, is_right)
    noise = hit_rate * (1 - hit_rate) / np.maximum(size - 1, 1)
    gap = np.where(size > 1, np.square(mean - hit_rate) - noise, 0.0)
    return float((size * gap).sum() / size.sum())


def tv(p: Table, q: Table) -> float:
    """Total variation, half the L1 distance: 0 .. 1.

    Raises:
        FormatError: On bad tables.
    """
    a, b = _checked_pair(p, q)
    return float(0.5 * np.abs(a - b).sum(axis=1).mean())


def js(p: Table, q: Table) -> float:
    """Jensen-Shannon divergence in bits (not its square root): 0 .. 1.

    With m = (p+q)/2 and d = (p-q)/(p+q) a class contributes
    m/2 [(1+d) log(1+d) + (1-d) log(1-d)]. In this form, unlike p log(p/m), the divergence
    of two tables that differ by rounding noise (about 1e-16) is no rounding noise itself.

    Raises:
        FormatError: On bad tables.
    """
    a, b = _checked_pair(p, q)
    total = a + b
    d = np.divide(a - b, total, out=np.zeros_like(total), where=total > 0)
    each = 0.25 * total * (_xlogx_of_one_plus(d) + _xlogx_of_one_plus(-d))
    return float(np.maximum(each.sum(axis=1), 0).mean() / np.log(2))  # rounding can give -1e-17


def _xlogx_of_one_plus(d: NDArray[np.float64]) -> NDArray[np.float64]:
    """(1+d) ln(1+d) for d in -1 .. 1, with 0 ln 0 = 0."""
    logs = np.zeros_like(d)
    np.log1p(d, out=logs, where=d > -1)
    return (1 + d) * logs


def hellinger(p: Table, q: Table) -> float:
    """Hellinger distance with the usual 1/sqrt(2): 0 .. 1.

    arXiv 2601.16563 prints 1/2 instead; divide by sqrt(2) to compare with it.

    Raises:
        FormatError: On bad tables.
    """
    a, b = _checked_pair(p, q)
    gap = np.square(np.sqrt(a) - np.sqrt(b)).sum(axis=1)
    return float(np.sqrt(gap / 2).mean())


def kl(p: Table, q: Table, clip: float = CLIP) -> float:
    """Kullback-Leibler divergence of q from p, KL(p || q), in nats; the control goes first.

    Args:
        p: ``(N, C)``.
        q: ``(N, C)``; probabilities below ``clip`` count as ``clip``, so that the value is
            at most -ln(clip).
        clip: See ``q``.

    Raises:
        FormatError: On bad tables.
    """
    a, b = _checked_pair(p, q)
    logs = np.zeros_like(a)
    np.log(np.divide(a, np.maximum(b, clip)), out=logs, where=a > 0)
    # Clipping adds mass to q, which can push a row just below 0.
    return float(np.maximum((a * logs).sum(axis=1), 0).mean())


def churn(p: Table, q: Table) -> float:
    """Share of rows whose predicted class differs; the lowest class index wins a tie.

    Raises:
        FormatError: On bad tables.
    """
    a, b = _checked_pair(p, q)
    return float(np.mean(a.argmax(axis=1) != b.argmax(axis=1)))


#: Metrics of one table against labels, by the name that a plan uses.
SIGNED: Mapping[str, SignedMetric] = MappingProxyType(
    {
        "accuracy": accuracy,
        "nll": nll,
        "brier": brier,
        "ece": ece,
        "squared_calibration_error": squared_calibration_error,
    }
)

#: Symmetric distances between two tables, by the name that a plan uses. KL stands apart: it is
#: asymmetric and its size depends on the clip.
DISTANCES: Mapping[str, DistanceMetric] = MappingProxyType(
    {"tv": tv, "js": js, "hellinger": hellinger, "churn": churn}
)
