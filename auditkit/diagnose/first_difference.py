"""Where two traces differ first that come in pieces of any length.

Only one piece of each is in memory. Traces that cover different steps are compared over the
steps that both have, and differ in their *length* if nothing else differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from auditkit.errors import FormatError
from auditkit.evidence.comparison import Mismatch, mismatch_in_row
from auditkit.records.differences import precedence
from auditkit.records.evidence import Trace, is_consumed


@dataclass(frozen=True)
class Overlap:
    """Two pieces and the steps that both hold: ``start`` .. ``end``, and the state after them."""

    here: Trace
    there: Trace
    start: int
    end: int


def first_mismatch(name: str, left: Iterable[Trace], right: Iterable[Trace]) -> Mismatch | None:
    """The first row in which two traces differ, or None where they are equal.

    Args:
        name: What the traces are of, for the answer.
        left: The pieces of one trace, in order.
        right: The pieces of the other.

    Raises:
        FormatError: When a piece does not begin where the one before it ends.
    """
    rest: list[int] = []
    begin = None
    for overlap in _overlaps(left, right, rest):
        begin = overlap.start if begin is None else begin
        step = min(_first_steps(overlap).values(), default=None)
        if step is not None:
            names = _components(overlap, step)
            return mismatch_in_row(name, step, names, at_start=step == begin)
    return mismatch_in_row(name, min(rest), ["steps"]) if rest else None


def first_steps(left: Iterable[Trace], right: Iterable[Trace]) -> dict[str, int]:
    """The first step at which each column differs, of those that do.

    Args:
        left: The pieces of one trace, in order.
        right: The pieces of the other.
    """
    found: dict[str, int] = {}
    for overlap in _overlaps(left, right, []):
        for column, step in _first_steps(overlap).items():
            found.setdefault(column, step)
    return dict(sorted(found.items(), key=lambda item: (item[1], precedence(item[0]))))


def _overlaps(left: Iterable[Trace], right: Iterable[Trace], rest: list[int]) -> Iterator[Overlap]:
    """Pieces side by side; ``rest`` gets the first steps that only one side has."""
    ours, theirs = _contiguous(left), _contiguous(right)
    here, there = next(ours, None), next(theirs, None)
    starts = {piece.first_step for piece in (here, there) if piece is not None}
    step = max(starts, default=1)
    while here is not None and there is not None:
        end = min(here.last_step, there.last_step)
        if step <= end + 1:
            yield Overlap(here, there, step, end)
        step = max(step, end + 1)
        if here.last_step == end:
            here = next(ours, None)
        if there.last_step == end:
            there = next(theirs, None)
    if len(starts) > 1:
        rest.append(min(starts))
    if here is not None or there is not None:
        rest.append(step)


def _contiguous(pieces: Iterable[Trace]) -> Iterator[Trace]:
    step: int | None = None
    for piece in pieces:
        if step is not None and piece.first_step != step:
            text = f"a piece of a trace begins at step {piece.first_step}, not at {step}"
            raise FormatError(text)
        step = piece.last_step + 1
        yield piece


def _first_steps(overlap: Overlap) -> dict[str, int]:
    """By column, the first unequal row of an overlap or of the state after it."""
    here, there, found = overlap.here, overlap.there, {}
    for column in sorted(set(here.columns) | set(there.columns)):
        # The row after the last step that both took says nothing of what was consumed.
        stop = overlap.end + 1 if is_consumed(column) else overlap.end + 2
        step = (
            here.first_unequal(there, column, overlap.start, stop) if overlap.start < stop else None
        )
        if step is not None:
            found[column] = step
    loss = here.first_other_loss(there, overlap.start, overlap.end + 1)
    if loss is not None:
        found["loss"] = loss
    return found


def _components(overlap: Overlap, step: int) -> list[str]:
    """What differs in a row: orders, batches, the state, the loss."""
    names = overlap.here.row_difference(step, overlap.there)
    if step <= overlap.end:
        return names
    return [name for name in names if not is_consumed(name) and name != "loss"]
