"""Numbers a position, made of class scores that are too many to keep.

A table of class probabilities is what branches are compared by: float32, rounded from a float64
softmax. Here it exists for a few rows at a time, and what every metric needs of them is kept. So
the numbers are those that the metrics (``auditkit.statistics.metrics``) give of the whole table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from auditkit.statistics.metrics import CLIP

Columns = dict[str, Tensor]

#: Probabilities that are looked at together: what is made of them stays in a processor's cache.
_ELEMENTS = 2**18

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
    if torch.equal(here, there):
        zero = torch.zeros(len(here), dtype=torch.float64)
        return dict.fromkeys(_DISTANCES, zero)
    p, q = here.double(), there.double()
    return {name: distance(p, q) for name, distance in _DISTANCES.items()}


def _tv(p: Tensor, q: Tensor) -> Tensor:
    return (p - q).abs_().sum(dim=1) / 2


def _js(p: Tensor, q: Tensor) -> Tensor:
    total = p + q
    share = ((p - q) / total).nan_to_num_(nan=0.0)  # 0 / 0: a class that neither gives
    each = _xlogx_of_one_plus(share).add_(_xlogx_of_one_plus(share.neg())).mul_(total)
    return each.sum(dim=1).clamp_(min=0) / 4 / torch.log(torch.tensor(2.0, dtype=torch.float64))


def _xlogx_of_one_plus(share: Tensor) -> Tensor:
    """(1+d) ln(1+d) for d in -1 .. 1, with 0 ln 0 = 0."""
    return share.log1p().clamp_(min=-1e9).mul_(share + 1)


def _hellinger(p: Tensor, q: Tensor) -> Tensor:
    return (p.sqrt() - q.sqrt()).square_().sum(dim=1).div_(2).sqrt_()


def _kl(p: Tensor, q: Tensor) -> Tensor:
    logs = (p / q.clamp(min=CLIP)).log_().clamp_(min=-1e9)  # 0 ln 0 = 0
    return logs.mul_(p).sum(dim=1).clamp_(min=0)


_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tv": _tv,
    "js": _js,
    "hellinger": _hellinger,
    "kl": _kl,
}


def _joined(parts: Iterable[Columns]) -> Columns:
    found = list(parts)
    names = found[0] if found else ()
    return {name: torch.cat([part[name].cpu() for part in found]) for name in names}
