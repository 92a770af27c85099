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
_ELEMENTS = 2**17

#: Stands for a logarithm of 0, which is always multiplied with 0 here.
_LEAST = -1e9

#: How much memory :func:`_sums` needs, in tables.
_SPARE = 7

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

    def parts(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """A few positions at a time, with their labels."""
        for start in range(0, len(self.where), size):
            yield self.where[start : start + size], self.labels[start : start + size]


@dataclass(frozen=True)
class _Table:
    """Probabilities of a few positions.

    Attributes:
        narrow: float32, as they are in a table.
        wide: The same numbers as float64.
    """

    narrow: Tensor
    wide: Tensor


class _Room:
    """Memory for a few positions, used again for the next: getting new memory takes longer.

    Args:
        scores: Of one side ``(rows, T, C)``.
        probabilities: Whether scores are probabilities already.
        n_sides: How many sides are looked at together.
    """

    def __init__(self, scores: Tensor, probabilities: bool, n_sides: int) -> None:
        device = scores.device if scores.device.type in _FLOAT64_DEVICES else torch.device("cpu")
        self.size = max(1, _ELEMENTS // scores.shape[2])
        self._probabilities = probabilities
        shape = (n_sides, self.size, scores.shape[2])
        self._narrow = torch.empty(shape, dtype=torch.float32, device=device)
        self._wide = torch.empty(shape, dtype=torch.float64, device=device)
        self._spare = torch.empty((_SPARE, *shape[1:]), dtype=torch.float64, device=device)

    def table(self, side: int, scores: Tensor, where: Tensor) -> _Table:
        """Probabilities at some positions, until the same side's next ones are asked for."""
        row, position = where.to(scores.device).unbind(1)
        narrow, wide = self._narrow[side, : len(where)], self._wide[side, : len(where)]
        wide.copy_(scores[row, position])
        first = self.spare(len(where))[0]
        given = wide if self._probabilities else torch.softmax(wide, dim=1, out=first)
        wide.copy_(narrow.copy_(given))
        return _Table(narrow, wide)

    def spare(self, n: int) -> tuple[Tensor, ...]:
        """Memory for anything."""
        return self._spare[:, :n].unbind(0)


def own_columns(scores: Tensor, positions: Positions) -> Columns:
    """What one branch gives at every position; its scores are ``(rows, T, C)``."""
    room = _Room(scores, positions.probabilities, 1)
    return _joined(
        _own(room.table(0, scores, where), labels, room)
        for where, labels in positions.parts(room.size)
    )


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
    room = _Room(branch, positions.probabilities, 2)
    pairs = []
    for where, labels in positions.parts(room.size):
        here, there = room.table(0, control, where), room.table(1, branch, where)
        of_branch = {**_own(there, labels, room), **_distances(here, there, room)}
        pairs.append((_own(here, labels, room), of_branch))
    return _joined(own for own, _ in pairs), _joined(of_branch for _, of_branch in pairs)


def _own(table: _Table, labels: Tensor, room: _Room) -> Columns:
    narrow, wide = table.narrow, table.wide
    predicted = _predicted(narrow)[:, None]
    found = {
        "predicted": predicted[:, 0].to(torch.int32),
        "confidence": narrow.gather(1, predicted)[:, 0],
        "sum_of_squares": torch.mul(wide, wide, out=room.spare(len(wide))[0]).sum(dim=1),
    }
    if len(labels):
        labels = labels.to(narrow.device)
        found["label_probability"] = narrow.gather(1, labels[:, None])[:, 0]
    return found


def _predicted(narrow: Tensor) -> Tensor:
    """The class of each row; of equal probabilities the first, which torch.max need not say."""
    if narrow.device.type != "cpu":
        return narrow.argmax(dim=1)
    return torch.from_numpy(narrow.numpy().argmax(axis=1))  # ten times as fast


def _distances(here: _Table, there: _Table, room: _Room) -> Columns:
    if torch.equal(here.narrow, there.narrow):
        zero = torch.zeros(len(here.wide), dtype=torch.float64)
        return dict.fromkeys(DISTANCE_COLUMNS, zero)
    spare = room.spare(len(here.wide))
    clips = float(there.narrow.min()) < CLIP
    sums = _sums(here.wide, there.wide, spare, clips=clips, zeros=False)
    if not all(bool(one.isfinite().all()) for one in sums.values()):
        sums = _sums(here.wide, there.wide, spare, clips=clips, zeros=True)
    return {
        "tv": sums["tv"] / 2,
        "js": sums["js"].clamp_(min=0) / (4 * math.log(2)),
        "hellinger": sums["hellinger"].div_(2).sqrt_(),
        "kl": sums["kl"].clamp_(min=0),
    }


def _sums(p: Tensor, q: Tensor, spare: tuple[Tensor, ...], *, clips: bool, zeros: bool) -> Columns:
    """The sum of every distance, of the logarithms and the root that they have in common.

    With d = (p-q)/(p+q) they are, but for rounding, the formulas of the metrics: ln(p/q) is
    ln(1+d) - ln(1-d), and (sqrt p - sqrt q)^2 is (p+q) d^2 / (1 + sqrt(1 - d^2)).

    Args:
        p: The control's probabilities.
        q: The branch's.
        spare: Memory of their shape.
        clips: Whether a q is less than CLIP.
        zeros: Whether a probability is 0, without which a sum may be not a number then.
    """
    total, gap, d, minus, up, down, other = spare
    torch.add(p, q, out=total)
    torch.div(torch.sub(p, q, out=gap), total, out=d)
    if zeros:
        d.nan_to_num_(nan=0.0)  # 0 / 0: a class that neither gives
    torch.log1p(d, out=up)
    torch.log1p(torch.neg(d, out=minus), out=down)
    if zeros:
        up.clamp_(min=_LEAST)
        down.clamp_(min=_LEAST)
    torch.add(d, 1, out=other).mul_(up)
    js = other.add_(minus.add_(1).mul_(down)).mul_(total).sum(dim=1)
    square = d.square_()
    root = torch.neg(square, out=other).add_(1).sqrt_()
    hellinger = square.div_(root.add_(1)).mul_(total).sum(dim=1)
    logs = _clipped_logs(p, q, other) if clips else up.sub_(down)
    return {
        "tv": gap.abs_().sum(dim=1),
        "js": js,
        "hellinger": hellinger,
        "kl": logs.mul_(p).sum(dim=1),
    }


def _clipped_logs(p: Tensor, q: Tensor, out: Tensor) -> Tensor:
    """ln(p/q), where no q is less than CLIP."""
    torch.clamp(q, min=CLIP, out=out)
    return torch.div(p, out, out=out).log_().clamp_(min=_LEAST)


def _joined(parts: Iterable[Columns]) -> Columns:
    found = list(parts)
    names = found[0] if found else ()
    return {name: torch.cat([part[name].cpu() for part in found]) for name in names}
