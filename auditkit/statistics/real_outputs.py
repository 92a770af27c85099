"""Metrics of tables of real numbers: predictions beside targets, and beside other predictions.

A table is ``(N, D)``, one row an example, one column an output. Everything is computed in float64.
Outputs count alike: errors and distances are means over all N x D entries, ``r2`` is the mean over
the D outputs (scikit-learn's ``uniform_average``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.errors import FormatError

Reals = NDArray[np.float64]

#: Why there is no ``r2``.
CONSTANT_TARGETS = "an output's targets are the same for every example: no variance to explain"


def as_reals(table: NDArray[Any], what: str = "a table of outputs") -> Reals:
    """Check a table and widen it to float64.

    Raises:
        FormatError: When it is no finite ``(N, D)`` with N and D of at least 1.
    """
    if table.ndim != 2 or 0 in table.shape:
        raise FormatError(f"{what} has another shape", expected="(N, D)", found=table.shape)
    wide = np.asarray(table, dtype=np.float64)
    if not np.isfinite(wide).all():
        raise FormatError(f"{what} holds what is NaN or infinite")
    return wide


def _pair(left: NDArray[Any], right: NDArray[Any], what: str) -> tuple[Reals, Reals]:
    if left.shape != right.shape:
        raise FormatError(f"{what} of different shape", expected=left.shape, found=right.shape)
    return as_reals(left), as_reals(right)


def _errors(table: NDArray[Any], targets: NDArray[Any]) -> Reals:
    predicted, right = _pair(table, targets, "predictions and targets")
    return predicted - right


def mse(table: NDArray[Any], targets: NDArray[Any]) -> float:
    """Mean squared error.

    Raises:
        FormatError: On other shapes, or what is not finite.
    """
    return float(np.square(_errors(table, targets)).mean())


def rmse(table: NDArray[Any], targets: NDArray[Any]) -> float:
    """Root of :func:`mse`, in the targets' own unit.

    Raises:
        FormatError: On other shapes, or what is not finite.
    """
    return float(np.sqrt(mse(table, targets)))


def mae(table: NDArray[Any], targets: NDArray[Any]) -> float:
    """Mean absolute error.

    Raises:
        FormatError: On other shapes, or what is not finite.
    """
    return float(np.abs(_errors(table, targets)).mean())


def r2(table: NDArray[Any], targets: NDArray[Any]) -> float:
    """Share of the targets' variance that the predictions explain; below 0 where they do harm.

    Raises:
        FormatError: On other shapes, what is not finite, or targets that are constant.
    """
    errors = _errors(table, targets)
    if has_constant_output(targets):
        raise FormatError(f"r2 does not exist: {CONSTANT_TARGETS}")
    right = as_reals(targets)
    spread = np.square(right - right.mean(axis=0)).sum(axis=0)
    return float((1 - np.square(errors).sum(axis=0) / spread).mean())


def has_constant_output(targets: NDArray[Any]) -> bool:
    """Whether an output's targets are all the same, as those of one example are."""
    return bool((targets == targets[:1]).all(axis=0).any())


#: Signed metrics by name.
SIGNED_OF_REALS: Mapping[str, Callable[[NDArray[Any], NDArray[Any]], float]] = MappingProxyType(
    {"mse": mse, "rmse": rmse, "mae": mae, "r2": r2}
)


def signed_of_reals(table: NDArray[Any], targets: NDArray[Any]) -> dict[str, float]:
    """Every signed metric; no ``r2`` where it does not exist.

    Raises:
        FormatError: On other shapes, or what is not finite.
    """
    return {
        name: metric(table, targets)
        for name, metric in SIGNED_OF_REALS.items()
        if name != "r2" or not has_constant_output(targets)
    }


def rmsd(control: NDArray[Any], branch: NDArray[Any], scale: Reals | None = None) -> float:
    """Root mean square difference of two tables.

    Args:
        control: ``(N, D)``.
        branch: ``(N, D)``.
        scale: ``(D,)``: what the differences of each output are divided by, if by anything.

    Raises:
        FormatError: On other shapes, or what is not finite.
    """
    here, there = _pair(control, branch, "two tables")
    gaps = here - there
    return float(np.sqrt(np.square(gaps if scale is None else gaps / scale).mean()))


def seed_spread(controls: Sequence[NDArray[Any]]) -> Reals:
    """How far seeds spread the predictions of their controls: ``(D,)``, one an output.

    The variance of a prediction over the seeds (n - 1), averaged over the examples; its root.

    Args:
        controls: ``(N, D)`` of each seed, two at least.

    Raises:
        FormatError: On other shapes, or what is not finite.
    """
    first = as_reals(controls[0])
    # Beside the first one, so that tables which are all the same give exactly 0.
    gaps = np.stack([np.subtract(*_pair(each, first, "two controls")) for each in controls])
    return np.asarray(np.sqrt(gaps.var(axis=0, ddof=1).mean(axis=0)))


def own_spread(table: NDArray[Any]) -> float:
    """Standard deviation of a table's predictions over the examples, all outputs taken together."""
    wide = as_reals(table)
    return float(np.sqrt(np.square(wide - wide.mean(axis=0)).mean()))


def root_mean_square(table: NDArray[Any]) -> float:
    """How large a table's predictions are, all outputs taken together."""
    return float(np.sqrt(np.square(as_reals(table)).mean()))
