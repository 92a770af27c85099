"""Random streams that nothing drew from in a recording: where they stood is no matter."""

from __future__ import annotations

from collections.abc import Iterable

from auditkit.records.digest import EVIDENCE_BYTES
from auditkit.records.evidence import Trace
from auditkit.records.recording import RankRecord


def still_streams(rank: RankRecord, rows: Iterable[Trace]) -> tuple[str, ...]:
    """The streams of a process that nothing drew from.

    Of a process that was killed nobody committed to the end; there every row says it.

    Args:
        rank: Its record.
        rows: Its trace, piece by piece; looked at only where the record does not say it.
    """
    streams = [one for one in rank.rng.streams if one.start]
    still = {one.stream for one in streams if one.start == one.end}
    starts = {one.stream: one.start for one in streams if one.end is None}
    unsaid = {name for name, start in starts.items() if rank.initial.get(name) == start}
    first: dict[str, bytes] = {}
    for piece in rows if unsaid else ():
        for name in unsaid:
            first.setdefault(name, piece.cell(piece.first_step, name))
        unsaid = {name for name in unsaid if _is_constant(piece, name, first[name])}
    still |= unsaid & first.keys()
    return tuple(one.stream for one in streams if one.stream in still)


def _is_constant(piece: Trace, name: str, cell: bytes) -> bool:
    cells = piece.cells(name, piece.first_step, piece.first_step + piece.n_rows)
    return cells == cell * (len(cells) // EVIDENCE_BYTES)
