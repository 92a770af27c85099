"""Verify a recording: checks 1 to 5, and what a signed replay says for check 8.

A recording's own command is never run here. ``auditkit replay`` runs it and leaves a signed result
beside the manifest. It counts for the recording if the verifier trusts the key that signed it, and
nobody who signed the recording holds that key (:mod:`auditkit.verification.replay_results`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from auditkit.errors import AuditError
from auditkit.evidence.comparison import environment_differences
from auditkit.evidence.reader import RecordingEvidence
from auditkit.evidence.verdicts import NOT_APPLICABLE, as_finding
from auditkit.files.checkpoint_files import lying_there
from auditkit.formats.scalar_file import scalars_from_tensors
from auditkit.formats.snapshot_file import UNTRACED
from auditkit.records.evidence import CONSUMED, is_consumed
from auditkit.records.recording import TRACE_STEPS, RankRecord, RecordingManifest
from auditkit.records.report import Finding, VerificationReport
from auditkit.records.rng import UNSEEDED, StreamContract
from auditkit.verification.authenticity import OpenedManifest, Verification
from auditkit.verification.consistency import check_listing
from auditkit.verification.recording_traces import check_chunks, place
from auditkit.verification.replay_results import (
    AGAINST,
    AUTHOR_SAYS,
    JudgedReplay,
    Readers,
    processes,
    read_replays,
)
from auditkit.verification.request import VerifyRequest
from auditkit.verification.rng_contract import GLOBAL_STREAMS, check_uncovered
from auditkit.verification.sharded_states import check_sharded, sharded_note

#: Settings without which nobody could tell why a replay differs.
_SETTINGS = ("torch threads", "deterministic algorithms")
_WITHOUT_REPLAY = "`auditkit replay MANIFEST -- COMMAND` re-executes a recording"


class RecordingVerification(Verification):
    """The state of the verification of a recording.

    Args:
        opened: The manifest's file.
        request: How to verify; what it says of replay is for studies.
        recording: The recording.
    """

    def __init__(
        self, opened: OpenedManifest, request: VerifyRequest, recording: RecordingEvidence
    ) -> None:
        super().__init__(opened, request)
        self._recording = recording
        note = recording.manifest.evidence_note
        self._recipe = f"; {note}" if note else ""

    def report(self) -> VerificationReport:
        """Make every check that can be made."""
        self._check_signature()
        self._check_artifacts(self._recording)
        self._check_content()
        self._check_replay()
        for number in (6, 7, 9, 10):
            self._checks.skip(number, NOT_APPLICABLE)
        return self._report(None)

    def _check_content(self) -> None:
        """Make checks 4 and 5."""
        manifest = self._recording.manifest
        self._checks.add(4, check_recording(self._recording))
        self._checks.add(5, check_rank_streams(manifest))
        if not manifest.program.code:
            self._checks.warn(4, "no source was recorded: the loop ran from no file")
        for warning in duplicate_ranks(manifest):
            self._checks.warn(5, warning)
        n_streams = sum(len(rank.rng.streams) for rank in manifest.ranks)
        n_checkpoints = sum(len(rank.checkpoints) for rank in manifest.ranks)
        if manifest.closed_as is not None:
            self._checks.warn(4, f"closed afterwards, from what was left: {manifest.closed_as}")
        for rank in manifest.ranks:
            for warning in self._lost(rank):
                self._checks.warn(4, f"{place(rank)}: {warning}")
        who = processes(len(manifest.ranks))
        steps = f"steps 1..{manifest.ranks[0].steps}"
        resumed = [(place(r), *one) for r in manifest.ranks for one in r.resumptions if one[1]]
        for where, step, proof in resumed:
            if proof == "not proven":
                self._checks.warn(4, f"{where}: resumed after step {step}, not proven")
        text = f"{steps} of {who}, {_counted(n_checkpoints, 'checkpoint')}{self._recipe}"
        for step, proof in dict.fromkeys((step, proof) for _, step, proof in resumed):
            text += f", resumed after step {step} ({proof})"
        self._checks.ran(4, f"{text}{sharded_note(manifest)}")
        self._checks.ran(5, f"{_counted(n_streams, 'stream')} of {who}")

    def _lost(self, rank: RankRecord) -> Iterator[str]:
        """What is said of checkpoints that were given up when the recording was closed.

        A file may have been put back since, so that one that lies there is no contradiction.
        """
        here = lying_there(self._recording.root, rank.lost_checkpoints)
        gone = tuple(one for one in rank.lost_checkpoints if one not in here)
        for lost, what in (
            (gone, "no file of the checkpoints {} any more; what they held"),
            (
                here,
                "called lost, and there all the same: the checkpoints {}; what their files hold",
            ),
        ):
            if lost:
                note = replace(rank, lost_checkpoints=lost).lost_note
                yield f"{what.format(note)} is compared with nothing"

    def _check_replay(self) -> None:
        """Make check 8, from what signed replays say."""
        found, unread = self._read_replays()
        counted = [judged for judged in found if judged.stated.counts]
        against = [judged for judged in counted if judged.stated.says in AGAINST]
        equal = [judged for judged in counted if judged.stated.says == "equal"]
        if unread:
            self._checks.warn(8, f"{unread} more files are named as replays and were not read")
        if against:
            # A good replay does not outweigh a bad one: what is right once in two is not shown.
            beside = f"; {len(equal)} found everything equal" if equal else ""
            self._conclude(against, beside)
        elif equal:
            self._replayed = "all"
            self._conclude(equal)
            self._checks.ran(8, f"{self._replay_text}{self._recipe}")
        elif counted:
            self._conclude(counted)
            self._checks.skip(8, f"in part; {_WITHOUT_REPLAY}")
        elif own := [judged for judged in found if judged.stated.by_author]:
            self._replay_text = f"by nobody else; {own[0].stated.remark}"
            self._checks.skip(8, f"only {AUTHOR_SAYS}; by somebody else, {_WITHOUT_REPLAY}")
        else:
            self._checks.skip(8, _WITHOUT_REPLAY)

    def _read_replays(self) -> tuple[list[JudgedReplay], int]:
        trusted, statement = self._request.trusted, self._opened.statement_sha256
        readers = Readers(trusted, self._signers, statement)
        found, unread = read_replays(self._recording.root, self._recording.manifest, readers)
        self._replays = tuple(judged.stated for judged in found)
        for stated in self._replays:
            if not stated.counts or stated.says == "in part":
                self._checks.warn(8, f"{stated.file}: {stated.remark}")
        return found, unread

    def _conclude(self, replays: Sequence[JudgedReplay], beside: str = "") -> None:
        """Let check 8 rest on some replays; the first gives the words."""
        recorded = self._recording.manifest.environment
        environments = [judged.result.environment for judged in replays if judged.result]
        self._differences = environment_differences(recorded, *environments)
        for judged in replays:
            self._checks.add(8, judged.findings)
        first, *others = replays
        who = first.stated.signed_by
        more = f", and {_counted(len(others), 'more replay')} like it" if others else ""
        self._replay_text = f"{first.stated.remark}, signed by {who}{more}{beside}"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


# Checks 4 and 5, but for what is in the traces


def check_recording(evidence: RecordingEvidence) -> Iterator[Finding]:
    """Check 4: files, ranks, chunks, checkpoints and settings agree."""
    manifest = evidence.manifest
    yield from check_listing(manifest.files, _used(manifest), manifest.program.code)
    yield from _check_world(manifest)
    for name in _SETTINGS:
        if name not in manifest.environment.determinism:
            yield Finding(f"the environment does not say {name!r}", "environment")
    for rank in manifest.ranks:
        yield from _check_rank(rank)
        yield from _check_scalars(evidence, rank)
    yield from check_chunks(evidence)
    yield from check_sharded(evidence)


def _check_scalars(evidence: RecordingEvidence, rank: RankRecord) -> Iterator[Finding]:
    """What a loop logged is readable, and of steps that there are; its values nobody can judge."""
    if rank.scalars is None:
        return
    try:
        scalars = scalars_from_tensors(evidence.tensors(rank.scalars)[0], what=rank.scalars)
    except AuditError as error:
        yield as_finding(error)
        return
    for name, series in scalars.items():
        if series.steps[-1] > rank.steps + 1:
            yield Finding(f"{name!a} is of a step that was not taken", rank.scalars)


def check_rank_streams(manifest: RecordingManifest) -> Iterator[Finding]:
    """Check 5: every rank's contract is whole."""
    for rank in manifest.ranks:
        where = place(rank)
        names = [stream.stream for stream in rank.rng.streams]
        if len(set(names)) != len(names):
            yield Finding("a stream is listed twice", where, component="rng")
        wanted = {name for name in rank.components if name.startswith("rng/")}
        listed = {name for name in names if name.startswith("rng/")}
        for name in sorted(wanted ^ listed):
            problem = "is missing from the contract" if name in wanted else "is in no component"
            yield Finding(f"the stream {problem}", where, component=name)
        streams = {stream.stream: stream for stream in rank.rng.streams}
        for name in GLOBAL_STREAMS:
            yield from _check_ends(
                streams.get(name), where, name, closed=manifest.closed_as is not None
            )
        for name in sorted(listed):
            if streams[name].end != rank.final.get(name):
                text = "the contract's end is not the rank's final state"
                yield Finding(text, where, rank.steps + 1, name)
        if rank.rng.recipe != UNSEEDED:
            yield Finding("a recording seeds nothing", where, None, "rng")
        for stream in rank.rng.streams:
            if stream.seed is not None or stream.fork is not None:
                yield Finding("a recording seeds and forks nothing", where, None, stream.stream)
        yield from check_uncovered(rank.rng, where)


def duplicate_ranks(manifest: RecordingManifest) -> Iterator[str]:
    """Warnings of check 5: ranks that may have trained on the same samples."""
    seen: dict[tuple[str | None, str], int] = {}
    for rank in manifest.ranks:
        starts = {stream.stream: stream.start for stream in rank.rng.streams}
        drawn = (starts.get("rng/torch"), rank.order_sha256)
        if drawn in seen:
            yield (
                f"ranks {seen[drawn]} and {rank.rank} start from the same rng/torch and consumed "
                "the same samples: each may have trained on all of the data"
            )
        else:
            seen[drawn] = rank.rank


def _check_ends(
    stream: StreamContract | None, where: str, name: str, *, closed: bool
) -> Iterator[Finding]:
    """Where it started and ended; where a process that died ended nobody committed to."""
    if stream is None:
        yield Finding("the contract lacks the stream", where, component=name)
    elif stream.start is None or (stream.end is None and not closed):
        yield Finding("the contract does not say where it started and ended", where, None, name)


def _used(manifest: RecordingManifest) -> Iterator[tuple[str, str]]:
    """Name and role of every file that the manifest refers to, besides code."""
    for rank in manifest.ranks:
        yield from ((name, "trace") for name in rank.traces)
        yield from ((checkpoint.file, "checkpoint") for checkpoint in rank.checkpoints)
        if rank.scalars is not None:
            yield rank.scalars, "scalars"


def _check_world(manifest: RecordingManifest) -> Iterator[Finding]:
    ranks, size = manifest.ranks, manifest.world.size
    if [rank.rank for rank in ranks] != list(range(size)):
        numbers = ", ".join(str(rank.rank) for rank in ranks[:8])
        yield Finding(f"ranks are {numbers}; the world has {size}, from 0", "world")
    if size > 1 and manifest.world.backend is None:
        yield Finding(f"{size} processes without a backend", "world")
    for rank in ranks[1:]:
        if rank.steps != ranks[0].steps:
            yield Finding(
                f"took {rank.steps} steps, rank {ranks[0].rank} took {ranks[0].steps}", place(rank)
            )
    for rank in ranks:
        if rank.lost_checkpoints and manifest.closed_as is None:
            yield Finding("lost checkpoints, and was not closed afterwards", place(rank))


def _check_rank(rank: RankRecord) -> Iterator[Finding]:
    where = place(rank)
    if rank.steps < 1:
        yield Finding("no steps were recorded", where)
    if rank.epochs < 1:
        yield Finding(f"{rank.epochs} epochs, in which nothing was consumed", where)
    n_chunks = max(-(-rank.steps // TRACE_STEPS), 1)
    if len(rank.traces) != n_chunks:
        yield Finding(f"{len(rank.traces)} trace files for {rank.steps} steps", where)
    if len(set(rank.components)) != len(rank.components):
        yield Finding("a component is listed twice", where)
    if list(rank.components) != sorted(rank.components):
        yield Finding("the list of components is not in the order of their names", where)
    for name in (*CONSUMED, "params"):
        if name not in rank.components:
            yield Finding("there is no such component", where, component=name)
    loaders = {name.partition("/")[2] for name in rank.components if is_consumed(name)}
    for name in sorted(loaders - set(rank.loaders)):
        yield Finding(f"nothing is said of the loader {name!r}", where)
    yield from _check_checkpoints(rank)


def _check_checkpoints(rank: RankRecord) -> Iterator[Finding]:
    where = place(rank)
    taken = (*rank.checkpoints, *rank.lost_checkpoints)
    kept, lost = ([one.step for one in ones] for ones in (rank.checkpoints, rank.lost_checkpoints))
    is_ordered = kept == sorted(set(kept)) and lost == sorted(set(lost))
    if not is_ordered or {*kept} & {*lost} or any(step > rank.steps for step in kept + lost):
        yield Finding("checkpoints are not in the order of their steps", where)
    yield from _check_resumptions(rank)
    ends = {0: rank.initial, rank.steps: rank.final}
    for checkpoint in taken:
        committed = ends.get(checkpoint.step)
        if committed is None:
            continue
        traced = {
            name: v
            for name, v in checkpoint.digests.items()
            if name.partition("/")[0] not in UNTRACED
        }
        for name in sorted(set(traced) | set(committed)):
            if traced.get(name) != committed.get(name):
                text = "the rank's commitment is of another state"
                yield Finding(text, checkpoint.file, checkpoint.step, name)


def _check_resumptions(rank: RankRecord) -> Iterator[Finding]:
    """A recording is gone on with from a checkpoint, and the latest ones are kept."""
    where, resumed = place(rank), list(rank.resumed_at)
    kept = {one.step for one in (*rank.checkpoints, *rank.lost_checkpoints)}
    if resumed != sorted(resumed) or any(not 1 <= step <= rank.steps for step in resumed):
        yield Finding("resumptions are not in the order of their steps", where)
    if rank.proven_by and len(rank.proven_by) != len(resumed):
        yield Finding("not every resumption says how many rows proved it", where)
    for step, rows in zip(resumed, rank.proven_by, strict=False):
        if step + rows > rank.steps:
            yield Finding(f"proven by {rows} rows, more than there are", where, step)
    for step in dict.fromkeys(resumed):
        # Checkpoints that were not kept are earlier than all that were; one is always kept.
        if step not in kept and step > min(kept, default=0):
            yield Finding("resumed where there is no checkpoint", where, step)
