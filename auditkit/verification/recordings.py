"""Verify a recording: checks 1 to 5, and what a signed replay says for check 8.

A recording's own command is never run here. ``auditkit replay`` runs it and leaves a signed
``replay.json`` beside the manifest; it counts if the verifier trusts the key that signed it.
"""

from __future__ import annotations

from dataclasses import replace

from auditkit.errors import ArtifactMismatch, ArtifactMissing, AuditError
from auditkit.evidence.reader import RecordingEvidence
from auditkit.evidence.verdicts import NOT_APPLICABLE, as_finding
from auditkit.files import store
from auditkit.formats import canonical
from auditkit.formats.statements import record_from_statement
from auditkit.records.recording import RecordingManifest
from auditkit.records.replaying import REPLAY_NAME, ReplayReport
from auditkit.records.report import Finding, VerificationReport
from auditkit.signing.signatures import check_signatures, open_envelope
from auditkit.verification import recording_checks
from auditkit.verification.authenticity import (
    Opened,
    Verification,
    VerifyRequest,
    environment_lines,
)

_WITHOUT_REPLAY = "`auditkit replay MANIFEST -- COMMAND` re-executes a recording"


class RecordingVerification(Verification):
    """The state of the verification of a recording.

    Args:
        opened: The manifest's file.
        request: How to verify; what it says of replay is for studies.
        recording: The recording.
    """

    def __init__(
        self, opened: Opened, request: VerifyRequest, recording: RecordingEvidence
    ) -> None:
        super().__init__(opened, request)
        self._recording = recording

    def report(self) -> VerificationReport:
        """Make every check that can be made."""
        self._signature()
        self._artifacts(self._recording)
        self._content()
        self._replay()
        for number in (6, 7, 9, 10):
            self._ledger.skip(number, NOT_APPLICABLE)
        return self._report(None)

    def _content(self) -> None:
        manifest = self._recording.manifest
        self._ledger.add(4, recording_checks.check_recording(self._recording))
        self._ledger.add(5, recording_checks.check_streams(manifest))
        if not manifest.program.code:
            self._ledger.warn(4, "no source was recorded: the loop ran from no file")
        for warning in recording_checks.twin_ranks(manifest):
            self._ledger.warn(5, warning)
        n_streams = sum(len(rank.rng.streams) for rank in manifest.ranks)
        n_checkpoints = sum(len(rank.checkpoints) for rank in manifest.ranks)
        who = _processes(len(manifest.ranks))
        steps = f"steps 1..{manifest.ranks[0].steps}"
        self._ledger.ran(4, f"{steps} of {who}, {_counted(n_checkpoints, 'checkpoint')}")
        self._ledger.ran(5, f"{_counted(n_streams, 'stream')} of {who}")

    def _replay(self) -> None:
        try:
            found = self._read_replay()
        except AuditError as error:
            self._ledger.warn(8, f"a replay that does not count: {as_finding(error)}")
            found = None
        if found is None:
            self._ledger.skip(8, _WITHOUT_REPLAY)
            return
        replay, signer = found
        recorded = self._recording.manifest
        self._differences = environment_lines(recorded.environment, replay.environment)
        span = f"steps {replay.first_step}..{replay.last_step} of {_processes(replay.ranks)}"
        if replay.findings:
            # Only these two codes mean something here: what differs, and what cannot be decided.
            codes = [
                finding.exit_code if finding.exit_code == 6 else 1 for finding in replay.findings
            ]
            self._ledger.add(8, map(_with_code, replay.findings, codes))
            self._replay_text = f"{span} re-executed, with differences, signed by {signer}"
        elif not _is_possible(replay, recorded):
            most = max(rank.steps for rank in recorded.ranks)
            text = (
                f"says that {span} were equal; the recording has steps 1..{most} of "
                f"{_processes(len(recorded.ranks))}"
            )
            self._ledger.add(8, [Finding(text, REPLAY_NAME)])
        elif not _is_whole(replay, recorded):
            self._replay_text = f"only {span} re-executed, and equal, signed by {signer}"
            self._ledger.warn(8, self._replay_text)
            self._ledger.skip(8, f"in part; {_WITHOUT_REPLAY}")
        else:
            steps = _counted(replay.last_step, "step")
            self._replay_text = (
                f"re-executed with the user's command: {steps} equal, signed by {signer}"
            )
            self._replayed = "all"
            self._ledger.ran(8, self._replay_text)

    def _read_replay(self) -> tuple[ReplayReport, str] | None:
        """The replay beside the manifest and who signed it; None where there is none.

        Raises:
            AuditError: When it does not count.
        """
        root = self._recording.root
        try:
            data = store.safe_read(root, REPLAY_NAME, max_bytes=canonical.MAX_BYTES)
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
