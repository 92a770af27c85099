"""Numbers a position, made of class scores that are too many to keep.

A table of class probabilities is what branches are compared by: float32, rounded from a float64
softmax. Here it exists for a few rows at a time, and what every metric needs of them is kept. So
the numbers are those that the metrics (``auditkit.statistics.metrics``) give of the whole table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from auditkit.formats.outcome_names import DISTANCE_COLUMNS
from auditkit.statistics.metrics import CLIP

Columns = dict[str, Tensor]

#: Probabilities that are looked at together: what is made of them stays in a processor's cache.
_ELEMENTS = 2**18

#: Stands for a logarithm of 0, which is always multiplied with 0 here.
_LEAST = -1e9

_FLOAT64_DEVICES = ("cpu", "cuda", "xpu")


@dataclass(frozen=True)
class Positions:
    """Positions to look at.

    Attributes:
        where: int64 ``(P, 2)``: row and position.
        labels: int64 ``(P,)``, or ``(0,)`` where there are none.
        probabilities: Whether scores are probabilities already.
    """

    where: Tensor
    labels: Tensor
    probabilities: bool

    def tables(self, scores: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Float32 probabilities of a few positions at a time, with their labels.

        Args:
            scores: ``(rows, T, C)``.
        """
        device = scores.device if scores.device.type in _FLOAT64_DEVICES else torch.device("cpu")
        size = max(1, _ELEMENTS // scores.shape[2])
        for start in range(0, len(self.where), size):
            chosen = slice(start, start + size)
            row, position = self.where[chosen].to(scores.device).unbind(1)
            wide = scores[row, position].to(device, torch.float64)
            table = wide if self.probabilities else wide.softmax(dim=1)
            yield table.to(torch.float32), self.labels[chosen].to(device)


def own_columns(scores: Tensor, positions: Positions) -> Columns:
    """What one branch gives at every position; its scores are ``(rows, T, C)``."""
    return _joined(_own(table, labels) for table, labels in positions.tables(scores))


def compared_columns(
    control: Tensor, branch: Tensor, positions: Positions
) -> tuple[Columns, Columns]:
    """What a branch gives at every position, and how far it is from its control there.

    Args:
        control: The control's scores ``(rows, T, C)``.
        branch: The branch's.
        positions: Where to look.

    Returns:
        The control's own columns; the branch's, and its distances.
    """
    if torch.equal(control, branch):
        own = own_columns(branch, positions)
        zero = torch.zeros(len(positions.where), dtype=torch.float64)
        return own, {**own, **(dict.fromkeys(DISTANCE_COLUMNS, zero) if own else {})}
    tables = zip(positions.tables(control), positions.tables(branch), strict=True)
    pairs = [
        (_own(here, labels), {**_own(there, labels), **_distances(here, there)})
        for (here, labels), (there, _) in tables
    ]
    return _joined(own for own, _ in pairs), _joined(of_branch for _, of_branch in pairs)


def _own(table: Tensor, labels: Tensor) -> Columns:
    # Of equal probabilities the first counts; torch.max need not say the first.
    predicted = table.argmax(dim=1, keepdim=True)
    found = {
        "predicted": predicted[:, 0].to(torch.int32),
        "confidence": table.gather(1, predicted)[:, 0],
        "sum_of_squares": table.double().square().sum(dim=1),
    }
    if len(labels):
        found["label_probability"] = table.gather(1, labels[:, None])[:, 0]
    return found


def _distances(here: Tensor, there: Tensor) -> Columns:
    """Every distance, of the logarithms and the root that they have in common.

    With d = (p-q)/(p+q) they are, but for rounding, the formulas of the metrics: ln(p/q) is
    ln(1+d) - ln(1-d), and (sqrt p - sqrt q)^2 is (p+q) d^2 / (1 + sqrt(1 - d^2)).
    """
    if torch.equal(here, there):
        return dict.fromkeys(DISTANCE_COLUMNS, torch.zeros(len(here), dtype=torch.float64))
    p, q = here.double(), there.double()
    total, gap = p + q, p - q
    d = (gap / total).nan_to_num_(nan=0.0)  # 0 / 0: a class that neither gives
    up, down = d.log1p().clamp_(min=_LEAST), d.neg().log1p_().clamp_(min=_LEAST)
    js = ((d + 1).mul_(up) + (1 - d).mul_(down)).mul_(total).sum(dim=1)
    square = d.square_()
    hellinger = (square / (1 - square).sqrt_().add_(1)).mul_(total).sum(dim=1)
    logs = up.sub_(down) if float(q.min()) >= CLIP else _clipped_logs(p, q)
    return {
        "tv": gap.abs_().sum(dim=1) / 2,
        "js": js.clamp_(min=0) / (4 * math.log(2)),
        "hellinger": hellinger.div_(2).sqrt_(),
        "kl": logs.mul_(p).sum(dim=1).clamp_(min=0),
    }


def _clipped_logs(p: Tensor, q: Tensor) -> Tensor:
    """ln(p/q), where no q is less than CLIP."""
    return (p / q.clamp(min=CLIP)).log_().clamp_(min=_LEAST)


def _joined(parts: Iterable[Columns]) -> Columns:
    found = list(parts)
    names = found[0] if found else ()
    return {name: torch.cat([part[name].cpu() for part in found]) for name in names}
