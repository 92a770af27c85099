"""Auditor: evidence of every step, one row a step.

Rules: a row is cut at the batch boundary, before the loader is asked for the batch; a cut that
turns out to be the end of an epoch is made again. Digesting reads live memory and draws
nothing. What belongs to no component of ``auditkit.observe.state.components`` is not seen here.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import chain
from typing import Any

from auditkit.formats.consumed_file import chained
from auditkit.formats.packed_batch import Drawn, PackedBatch
from auditkit.formats.recipes import order_digest
from auditkit.observe.state.components import State
from auditkit.observe.values.batches import BatchDigester, Digests
from auditkit.observe.values.beside import Beside
from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.digests import StateDigester, digest_leaves
from auditkit.observe.values.flatten import batch_leaves
from auditkit.observe.values.word_sums import Unread, WordSummer
from auditkit.records.digest import (
    ABSENT,
    EVIDENCE_BYTES,
    EVIDENCE_RECIPE,
    MIX_RECIPE,
)
from auditkit.records.evidence import DELIVERED, Trace, is_consumed

#: Rows that wait to be put into columns.
_FOLDED = 64


class Auditor:
    """Collects the trace of one branch.

    Args:
        first_step: Step of the first row.
        commit_data: Whether every consumed batch also enters :attr:`consumed_sha256`.
        recipe: Of the state's digests; what is consumed has ``xxh3-128/tensor-v1`` always.
        beside: Whether another thread may hash a large batch until the step is finished.
    """

    def __init__(
        self,
        first_step: int,
        *,
        commit_data: bool = False,
        recipe: str = EVIDENCE_RECIPE,
        beside: bool = False,
    ) -> None:
        self._first_step = first_step
        self._columns: dict[str, bytearray] = {}
        self._losses = bytearray()
        #: Closed rows that are in no column yet.
        self._new: list[Mapping[str, bytes]] = []
        self._digester = WordSummer() if recipe == MIX_RECIPE else StateDigester(recipe)
        #: Of the state that was cut last, where it is not in the pending row yet.
        self._unread: Unread | None = None
        self._batches = BatchDigester(commit=commit_data, beside=beside)
        #: Digest what a step without a loader says, by column.
        self._parts = {column: BatchDigester(commit=commit_data) for column in ("order", "batch")}
        self._commitment = b""
        #: Of the pending row's batch, where another thread makes them, and whether its order is
        #: its content.
        self._hashed: tuple[Beside[Digests], bool] | None = None
        self._pending: dict[str, bytes] = {}
        self._auxiliary: dict[str, bytes] = {}
        self._seen_components: set[str] = set()
        self._consumed = hashlib.sha256() if commit_data else None
        self.n_rows = 0

    @property
    def commitment(self) -> Callable[[], bytes]:
        """Gives the SHA-256 of the batch that was consumed last, with ``commit_data``.

        Another thread may be making it: who asks waits for that.
        """
        if self._hashed is not None:
            return partial(_commitment_of, self._hashed[0])
        return partial(bytes, self._commitment)

    @property
    def consumed_sha256(self) -> str:
        """SHA-256 over the SHA-256 of every batch consumed so far, in order."""
        self._take_in()
        return self._consumed.hexdigest() if self._consumed is not None else ""

    @property
    def component_names(self) -> set[str]:
        """Columns that are not zeros throughout, of all rows since the first."""
        self._seen_components |= {name for name, column in self._fold().items() if any(column)}
        return self._seen_components

    @property
    def digests(self) -> Mapping[str, bytes]:
        """Of the state that was cut last, by component; at its boundary nothing else."""
        return self._pending if self._unread is None else self._read()

    def cut(self, state: State) -> None:
        """Digest the state before the next step; a later cut of the same step replaces it."""
        self._take_in()
        if isinstance(self._digester, WordSummer):
            self._unread, self._pending = self._digester.start(state), {}
        else:
            self._pending = self._digester.digest(state)

    def _read(self) -> dict[str, bytes]:
        """The pending row, with what a device or another thread may have been making until now."""
        self._take_in()
        if self._unread is not None:
            self._pending = {**self._unread.read(), **self._pending}
            self._unread = None
        return self._pending

    def consume(self, batch: Any, order: Drawn | None) -> Leaves:
        """Digest what the step consumes.

        Args:
            batch: As collated.
            order: int64 ``(B, 2)``, perhaps packed; None for an iterable dataset, whose order
                evidence is the content of its batches.

        Returns:
            The batch as leaves (live views).
        """
        self._take_in()
        leaves, made = self._batches.begin(batch)
        if isinstance(made, Beside):
            self._hashed = made, order is None
            made = ABSENT, b""
        self._note(made, is_order=order is None)
        if order is not None:
            self._pending["order"] = _digest_of(order)
        return leaves

    def _note(self, digests: Digests, *, is_order: bool) -> None:
        """Take in the digests of the batch."""
        content, self._commitment = digests
        if self._consumed is not None:
            self._consumed.update(self._commitment)
        self._pending["batch"] = content
        if is_order:
            self._pending["order"] = content

    def _take_in(self) -> None:
        """Take in what another thread may have been making until now."""
        if self._hashed is not None:
            hashed, is_order = self._hashed
            self._note(hashed.value(), is_order=is_order)
            self._hashed = None

    def note_delivered(self, batch: Any) -> None:
        """Digest what the loader delivered, where the step consumes something else."""
        self._pending[DELIVERED] = digest_leaves(EVIDENCE_RECIPE, batch_leaves(batch))

    def consume_part(self, indices: Any, batch: Any) -> None:
        """Digest what a step without a loader says that it consumes; it may say so several times.

        Args:
            indices: Any tree of plain values; None where the batch stands for the order.
            batch: As collated, or None.
        """
        parts = {"order": batch if indices is None else indices, "batch": batch}
        found = [
            (column, *self._parts[column].digest(value)[1:])
            for column, value in parts.items()
            if value is not None
        ]
        for column, digest, commitment in found:  # nothing is noted where one is refused
            if self._consumed is not None:
                self._consumed.update(commitment)
            self._pending[column] = chained(self._pending.get(column, ABSENT), digest)

    def consume_auxiliary(self, name: str, batch: Any, order: Drawn | None) -> None:
        """Digest a batch that the step drew from another loader; a step may draw several.

        Args:
            name: Of the loader; its columns are ``batch/NAME`` and ``order/NAME``, each the
                digest of the digest so far and this one's.
            batch: As collated.
            order: int64 ``(B, 2)``, or None.
        """
        content = digest_leaves(EVIDENCE_RECIPE, batch_leaves(batch))
        drawn = content if order is None else _digest_of(order)
        for column, digest in ((f"batch/{name}", content), (f"order/{name}", drawn)):
            self._auxiliary[column] = chained(self._auxiliary.get(column, ABSENT), digest)

    @property
    def drawn(self) -> dict[str, str]:
        """What other loaders delivered since the last step that ended, by column, hexadecimal."""
        return {column: digest.hex() for column, digest in self._auxiliary.items()}

    def resume_drawn(self, drawn: Mapping[str, str]) -> None:
        """Continue from what was :attr:`drawn` where a checkpoint was taken."""
        self._auxiliary = {column: bytes.fromhex(digest) for column, digest in drawn.items()}

    def finish_step(self, loss: float | None) -> None:
        """Close the row of the step that was just taken."""
        # A custom step that gives no loss leaves zeros, which no recorded loss of 0.0 differs
        # from; the components of the next row differ where it matters.
        if self._auxiliary:
            self._pending.update(self._auxiliary)
            self._auxiliary = {}
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
            name: bytes(column[begin * 16 : end * 16]) for name, column in self._fold().items()
        }
        for name in filter(is_consumed, columns):
            columns[name] = columns[name][:-16] + ABSENT
        losses = bytes(self._losses[begin * 8 : (end - 1) * 8]) + bytes(8)
        # A component that never exists in these rows has no column.
        shown = {name: column for name, column in columns.items() if any(column)}
        return Trace(first, losses, shown)

    def row(self, step: int) -> Trace:
        """The row of one finished step by itself, with what it consumed."""
        begin = step - self._first_step
        columns = {
            name: bytes(column[begin * EVIDENCE_BYTES : (begin + 1) * EVIDENCE_BYTES])
            for name, column in self._fold().items()
        }
        return Trace(step, bytes(self._losses[begin * 8 : begin * 8 + 8]), columns)

    def pending_row(self) -> Trace:
        """The row of the step that is under way: the state before it, and its batch."""
        return Trace(self._first_step + self.n_rows, bytes(8), dict(self._read()))

    def discard_rows(self) -> None:
        """Drop the rows of finished steps."""
        self._first_step += self.n_rows
        self._columns, self._new, self._losses, self.n_rows = {}, [], bytearray(), 0

    def partial_trace(self, first_step: int | None = None) -> Trace:
        """The rows so far and, as the last one, the state that was cut for the next step.

        Args:
            first_step: By default the first recorded step.
        """
        kept = (dict(self._read()), self.n_rows)
        self._append(bytes(8))
        trace = self.trace(first_step)
        self._pending, self.n_rows = kept
        for column in self._fold().values():
            del column[-EVIDENCE_BYTES:]
        del self._losses[-8:]
        return trace

    def pop_trace(self, n_steps: int) -> Trace:
        """Hand over the rows of the first ``n_steps`` steps and forget them.

        There must be more rows than that: the next one ends the trace, and stays.
        """
        trace = self.trace(last_step=self._first_step + n_steps - 1)
        self._seen_components |= set(trace.columns)
        for column in self._fold().values():
            del column[: n_steps * EVIDENCE_BYTES]
        del self._losses[: n_steps * 8]
        self._first_step += n_steps
        self.n_rows -= n_steps
        return trace

    def resume_from(self, trace: Trace, components: Iterable[str]) -> None:
        """Continue where a trace ends: its last row is the state that is cut again.

        Args:
            trace: The rows so far.
            components: Columns of these and of earlier rows.
        """
        self._seen_components = set(components)
        self._first_step, self.n_rows = trace.first_step, trace.n_rows - 1
        self._losses, self._new = bytearray(trace.loss_bits[:-8]), []
        self._columns = {
            name: bytearray(column[:-EVIDENCE_BYTES]) for name, column in trace.columns.items()
        }

    def _append(self, loss: bytes) -> None:
        self._new.append(self._read())
        self._losses += loss
        self._pending = {}
        self.n_rows += 1
        if len(self._new) >= _FOLDED:
            self._fold()

    def _fold(self) -> dict[str, bytearray]:
        """Put the rows that were closed since into columns; all at once costs less than each."""
        rows, self._new = self._new, []
        n_before = self.n_rows - len(rows)
        for name in dict.fromkeys(chain.from_iterable(rows)):
            if name not in self._columns:
                self._columns[name] = bytearray(ABSENT * n_before)
        for name, column in self._columns.items() if rows else ():
            column.extend(b"".join([row.get(name, ABSENT) for row in rows]))
        return self._columns


def _commitment_of(batch: Beside[Digests]) -> bytes:
    return batch.value()[1]


def _digest_of(order: Drawn) -> bytes:
    if isinstance(order, PackedBatch):
        return order.digest
    return order_digest(EVIDENCE_RECIPE, order)
