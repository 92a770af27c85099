"""Checks 1, 2 and 3: envelope, signature, artifacts.

They ask whether the files are those that somebody whom the verifier trusts has signed, for studies
and recordings alike. What all checks of one verification share, and the report, is here, too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from auditkit.errors import ArtifactMismatch, ArtifactMissing, AuditError, UnsafePath
from auditkit.evidence.reader import SignedFolder
from auditkit.evidence.verdicts import (
    CheckResults,
    as_finding,
    exit_code_of,
    required_code,
    verdict_of,
)
from auditkit.files import artifacts
from auditkit.formats.quote import escaped
from auditkit.formats.statements import Manifest, manifest_from_statement
from auditkit.records.environment import Environment
from auditkit.records.estimate import EstimateTable
from auditkit.records.file_names import is_replay_result
from auditkit.records.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    SIGNER_NAME,
    FileRecord,
    StudyManifest,
)
from auditkit.records.report import (
    SELF_SIGNED,
    Countersignature,
    Distance,
    Finding,
    Need,
    OpenedReport,
    PlanBinding,
    StatedReplay,
    Timestamp,
    VerificationReport,
)
from auditkit.signing.envelopes import Envelope, open_envelope, pae
from auditkit.signing.keys import TrustedKey, verifies
from auditkit.signing.signatures import SignatureOutcome, check_signatures
from auditkit.signing.trust import BY_FINGERPRINT
from auditkit.verification.countersigning import is_countersignature, read_countersignatures
from auditkit.verification.crate_around import UNSIGNED, is_in_crate, other_statement
from auditkit.verification.needs import (
    MENDABLE,
    claimed_fingerprints,
    is_of_another,
    lacking_needs,
    replay_needs,
    signer_needs,
)
from auditkit.verification.request import VerifyRequest, settings_of
from auditkit.version import __version__

#: Files beside a manifest that it cannot list, because they are made from it; and every
#: countersignature and replay.
COMPANIONS = (MANIFEST_NAME, SIGNER_NAME, "CHECKLIST.md", "report.json")

#: What is wrong with a listed file, by the error that says so.
_KINDS = {
    ArtifactMismatch: "edited",
    ArtifactMissing: "missing",
    UnsafePath: "not a regular file of this folder",
}

#: Names of one kind that a line holds.
_SHOWN = 3


@dataclass(frozen=True)
class OpenedManifest:
    """A manifest's file after check 1.

    Attributes:
        path: The manifest.
        data: Its bytes.
        envelope: Them, opened; None where they are malformed.
        manifest: What was signed; None where they are malformed.
        checks: Hold the result of check 1.
    """

    path: Path
    data: bytes
    envelope: Envelope | None
    manifest: Manifest | None
    checks: CheckResults

    @property
    def statement_sha256(self) -> str | None:
        """SHA-256 of what is signed; None where it is malformed."""
        if self.envelope is None:
            return None
        return hashlib.sha256(self.envelope.payload).hexdigest()


def open_manifest(path: Path, data: bytes) -> OpenedManifest:
    """Make check 1."""
    checks = CheckResults()
    try:
        envelope = open_envelope(data, what=path.name)
        manifest = manifest_from_statement(envelope.payload, what=path.name)
    except AuditError as error:
        # Whatever is wrong with the envelope, the file is not what its name says.
        checks.add(1, [replace(as_finding(error), exit_code=5)])
        return OpenedManifest(path, data, None, None, checks)
    checks.ran(1, f"in-toto Statement v1, schema {manifest.schema_version}")
    return OpenedManifest(path, data, envelope, manifest, checks)


class Verification:
    """The state of one verification; by itself it reports check 1.

    Args:
        opened: The manifest's file.
        request: How to verify.
    """

    def __init__(self, opened: OpenedManifest, request: VerifyRequest) -> None:
        self._opened = opened
        self._request = request
        self._checks = opened.checks
        self._signer: TrustedKey | None = None
        self._replayed = "none"
        self._replay_text = "nothing was replayed"
        self._differences: tuple[str, ...] = ()
        self._environment: Environment | None = None
        self._signers: tuple[TrustedKey, ...] = ()
        self._is_own = False
        self._timestamps: tuple[Timestamp, ...] = ()
        self._distances: tuple[Distance, ...] = ()
        self._close = False
        self._plan: PlanBinding | None = None
        self._replays: tuple[StatedReplay, ...] = ()
        self._files_opened: OpenedReport | None = None
        self._lacking: tuple[str, ...] = ()

    def report(self) -> VerificationReport:
        """Make every check that can be made."""
        return self._report(None)

    def _report(self, estimates: EstimateTable | None) -> VerificationReport:
        results = self._checks.results()
        exit_code = exit_code_of(results)
        verdict = verdict_of(exit_code, replayed=self._replayed, close=self._close)
        return VerificationReport(
            verdict=verdict,
            exit_code=required_code(exit_code, verdict, self._request.require),
            manifest_sha256=hashlib.sha256(self._opened.data).hexdigest(),
            statement_sha256=self._opened.statement_sha256,
            signed_by=self._signer.fingerprint if self._signer else None,
            trust=self._trust_text(),
            replay=self._replay_text,
            checks=results,
            estimates=estimates,
            environment_differences=self._differences,
            environment=self._environment,
            distances=self._distances,
            countersignatures=self._countersignatures(),
            timestamps=self._timestamps,
            plan=self._plan,
            replays=self._replays,
            settings=settings_of(self._request, self._opened.manifest),
            opened=self._files_opened,
            needs=tuple(self._needs()) if exit_code in MENDABLE else (),
            schema="report",
            schema_version=SCHEMA_VERSION,
            auditkit=__version__,
        )

    def _needs(self) -> Iterator[Need]:
        """Everything that a reader has to give for the checks that were refused."""
        request, manifest, own = self._request, self._opened.manifest, self._is_own
        envelope = self._opened.envelope
        if self._signer is None and envelope is not None:
            if is_of_another(envelope, request.fingerprints):
                return  # nothing that could be added makes it the key of these files
            claimed = claimed_fingerprints(envelope, request.trusted)
            aside = {key.fingerprint: key for key in request.set_aside}
            folder = self._opened.path.parent
            wanted = claimed[: request.threshold]
            yield from signer_needs(folder, wanted, list(aside), named=request.named)
            own = bool(claimed) and all(name in aside and aside[name].own for name in claimed)
        is_study = isinstance(manifest, StudyManifest) and not manifest.program.command
        if isinstance(manifest, StudyManifest) and is_study and request.replay != "none":
            allowed = request.allow_code or own
            ran = self._replayed != "none"
            given = list(request.arguments)
            needs = list(replay_needs(manifest, given, allowed=allowed, ran=ran))
            yield from needs
            known = {need.option for need in needs}
            yield from lacking_needs([name for name in self._lacking if name not in known])

    def _countersignatures(self) -> tuple[Countersignature, ...]:
        folder, statement = self._opened.path.parent, self._opened.statement_sha256
        if statement is None:
            return ()
        trusted = self._request.trusted
        return tuple(read_countersignatures(folder, statement, trusted, self._signers))

    def _check_signature(self) -> None:
        """Make check 2."""
        if self._opened.envelope is None:
            return
        request, envelope = self._request, self._opened.envelope
        try:
            outcome = check_signatures(
                envelope, request.trusted, request.threshold, request.fingerprints
            )
        except AuditError as error:
            self._checks.add(2, [as_finding(error)])
            return
        self._signer, self._signers = outcome.signer, outcome.signers
        self._is_own = is_own(outcome)
        names = ", ".join(key.label for key in outcome.signers)
        self._checks.ran(2, f"signed by {names}")
        if self._came_with_the_files:
            self._checks.warn(2, "that key came with the files: whoever made them chose it")
        self._check_timestamps(envelope)

    def _check_timestamps(self, envelope: Envelope) -> None:
        """Timestamps of the trusted signatures, under the authorities that were named."""
        check = self._request.authorities.check
        if check is None:
            return
        message = pae(envelope.payload, envelope.payload_type)
        found: list[Timestamp] = []
        wrong: list[AuditError] = []
        for signature in envelope.signatures:
            if any(verifies(key.public_key, signature.value, message) for key in self._signers):
                for reply in signature.timestamps:
                    try:
                        found.append(check(reply, signature.value))
                    except AuditError as error:
                        wrong.append(error)
        self._timestamps = tuple(found)
        # Anybody can append a stamp to a file: a bad one takes nothing from a good one.
        if found or not wrong:
            for bad in wrong:
                self._checks.warn(2, f"a timestamp that does not count: {as_finding(bad)}")
        else:
            self._checks.add(2, map(as_finding, wrong))
        if not found and not wrong:
            self._checks.warn(2, "the study's own signature carries no timestamp")

    def _check_artifacts(self, run: SignedFolder) -> None:
        """Make check 3; what was read and found intact is not read once more."""
        checks, total = self._checks, 0
        wrong = dict.fromkeys((*_KINDS.values(), "unreadable", "not listed"), 0)
        for file in run.manifest.files:
            found = None if file in run.intact else _examine(run.root, file)
            if found is None:
                total += file.size
            else:
                wrong[found[0]] += 1
                checks.add(3, [found[1]])
        survey = artifacts.survey(run.root)
        listed = {file.name for file in run.manifest.files}
        unlisted = [
            escaped(name) for name in survey.names if name not in listed and not is_companion(name)
        ]
        if self._request.strict:
            wrong["not listed"] = len(unlisted)
            checks.add(3, (Finding("the manifest lists no such file", name) for name in unlisted))
        elif unlisted:
            checks.warn(3, f"{_some(unlisted)}: {_lies(unlisted)} listed")
        self._check_survey(survey)
        self._check_crate(run.root)
        checks.ran(3, f"{len(listed)} files, {total:,} bytes")
        checks.sum_up(3, _counted_files(wrong))

    def _check_survey(self, survey: artifacts.Survey) -> None:
        """What of the folder could not be looked at: no matter for the files that are listed."""
        texts = []
        if survey.unread:
            texts.append(
                f"{_some([escaped(name) or '.' for name in survey.unread])}: not looked into"
            )
        if not survey.is_whole:
            texts.append(f"more than {artifacts.MAX_SURVEYED:,} entries: not all were looked at")
        for text in texts:
            if self._request.strict:
                self._checks.add(3, [Finding(text)])
            else:
                self._checks.warn(3, text)

    def _check_crate(self, root: Path) -> None:
        """What an RO-Crate says of the run: anybody can have written it."""
        if self._opened.envelope is None or not is_in_crate(root):
            return
        self._checks.warn(3, UNSIGNED)
        text = other_statement(root, self._opened.envelope.payload)
        if text is not None and self._request.strict:
            self._checks.add(3, [Finding(text)])
        elif text is not None:
            self._checks.warn(3, text)

    def _trust_text(self) -> str:
        if self._signer is None:
            return "not established, see check 2"
        source = Path(self._signer.source)
        if self._signer.own and source.name == "allowed_signers":
            return SELF_SIGNED
        own = ", which came with the files" if self._came_with_the_files else ""
        return f"trusted by {source.name}{own}"

    @property
    def _came_with_the_files(self) -> bool:
        """Whether the signer's key was read from the very folder that it is to vouch for."""
        if self._signer is None or self._signer.source == BY_FINGERPRINT:
            return False
        if not self._request.named:  # this machine's own trust, wherever the run lies
            return False
        folder = Path(os.path.realpath(self._opened.path.parent))
        return Path(os.path.realpath(self._signer.source)).is_relative_to(folder)


def _examine(root: Path, file: FileRecord) -> tuple[str, Finding] | None:
    """What is wrong with a listed file, as a word and as a finding; None where nothing is."""
    try:
        found = artifacts.file_sha256(root, file.name, expected_size=file.size)
    except AuditError as error:
        kind = next((word for cls, word in _KINDS.items() if isinstance(error, cls)), "unreadable")
        return kind, replace(as_finding(error), exit_code=1)
    if found == file.sha256:
        return None
    return "edited", Finding(f"sha256 is {found}, the manifest says {file.sha256}", file.name)


def _counted_files(wrong: Mapping[str, int]) -> str:
    """For example ``2 files edited, 1 missing``."""
    counts = [f"{n} {kind}" for kind, n in wrong.items() if n]
    if not counts:
        return ""
    n, _, rest = counts[0].partition(" ")
    return ", ".join([f"{n} file{'' if n == '1' else 's'} {rest}", *counts[1:]])


def _some(names: Sequence[str]) -> str:
    """The first names of many."""
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")


def _lies(names: Sequence[str]) -> str:
    return "lies here but is not" if len(names) == 1 else "lie here but are not"


def is_companion(name: str) -> bool:
    """Whether a file may lie beside a manifest that does not list it."""
    return name in COMPANIONS or is_countersignature(name) or is_replay_result(name)


def is_own(outcome: SignatureOutcome) -> bool:
    """Whether every signature is the verifier's own: only then is the code its own, too.

    A signature that was added to somebody else's study is no consent to execute it.
    """
    return not outcome.untrusted and all(key.own for key in outcome.signers)
