"""What a recording puts on disk with its rows while the loop runs: numbers, and chains so far."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from auditkit.errors import AuditError
from auditkit.files import parts, store
from auditkit.formats.chain_heads import ChainHeads
from auditkit.formats.scalar_file import (
    Scalars,
    Series,
    merged,
    scalars_from_tensors,
    scalars_to_tensors,
)

_SCALARS = f"scalars{store.PARTIAL}"
_HEADS = f"heads{store.PARTIAL}"


class RecordingLog:
    """Two files that grow, of one process.

    Args:
        folder: The process's own folder.
    """

    def __init__(self, folder: Path) -> None:
        self._own = folder

    def append_heads(self, heads: ChainHeads) -> None:
        """Put on disk how far the chains are, for whoever closes what a kill has left."""
        parts.append_part(self._own / _HEADS, heads.to_tensors())

    def read_heads(self) -> list[ChainHeads]:
        """How far the chains were, whenever rows were put on disk."""
        found = []
        with suppress(AuditError):
            for part in parts.read_parts(self._own / _HEADS):
                found.append(ChainHeads.from_tensors(store.read_tensors(part, what=_HEADS)[0]))
        return found

    def append_scalars(self, scalars: Scalars) -> None:
        """Put numbers on disk that were logged since."""
        parts.append_part(self._own / _SCALARS, scalars_to_tensors(scalars))

    def replace_scalars(self, scalars: Scalars) -> None:
        """Put these in the place of all numbers so far."""
        parts.write_part(self._own / _SCALARS, scalars_to_tensors(scalars))

    def read_scalars(self) -> dict[str, Series]:
        """The numbers that are on disk."""
        found = []
        with suppress(AuditError):  # what follows a broken part is lost, and nothing hangs on it
            for part in parts.read_parts(self._own / _SCALARS):
                tensors, _ = store.read_tensors(part, what=_SCALARS)
                found.append(scalars_from_tensors(tensors, what=_SCALARS))
        return merged(found)
