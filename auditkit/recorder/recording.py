"""A recording, from the wrapped objects to the signed manifest."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

from auditkit.errors import AuditError, RestoreMismatch, StoreError
from auditkit.files.recording_folder import RankResult, RecordingFolder
from auditkit.files.store import PARTIAL
from auditkit.formats.statements import to_statement
from auditkit.observe.machine.code import user_code
from auditkit.observe.machine.distributed import (
    Peers,
    parallel_settings,
    sharding_differences,
)
from auditkit.observe.machine.environment import environment
from auditkit.observe.rng.streams import capture_streams
from auditkit.observe.values.digests import commitments
from auditkit.observe.values.stored import Saved
from auditkit.recorder.checkpoint_checks import OrderCheck, open_checkpoint
from auditkit.recorder.loop import GuardedBoundary, Loop, RecorderBackend
from auditkit.recorder.proof import Proof, Resumption, choose_start
from auditkit.recorder.rank_result import make_rank_result
from auditkit.recorder.running_script import argument_changes, command_now, program_record
from auditkit.recorder.sharded_states import states_of
from auditkit.recorder.watch import Watch
from auditkit.recorder.wrapping import Wrapped, instrument
from auditkit.recorder.writer import (
    RecordingStopped,
    RecordingWriter,
    RecordSettings,
    now,
)
from auditkit.records.journal import NEVER_CLOSED, KeptCheckpoint, RecordingJournal
from auditkit.records.manifest import (
    CODE_FOLDER,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    SIGNER_NAME,
    Producer,
    ProgramRecord,
    RunTimes,
)
from auditkit.records.recording import RecordingManifest, WorldRecord
from auditkit.signing.envelopes import sign_statement
from auditkit.signing.keys import public_line
from auditkit.signing.trust import SigningKey
from auditkit.study.stages.auditor import Auditor
from auditkit.study.stages.describer import describe_objects
from auditkit.study.stages.forker import Fork, closed_on_error, load_fork
from auditkit.version import __version__

_LOG = logging.getLogger("auditkit")


class RecordingBackend(RecorderBackend):
    """Records a loop into a folder.

    Args:
        wrapped: The loop's objects.
        settings: How it is recorded.
        key: What to sign with; ranks above 0 need none.
        peers: The processes of the loop.
        resume: Whether to resume from the latest checkpoint, where there is one.

    Attributes:
        manifest: Path of the manifest, once there is one.
        failure: What ended the recording before its time, or None.

    Raises:
        AuditError: When the objects or the folder will not do; nothing is wrapped then.
    """

    def __init__(
        self,
        wrapped: Wrapped,
        settings: RecordSettings,
        key: SigningKey | None,
        peers: Peers,
        *,
        resume: bool,
    ) -> None:
        if settings.keep_checkpoints and peers.size > 1:
            settings = replace(settings, keep_checkpoints=max(settings.keep_checkpoints, 2))
        self._wrapped, self._settings, self._key = wrapped, settings, key
        self._peers, self._rank = peers, peers.rank
        self._folder = RecordingFolder(settings.out, peers.rank, peers.size)
        with ExitStack() as stack:
            stack.callback(peers.close)
            with peers.collective("begin the recording"):
                stack.enter_context(self._folder.locked())
                journal = self._folder.begin(resume=resume)
                resumption = self._choose_start(journal)
                if resumption is None:
                    self._folder.clear()
                if peers.rank == 0:
                    self._folder.wait_for_ranks(settings.patience / 2)
                self._instrumented = instrument(wrapped)
                stack.callback(self._instrumented.close)
                self._begin(resumption)
                stack.callback(self._watch.close)
            self._resources = stack.pop_all()

    def log(self, numbers: Mapping[str, float]) -> None:
        """Keep numbers, of the step that is under way or the last one."""
        step = self._loop.log(numbers)
        if step is not None:
            self._writer.scalars.note(step, numbers)

    def checkpoint(self) -> None:
        """Take a checkpoint at the next boundary."""
        if self._loop.live:
            self._writer.request_checkpoint()

    def close(self, error: BaseException | None) -> None:
        """End the recording: a manifest after a clean end, what there is after any other."""
        with self._resources:
            if self.failure is not None and not self._writer.proving:
                if error is None:
                    self._peers.abort()
                return
            try:
                if error is not None:
                    self._interrupt(error)
                else:
                    self._finish()
            except Exception as problem:
                self._stop_recording(problem)

    def _choose_start(self, journal: RecordingJournal | None) -> Resumption | None:
        """From where to go on, the same in every process; None to begin anew."""
        peers, taken = self._peers, [] if journal is None else journal.checkpoints
        # A kill may have fallen between the writes of two processes.
        common = peers.common_steps([checkpoint.step for checkpoint in taken])
        if journal is None or not common:
            return None
        kept = {one.record.step: one for one in journal.kept if one.record.step in common}
        if self._settings.unproven:
            return Resumption(journal, kept[common[-1]], None)
        self._folder.read_last_trace(common[-1])  # what is broken is said, not cleared away
        rows = self._folder.read_rows(common[-1], journal)
        last = peers.least(0 if rows is None else max(rows.last_step, 0), "agree on the rows")
        start = choose_start(common, last)
        if start != common[-1]:
            rows = self._folder.read_rows(start, journal)
        if rows is None or start == last:
            return None
        if not start:
            self._warn(
                f"no row of a step after the checkpoint of step {common[0]} is on disk, so that "
                "nothing could prove a resume: the loop begins anew, and is compared with the "
                "rows before; Recorder.resume(..., unproven=True) goes on from the checkpoint"
            )
        return Resumption(journal, kept.get(start), rows.until(last))

    def _begin(self, resumption: Resumption | None) -> None:
        recipe, session = self._settings.evidence_digest, self._instrumented.session
        auditor = Auditor(1, commit_data=True, recipe=recipe, beside=True)
        fork, proof = None, None
        starts = commitments(capture_streams().leaves())
        if resumption is None:
            journal = RecordingJournal(
                self._settings.seed,
                now(),
                stream_starts=starts,
                size=self._peers.size,
                environment=environment(),
                loaders=self._instrumented.describe_loaders(),
                program=self._program_now() if self._rank == 0 else None,
                command=command_now(),
                world=self._world(),
                evidence_digest=recipe,
            )
            self._folder.write_journal(journal)
        else:
            journal = resumption.journal
            self._refuse_another_seed(journal)
            self._refuse_other_settings(journal)
            proof = Proof(resumption, self._opened_state, self._instrumented.uncaptured)
            if resumption.kept is None:
                journal = replace(
                    journal, stream_starts=starts, command=command_now(), resumed_with=()
                )
            else:
                journal = self._with_other_arguments(journal)
                fork = self._go_on_from(resumption.kept, auditor)
        self._writer = RecordingWriter(
            self._settings,
            self._folder,
            session,
            auditor,
            journal,
            resumption,
            proof,
            self._peers.collective,
        )
        self._watch = Watch(
            session.objects,
            self._instrumented.loaders,
            self._writer,
            lambda: auditor.digests,
            self._instrumented.uncaptured,
            self._warn,
            self._stop_recording,
        )
        self._loop = Loop(
            session,
            auditor,
            self._watch,
            first_step=self._writer.steps + 1,
            restore=None if fork is None else lambda: self._instrumented.restore(fork),
            needs_warmup=self._wrapped.needs_warmup,
        )
        guarded = GuardedBoundary(self._loop, self._stop_recording)
        self._attach(guarded, auditor, self._stop_recording)

    def _go_on_from(self, kept: KeptCheckpoint, auditor: Auditor) -> Fork:
        """Let loader and auditor stand where a checkpoint was taken."""
        path = self._folder.checkpoint_path(kept.record)
        # An error in one of several processes must be told to all, who agree here.
        opened = open_checkpoint(path, kept.record, at_once=self._peers.size > 1)
        with closed_on_error(opened) as fork:
            trace = self._folder.read_last_trace(kept.record.step)
            auditor.resume_from(trace, kept.components)
            auditor.resume_drawn(kept.record.drawn)
            loader = self._instrumented.loaders[""]
            loader.restore(fork.loader)
        loader.next_step = kept.record.step + 1
        loader.check = OrderCheck(trace)
        return fork

    @contextmanager
    def _opened_state(self, kept: KeptCheckpoint) -> Iterator[Mapping[str, Saved]]:
        fork = load_fork(self._folder.checkpoint_path(kept.record), what=kept.record.file)
        with closing(fork):
            yield fork.state

    def _refuse_another_seed(self, journal: RecordingJournal) -> None:
        if self._settings.seed is None:
            self._settings = replace(self._settings, seed=journal.seed)
        elif journal.seed != self._settings.seed:
            raise StoreError(
                "the unfinished recording is of another seed",
                expected=journal.seed,
                found=self._settings.seed,
                where=str(self._settings.out),
            )

    def _refuse_other_settings(self, journal: RecordingJournal) -> None:
        """A recording has one environment and one set of loaders; its second half must share it."""
        there, here = journal.environment, environment()
        lines: list[str] = []
        if there is not None:
            shared = {name: here.packages.get(name, v) for name, v in there.packages.items()}
            lines.extend(there.differences(replace(here, packages=shared)))
        if journal.loaders != self._instrumented.describe_loaders():
            lines.append("the loaders are set up in another way")
        lines.extend(sharding_differences(journal.world, self._world()))
        if journal.evidence_digest != self._settings.evidence_digest:
            lines.append(f"evidence_digest was {journal.evidence_digest}")
        if lines:
            raise RestoreMismatch(
                f"the unfinished recording ran under other settings: {lines[0]}",
                where=str(self._settings.out),
                hint="go on under the same ones, or start a new recording in another folder",
            )

    def _with_other_arguments(self, journal: RecordingJournal) -> RecordingJournal:
        """Tell, and note, that the script is resumed with other arguments than it began with."""
        command, told = command_now(), journal.resumed_with
        changes = argument_changes(journal.command, command)
        if not changes or journal.world is None:  # an earlier build noted no arguments
            return journal
        if self._rank == 0:
            _LOG.warning(
                "auditkit: the script's arguments are others than when the recording began: %s; "
                "what a checkpoint holds, such as learning rates, stays as it was",
                changes,
            )
        return (
            journal if told[-1:] == (command,) else replace(journal, resumed_with=(*told, command))
        )

    def _finish(self) -> None:
        with self._peers.collective("finish the recording"):
            self._loop.refuse_half_restored()
            if self._loop.live:
                self._watch.finish()
                self._loop.finish()
            self._writer.finish()
            result = make_rank_result(
                self._writer, self._folder, self._rank, self._instrumented.loaders
            )
            if self._rank:
                self._folder.write_result(result)
        if self._rank:
            return
        assert self._key is not None  # noqa: S101 # rank 0 has one
        patience = self._settings.patience
        others = [
            self._folder.wait_for_result(rank, patience) for rank in range(1, self._peers.size)
        ]
        results = [result, *others]
        manifest = self._manifest(results)
        envelope = sign_statement(to_statement(manifest), self._key.key)
        signer = f"{public_line(self._key.key)}\n".encode()
        self._folder.publish(manifest.files, {SIGNER_NAME: signer, MANIFEST_NAME: envelope})
        self.manifest = self._settings.out / MANIFEST_NAME

    def _manifest(self, results: list[RankResult]) -> RecordingManifest:
        objects, journal = self._wrapped.objects, self._writer.journal
        files = [file for result in results for file in result.files]
        return RecordingManifest(
            schema_version=SCHEMA_VERSION,
            producer=Producer("auditkit", __version__),
            run=RunTimes.ending(results[0].started, now()),
            seed=self._settings.seed,
            program=program_record(results[0].code, describe_objects(objects)),
            command=command_now() if journal.world is None else journal.command,
            environment=results[0].environment,
            world=self._world(),
            ranks=tuple(result.record for result in results),
            files=tuple(sorted(files, key=lambda file: file.name)),
            resumed_with=journal.resumed_with,
            sharded=states_of(self._settings.out, [result.record for result in results]),
            evidence_digest=journal.evidence_digest,
        )

    def _world(self) -> WorldRecord:
        objects = self._wrapped.objects
        modules = [objects.model, *objects.extras.values()]
        return WorldRecord(self._peers.size, self._peers.backend, parallel_settings(modules))

    def _program_now(self) -> ProgramRecord:
        """The script as it is when it begins, for whoever closes what it leaves."""
        code = user_code(self._settings.out / CODE_FOLDER, PARTIAL, main=True)
        return program_record(code, describe_objects(self._wrapped.objects))

    def _interrupt(self, error: BaseException) -> None:
        self.failure = error
        if not self._writer.proving:
            self._loop.interrupt()
        how = NEVER_CLOSED if self.never_closed else type(error).__name__
        self._writer.record_interruption(how)

    def _stop_recording(self, problem: Exception) -> None:
        """Stop recording, and warn; the loop goes on, unless its resume is wrong, or unproven."""
        self.failure = problem
        self._watch.close()
        if self._writer.must_stop:
            raise problem
        self._loop.disable()
        text = str(problem) if isinstance(problem, AuditError) else f"{problem!r}"
        self._warn(
            f"the recording stopped at step {self._loop.step}: {text}; there will be no "
            "manifest, and the training loop goes on"
        )

    @staticmethod
    def _warn(text: str) -> None:
        warnings.warn(text, RecordingStopped, stacklevel=2)
