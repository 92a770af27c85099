"""What a probe says are probabilities has to be some."""

from __future__ import annotations

from torch import Tensor

from auditkit.errors import ProgramError
from auditkit.statistics.metrics import ROW_SUM_TOLERANCE


def require_probabilities(scores: Tensor) -> None:
    """Refuse rows ``(..., C)`` that are finite and no probabilities; what is not has diverged.

    Raises:
        ProgramError: Naming the first such row.
    """
    rows = scores.reshape(-1, scores.shape[-1])
    sums = rows.double().sum(dim=1)
    is_wrong = ((sums - 1).abs() > ROW_SUM_TOLERANCE) | (rows < 0).any(dim=1)
    is_wrong &= rows.isfinite().all(dim=1)
    if not is_wrong.any():
        return
    first = int(is_wrong.nonzero()[0])
    raise ProgramError(
        "the probe gives no probabilities",
        expected="rows of numbers that are not negative and sum to 1",
        found=f"row {first} sums to {float(sums[first]):.6g}, least {float(rows[first].min()):.6g}",
        hint="leave out Probe(probabilities=True) where predict gives logits",
    )
