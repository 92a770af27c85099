"""Write what a recorded loop leaves: chunks of evidence, checkpoints, and the record of a rank.

What goes wrong before the first step is raised: nothing is lost yet. What goes wrong later
must not cost anybody a training run: the recording stops, says so in a warning, and leaves no
manifest; the loop goes on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from auditkit.errors import AuditError, StoreError
from auditkit.files.recording_folder import RecordingFolder, not_resumable
from auditkit.formats.chain_heads import ChainHeads
from auditkit.formats.group_values import numbers
from auditkit.observe.loader.driver import Delivery
from auditkit.observe.rng.streams import uncovered_streams
from auditkit.observe.state.components import State
from auditkit.observe.state.counters import step_counters
from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.digests import commitments
from auditkit.program.session import TrainingSession
from auditkit.recorder.chains import HashChains
from auditkit.recorder.group_changes import GroupChanges
from auditkit.recorder.pending_checkpoint import PendingCheckpoint
from auditkit.recorder.proof import BegunCounters, Proof, Resumption, RowPace
from auditkit.recorder.scalars import ScalarLog
from auditkit.recorder.sharded_parts import leave_parts
from auditkit.recorder.sharded_states import leave_checkpoints
from auditkit.records.digest import EVIDENCE_RECIPE
from auditkit.records.journal import NEVER_CLOSED, KeptCheckpoint, RecordingJournal
from auditkit.records.recording import TRACE_STEPS, CheckpointRecord, RankRecord
from auditkit.records.rng import UNSEEDED, RngContract, StreamContract
from auditkit.study.stages.auditor import Auditor

#: The step before which an optimizer has made its slots, if it makes any.
_SLOTS_BY = 2


class RecordingStopped(UserWarning):
    """The recording of a loop stopped; the loop did not."""


@dataclass(frozen=True)
class RecordSettings:
    """How a loop is recorded.

    Attributes:
        out: The recording's folder.
        seed: The seed that the user says.
        checkpoint_every: Steps between checkpoints; 0 for none but those requested.
        keep_checkpoints: How many are kept, the latest ones; None for all.
        patience: Seconds that a process waits for the others.
        unproven: Whether to resume without comparing anything.
        new: Whether ``out`` is to get a number of its own.
        call: What takes ``extras=`` and ``averaged=``, for advice: a callback calls ``wrap``.
        evidence_digest: Recipe of the state's digests.
    """

    out: Path
    seed: int | None
    checkpoint_every: int = 0
    keep_checkpoints: int | None = None
    patience: float = 600.0
    unproven: bool = False
    new: bool = False
    call: str = "wrap"
    evidence_digest: str = EVIDENCE_RECIPE


class RecordingWriter:
    """What a recorded loop leaves behind, as a callback of its steps.

    Args:
        settings: How it is recorded.
        folder: Where.
        session: The live objects.
        auditor: Holds the rows.
        journal: A fresh one, or as the killed run left it.
        resumption: From where it goes on, if it does.
        proof: Compares its rows with what the killed run left.
        agree: Waits until every process is as far.

    Attributes:
        proving: Whether rows are compared still: until then nothing is written.
        batch_in_hand: Whether the loop may have yet to train on a batch that it has got; then a
            checkpoint that is due waits for the next boundary.
        scalars: The numbers that the loop logs.
        call: As of the settings.
    """

    def __init__(
        self,
        settings: RecordSettings,
        folder: RecordingFolder,
        session: TrainingSession,
        auditor: Auditor,
        journal: RecordingJournal,
        resumption: Resumption | None,
        proof: Proof | None,
        agree: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._settings, self._folder, self._session = settings, folder, session
        self._auditor, self._resumption, self._proof = auditor, resumption, proof
        self._agree = agree
        kept = None if resumption is None else resumption.kept
        self._chains = HashChains(
            bytes.fromhex(kept.order_head if kept else ""),
            bytes.fromhex(kept.consumed_head if kept else ""),
            0 if resumption is None else resumption.step,
        )
        self._checkpoint_requested = False
        self._pending = PendingCheckpoint(session, folder)
        self._counters: dict[str, int] = {}
        self._counters_begun = None if kept is None else BegunCounters(kept.counters)
        self._state: State = {}
        self._pace = RowPace()
        self._groups = GroupChanges(session.objects.optimizer)
        self.batch_in_hand, self.call = False, settings.call
        self.journal = journal
        self.steps = 0 if resumption is None else resumption.step
        self.scalars = ScalarLog(folder, self.steps)

    @property
    def proving(self) -> bool:
        """See the class."""
        return self._proof is not None

    @property
    def must_stop(self) -> bool:
        """Whether a loop that went on would train on with a state that is not its own."""
        return self.proving or (self._is_from_checkpoint and bool(self.journal.unresumable))

    @property
    def _is_from_checkpoint(self) -> bool:
        """Whether the loop went on from a checkpoint, and nobody asked for that without a proof."""
        resumed = self._resumption
        return resumed is not None and resumed.step > 0 and resumed.recorded is not None

    def request_checkpoint(self) -> None:
        """Take a checkpoint at the next batch boundary, or at the end."""
        self._checkpoint_requested = True

    def mark_unresumable(self, reason: str) -> None:
        """Write no checkpoint any more, and let nobody resume from one that there is.

        Args:
            reason: Why, for people: what no checkpoint holds, and what to do about it.

        Raises:
            RecordingIncomplete: When the loop has gone on from such a checkpoint.
        """
        if self.journal.unresumable is None:
            self.journal = replace(self.journal, unresumable=reason)
            if not self.proving:
                self._folder.write_journal(self.journal)
        if self._is_from_checkpoint:
            raise not_resumable(reason, self._folder.path)
        self._checkpoint_requested = False
        self._pending.drop()

    def on_boundary(self, step: int, state: State) -> None:
        """Freeze the state where a checkpoint is due."""
        self._pending.drop()
        if changed := self._groups.changes(state):
            self.scalars.note(step, numbers(changed))
        if self._counters_begun is not None:
            self._counters_begun.look(step - 1)
        if self._proof is not None:
            self._proof.refuse_failed()
            self._state = state
        if step == 1:
            self.journal = replace(self.journal, initial=commitments(state))
            if not self.proving:
                leave_parts(self._folder.parts, 0, state, self._session.sharding())
        if step <= _SLOTS_BY:
            sharded = tuple(sorted(self._session.sharding()))
            self.journal = replace(self.journal, sharded=sharded)
        if self.journal.unresumable is not None:
            return
        if self.is_due(step):
            self._checkpoint_requested = self._checkpoint_requested or self.batch_in_hand
            if not self.batch_in_hand:
                self._freeze(step - 1, state)
            self._counters = step_counters(step - 1)

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is to be taken at the boundary before a step."""
        if self._proof is not None and step <= self._proof.last:
            return False
        every, taken = self._settings.checkpoint_every, step - 1
        is_turn = bool(every and taken and taken % every == 0)
        return (is_turn or self._checkpoint_requested) and taken > self.journal.steps

    def on_batch(self, step: int, delivery: Delivery, leaves: Leaves) -> None:
        """The boundary counted: compare or write what is due, then link the chains."""
        if self._proof is not None:
            self._prove(self._proof, step)
        if self._pending.is_taken:  # of a boundary where an epoch ended there is another one
            self._write_checkpoint(step - 1)
            self._checkpoint_requested = False
        elif not self.proving and self._pace.is_due(step - 1):
            self._folder.append_rows(self._auditor.partial_trace(self._pace.written + 1))
            self._put(self._chains.heads)
            self._rows_written(step - 1)
        elif step <= (_SLOTS_BY if self.journal.sharded else 1) and not self.proving:
            self._folder.write_journal(self.journal)  # with the state at the start
        self._chains.link(delivery, self._auditor.commitment)

    def on_step_end(self, step: int, loss: float | None) -> None:
        """Compare the row; write a chunk that is full."""
        self.steps = step
        if self._proof is not None:
            self._proof.compare_step(self._auditor.row(step))
        if self._auditor.n_rows > TRACE_STEPS:
            trace = self._auditor.pop_trace(TRACE_STEPS)
            if not self.proving:  # else it is on disk
                self._folder.write_trace(trace)
                self._put(self._chains.before)
                self._pace.rows_written(trace.last_step)

    def finish(self) -> None:
        """Write the last chunk; and a checkpoint that was requested too late for a boundary.

        Raises:
            ResumeMismatch: When not all rows of the killed run were given again.
        """
        if self._proof is not None:
            self._proof.refuse_end(self.steps)
        self._pending.drop()
        self._write_journal_of_end("the loop was over")
        trace = self._auditor.trace()
        if trace.n_rows > 1 or not self.steps:
            self._folder.write_trace(trace)
        wanted = self._checkpoint_requested and self.journal.unresumable is None
        if wanted and self.steps > self.journal.steps:
            self._freeze(self.steps, self._session.state(), at_end=True)
            if self._pending.is_taken:
                self._write_checkpoint(self.steps, at_end=True)
        self._drop_checkpoints(self._settings.keep_checkpoints)

    def record_interruption(self, how: str) -> None:
        """Keep what there is of a loop that ended before its time."""
        if self.proving:
            return  # what the killed run left is more
        self._pending.drop()
        if how == NEVER_CLOSED:
            self.journal = replace(self.journal, final=commitments(self._session.state()))
        self._write_journal_of_end(how)
        if self._auditor.n_rows:
            self._folder.write_trace(self._auditor.partial_trace())
        self._put(self._chains.before)
        self._put(self._chains.heads)

    def _put(self, heads: ChainHeads) -> None:
        """Put on disk what goes with rows: numbers, and how far the chains are."""
        self.scalars.flush()
        self._folder.log.append_heads(heads)

    def record(self, rank: int, loaders: dict[str, dict[str, str]], epochs: int) -> RankRecord:
        """What this rank did, after :meth:`finish`."""
        journal = self.journal
        state = self._session.state()
        final = commitments(state)
        self.scalars.note(self.steps + 1, numbers(self._groups.changes(state)))
        sharding = self._session.sharding()
        leave_checkpoints(self._folder, journal.checkpoints)
        leave_parts(self._folder.parts, self.steps, state, sharding)
        n_chunks = -(-self.steps // TRACE_STEPS)
        streams = tuple(
            StreamContract(name, None, journal.stream_starts.get(name), None, final[name])
            for name in sorted(final)
            if name.startswith("rng/")
        )
        return RankRecord(
            rank=rank,
            steps=self.steps,
            epochs=epochs,
            traces=tuple(self._folder.trace_name(chunk) for chunk in range(n_chunks)),
            components=tuple(sorted(self._auditor.component_names)),
            initial=journal.initial,
            final=final,
            order_sha256=self._chains.order.hex(),
            consumed_sha256=self._chains.consumed.hex(),
            rng=RngContract(UNSEEDED, streams, uncovered_streams()),
            loaders=loaders,
            checkpoints=journal.checkpoints,
            resumed_at=journal.resumed_at,
            proven_by=journal.proven_by,
            scalars=self.scalars.finish(),
            sharded=tuple(sorted({*journal.sharded, *sharding})),
        )

    def _freeze(self, steps: int, state: State, *, at_end: bool = False) -> None:
        try:
            self._pending.take(steps, state, counts=at_end)
        except StoreError:
            raise
        except AuditError as error:
            # The position or some state cannot be kept; the loop goes on.
            self._checkpoint_requested = False
            warnings.warn(f"no checkpoint was taken: {error}", RecordingStopped, stacklevel=2)

    def _prove(self, proof: Proof, step: int) -> None:
        """Compare what the boundary cut; where that was the last of it, take the folder over."""
        if step <= proof.last:
            proof.compare_boundary(self._auditor.pending_row(), self._state)
            taken = [checkpoint.step for checkpoint in self.journal.checkpoints]
            self._checkpoint_requested &= step - 1 not in taken
            return
        with self._agree("prove the resume"):
            proof.compare_boundary(self._auditor.pending_row(), self._state)
        assert self._resumption is not None  # noqa: S101 # there is nothing to prove without one
        self.journal = self._resumption.settle(self.journal)
        killed = self._resumption.journal.checkpoints
        self._folder.take_over(self._auditor.partial_trace(), killed, self.journal)
        self._proof, self._state = None, {}
        if self.journal.kept:
            self._pace.checkpoint_taken(self.journal.steps)
        self._pace.rows_written(step - 1)
        if proof.other_loss is not None:
            warnings.warn(
                f"from step {proof.other_loss} on the loop logs another loss than the killed run "
                "did, and nothing else differs: what it keeps for that (a mean over the epoch) "
                "begins anew; log the loss of the step, or register it with extras=",
                RecordingStopped,
                stacklevel=2,
            )

    def _write_checkpoint(self, steps: int, *, at_end: bool = False) -> None:
        if not at_end:
            self._folder.write_trace(self._auditor.partial_trace())
            self._put(self._chains.heads)
        file, digests = self._pending.write(steps)
        taken = CheckpointRecord(steps, file, digests, drawn=self._auditor.drawn)
        latest = KeptCheckpoint(
            taken,
            self._chains.order.hex(),
            self._chains.consumed.hex(),
            tuple(sorted(self._auditor.component_names)),
            {} if at_end else self._counters,
        )
        sharded = tuple(sorted({*self.journal.sharded, *self._session.sharding()}))
        self.journal = replace(self.journal, kept=(*self.journal.kept, latest), sharded=sharded)
        self._pace.checkpoint_taken(steps)
        # One that no row follows yet proves nothing: the one before stays until there are some.
        keep = self._settings.keep_checkpoints
        self._drop_checkpoints(keep and max(keep, 2), written=True)

    def _rows_written(self, step: int) -> None:
        self._pace.rows_written(step)
        if self._pace.proves(step):
            self._drop_checkpoints(self._settings.keep_checkpoints)

    def _drop_checkpoints(self, keep: int | None, *, written: bool = False) -> None:
        """Keep the latest checkpoints only; ``written``: the journal is to be written anyway."""
        journal = self.journal
        dropped = journal.kept[:-keep] if keep else ()
        self.journal = replace(journal, kept=journal.kept[len(dropped) :])
        if written or dropped:
            self._folder.write_journal(self.journal)
        for checkpoint in dropped:
            self._folder.remove_checkpoint(checkpoint.record)

    def _write_journal_of_end(self, how: str) -> None:
        # Before the rows: their last one is no boundary's then, and must not be taken for one.
        self.journal = replace(self.journal, ended=how)
        self._folder.write_journal(self.journal)


def now() -> str:
    """The time by this machine's clock (ISO 8601, UTC)."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
