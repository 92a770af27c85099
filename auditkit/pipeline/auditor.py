"""Auditor: evidence of every step, one row a step.

Rules: a row is cut at the batch boundary, before the loader is asked for the batch; a cut that
turns out to be the end of an epoch is made again. Digesting reads live memory and draws
nothing. What belongs to no component of ``auditkit.observe.state`` is not seen here.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

from auditkit.observe.codec import Leaves, flatten
from auditkit.observe.digests import ComponentDigester, digest_leaves
from auditkit.observe.state import State
from auditkit.ordering import Batch
from auditkit.recipes import order_digest
from auditkit.records.digest import ABSENT, COMMITMENT_RECIPE, EVIDENCE_RECIPE
from auditkit.records.evidence import Trace


class Auditor:
    """Collects the trace of one branch.

    Args:
        first_step: Step of the first row.
        commit_data: Whether every consumed batch also enters :attr:`consumed_sha256`.
    """

    def __init__(self, first_step: int, *, commit_data: bool = False) -> None:
        self._first_step = first_step
        self._columns: dict[str, bytearray] = {}
        self._losses = bytearray()
        self._digesters: dict[str, ComponentDigester] = {}
        self._batch_digester = ComponentDigester(EVIDENCE_RECIPE)
        self._pending: dict[str, bytes] = {}
        self._consumed = hashlib.sha256() if commit_data else None
        self.n_rows = 0

    @property
    def consumed_sha256(self) -> str:
        """SHA-256 over the SHA-256 of every batch consumed so far, in order."""
        return self._consumed.hexdigest() if self._consumed is not None else ""

    def cut(self, state: State) -> None:
        """Digest the state before the next step; a later cut of the same step replaces it."""
        pending: dict[str, bytes] = {}
        for name, leaves in state.items():
            digester = self._digesters.get(name)
            if digester is None:
                digester = self._digesters[name] = ComponentDigester(EVIDENCE_RECIPE)
            pending[name] = digester.digest(leaves)
        self._pending = pending

    def consume(self, batch: Any, order: Batch | None) -> Leaves:
        """Digest what the step consumes.

        Args:
            batch: As collated.
            order: int64 ``(B, 2)``; None for an iterable dataset, whose order evidence is the
                content of its batches.

        Returns:
            The batch as leaves (live views).
        """
        leaves = flatten(batch, where="batch")
        content = self._batch_digester.digest(leaves)
        if self._consumed is not None:
            self._consumed.update(digest_leaves(COMMITMENT_RECIPE, leaves))
        self._pending["batch"] = content
        self._pending["order"] = content if order is None else order_digest(EVIDENCE_RECIPE, order)
        return leaves

    def finish_step(self, loss: float | None) -> None:
        """Close the row of the step that was just taken."""
        # A custom step that gives no loss leaves zeros, which no recorded loss of 0.0 differs
        # from; the components of the next row differ where it matters.
        self._append(struct.pack("<d", 0.0 if loss is None else loss))

    def close(self, state: State) -> None:
        """Add the last row: the state at the end, zeros for what was consumed."""
        self.cut(state)
        self._append(bytes(8))

    def trace(self, first_step: int | None = None, last_step: int | None = None) -> Trace:
        """The rows of ``first_step`` .. ``last_step + 1``; the last one's consumption is zeroed.

        Args:
            first_step: By default the first recorded step.
            last_step: By default the last recorded step.
        """
        first = self._first_step if first_step is None else first_step
        begin = first - self._first_step
        end = self.n_rows if last_step is None else last_step + 2 - self._first_step
        columns = {
            name: bytes(column[begin * 16 : end * 16]) for name, column in self._columns.items()
        }
        for name in ("order", "batch"):
            columns[name] = columns[name][:-16] + ABSENT
        losses = bytes(self._losses[begin * 8 : (end - 1) * 8]) + bytes(8)
        # A component that never exists in these rows has no column.
        shown = {name: column for name, column in columns.items() if any(column)}
        return Trace(first, losses, shown)

    def _append(self, loss: bytes) -> None:
        for name in self._pending:
            if name not in self._columns:
                self._columns[name] = bytearray(ABSENT * self.n_rows)
        for name, column in self._columns.items():
            column.extend(self._pending.get(name, ABSENT))
        self._losses += loss
        self._pending = {}
        self.n_rows += 1
