"""Verify a recording: checks 1 to 5, and what a signed replay says for check 8.

A recording's own command is never run here. ``auditkit replay`` runs it and leaves a signed
``replay.json`` beside the manifest; it counts if the verifier trusts the key that signed it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from auditkit.errors import ArtifactMismatch, ArtifactMissing, AuditError
from auditkit.evidence.comparison import environment_differences
from auditkit.evidence.reader import RecordingEvidence
from auditkit.evidence.verdicts import NOT_APPLICABLE, as_finding
from auditkit.files import artifacts
from auditkit.formats import canonical
from auditkit.formats.snapshot_file import UNTRACED
from auditkit.formats.statements import record_from_statement
from auditkit.records.evidence import CONSUMED, is_consumed
from auditkit.records.recording import TRACE_STEPS, RankRecord, RecordingManifest
from auditkit.records.report import REPLAY_NAME, Finding, ReplayReport, VerificationReport
from auditkit.records.rng import UNSEEDED, StreamContract
from auditkit.signing.envelopes import open_envelope
from auditkit.signing.signatures import check_signatures
from auditkit.verification.authenticity import OpenedManifest, Verification, VerifyRequest
from auditkit.verification.consistency import check_listing
from auditkit.verification.recording_traces import check_chunks, place
from auditkit.verification.rng_contract import GLOBAL_STREAMS, check_uncovered

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
        who = _processes(len(manifest.ranks))
        steps = f"steps 1..{manifest.ranks[0].steps}"
        self._checks.ran(4, f"{steps} of {who}, {_counted(n_checkpoints, 'checkpoint')}")
        self._checks.ran(5, f"{_counted(n_streams, 'stream')} of {who}")

    def _check_replay(self) -> None:
        """Make check 8, from what a signed replay says."""
        try:
            found = self._read_replay()
        except AuditError as error:
            self._checks.warn(8, f"a replay that does not count: {as_finding(error)}")
            found = None
        if found is None:
            self._checks.skip(8, _WITHOUT_REPLAY)
            return
        replay, signer = found
        recorded = self._recording.manifest
        self._differences = environment_differences(recorded.environment, replay.environment)
        span = f"steps {replay.first_step}..{replay.last_step} of {_processes(replay.ranks)}"
        if replay.findings:
            # Only these two codes mean something here: what differs, and what cannot be decided.
            codes = [
                finding.exit_code if finding.exit_code == 6 else 1 for finding in replay.findings
            ]
            self._checks.add(8, map(_with_code, replay.findings, codes))
            self._replay_text = f"{span} re-executed, with differences, signed by {signer}"
        elif not _is_possible(replay, recorded):
            most = max(rank.steps for rank in recorded.ranks)
            text = (
                f"says that {span} were equal; the recording has steps 1..{most} of "
                f"{_processes(len(recorded.ranks))}"
            )
            self._checks.add(8, [Finding(text, REPLAY_NAME)])
        elif not _is_whole(replay, recorded):
            self._replay_text = f"only {span} re-executed, and equal, signed by {signer}"
            self._checks.warn(8, self._replay_text)
            self._checks.skip(8, f"in part; {_WITHOUT_REPLAY}")
        else:
            steps = _counted(replay.last_step, "step")
            self._replay_text = (
                f"re-executed with the user's command: {steps} equal, signed by {signer}"
            )
            self._replayed = "all"
            self._checks.ran(8, self._replay_text)

    def _read_replay(self) -> tuple[ReplayReport, str] | None:
        """The replay beside the manifest and who signed it; None where there is none.

        Raises:
            AuditError: When it does not count.
        """
        root = self._recording.root
        try:
            data = artifacts.safe_read(root, REPLAY_NAME, max_bytes=canonical.MAX_BYTES)
        except ArtifactMissing:
            return None
        envelope = open_envelope(data, what=REPLAY_NAME)
        signer = check_signatures(envelope, self._request.trusted).signer
        replay = record_from_statement(ReplayReport, envelope.payload, what=REPLAY_NAME)
        own = self._opened.statement_sha256
        if replay.statement_sha256 != own:
            raise ArtifactMismatch(
                "about another manifest",
                expected=own,
                found=replay.statement_sha256,
                where=REPLAY_NAME,
            )
        return replay, signer.fingerprint


def _is_whole(replay: ReplayReport, recorded: RecordingManifest) -> bool:
    """Whether every step of every process was compared."""
    steps = max(rank.steps for rank in recorded.ranks)
    is_every_step = (replay.first_step, replay.last_step) == (1, steps)
    return is_every_step and replay.ranks == recorded.world.size == len(recorded.ranks)


def _is_possible(replay: ReplayReport, recorded: RecordingManifest) -> bool:
    """Whether there is what is said to have been compared; nothing at all may have been."""
    steps = max(rank.steps for rank in recorded.ranks)
    is_range = replay.first_step <= replay.last_step + 1 and replay.last_step <= steps
    return is_range and replay.ranks <= len(recorded.ranks)


def _with_code(finding: Finding, code: int) -> Finding:
    return replace(finding, exit_code=code)


def _processes(number: int) -> str:
    return f"{number} process{'' if number == 1 else 'es'}"


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
    yield from check_chunks(evidence)


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
            yield from _check_ends(streams.get(name), where, name)
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


def _check_ends(stream: StreamContract | None, where: str, name: str) -> Iterator[Finding]:
    if stream is None:
        yield Finding("the contract lacks the stream", where, component=name)
    elif stream.start is None or stream.end is None:
        yield Finding("the contract does not say where it started and ended", where, None, name)


def _used(manifest: RecordingManifest) -> Iterator[tuple[str, str]]:
    """Name and role of every file that the manifest refers to, besides code."""
    for rank in manifest.ranks:
        yield from ((name, "trace") for name in rank.traces)
        yield from ((checkpoint.file, "checkpoint") for checkpoint in rank.checkpoints)


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


def _check_rank(rank: RankRecord) -> Iterator[Finding]:
    where = place(rank)
    if rank.steps < 1:
        yield Finding("no steps were recorded", where)
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
    steps = [checkpoint.step for checkpoint in rank.checkpoints]
    if steps != sorted(set(steps)) or any(step > rank.steps for step in steps):
        yield Finding("checkpoints are not in the order of their steps", where)
    resumed = list(rank.resumed_at)
    if resumed != sorted(resumed) or any(step > rank.steps for step in resumed):
        yield Finding("resumptions are not in the order of their steps", where)
    ends = {0: rank.initial, rank.steps: rank.final}
    for checkpoint in rank.checkpoints:
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
