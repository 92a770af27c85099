"""Run a recorded study again on this machine, and compare the two."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from auditkit.engines.spec import EngineSpec
from auditkit.errors import ArtifactMismatch
from auditkit.evidence.comparison import Mismatch, environment_differences
from auditkit.evidence.founding import BranchSide, Shared, unfounded
from auditkit.evidence.reader import RunEvidence
from auditkit.files import store
from auditkit.formats import canonical
from auditkit.formats.statements import study_from_statement
from auditkit.records.agreement import ReproductionReport
from auditkit.records.job import ProgramSource
from auditkit.records.manifest import CODE_FOLDER, BranchRecord, StudyManifest
from auditkit.replay.study_replay import copy_code
from auditkit.signing.envelopes import Envelope, open_envelope
from auditkit.signing.trust import SigningKey
from auditkit.statistics.agreement import compare
from auditkit.statistics.estimands import estimate
from auditkit.study.request import StudyRequest, script_source
from auditkit.study.runner import Warn, run_study
from auditkit.study.seed_runs import Report
from auditkit.verification.branch_tables import estimates
from auditkit.verification.several_forks import fork_runs


@dataclass(frozen=True)
class ReproductionRequest:
    """How to run a recorded study again.

    Attributes:
        out: Folder of the new study.
        arguments: Arguments of the factory that replace recorded ones.
        jobs: Processes at work at the same time.
        resume: Whether to finish an interrupted reproduction.
        command: The user's own command, for the study of a script.
        engine: Has the jobs done on other machines (:mod:`auditkit.engines`); None for here.
    """

    out: Path
    arguments: Mapping[str, str]
    jobs: int
    resume: bool = False
    command: tuple[str, ...] = ()
    engine: EngineSpec | None = None


@dataclass(frozen=True)
class VerifiedStudy:
    """A study whose manifest is the very one that was verified.

    Attributes:
        run: Its folder and manifest.
        manifest_sha256: SHA-256 of the manifest file.
        envelope: Who signed it.
    """

    run: RunEvidence
    manifest_sha256: str
    envelope: Envelope


def read_study(path: Path, verified_sha256: str) -> VerifiedStudy:
    """Read the manifest of a study again, after it was verified.

    Args:
        path: The manifest.
        verified_sha256: SHA-256 of the bytes that were verified.

    Raises:
        ArtifactMismatch: When these are other bytes, which nobody verified.
        AuditError: When it cannot be read, or is no study.
    """
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
    found = hashlib.sha256(data).hexdigest()
    if found != verified_sha256:
        raise ArtifactMismatch(
            "the manifest changed after it was verified",
            expected=verified_sha256,
            found=found,
            where=path.name,
        )
    envelope = open_envelope(data, what=path.name)
    manifest = study_from_statement(envelope.payload, what=path.name)
    return VerifiedStudy(RunEvidence(path.parent, manifest), found, envelope)


def rerun_study(
    run: RunEvidence,
    request: ReproductionRequest,
    key: SigningKey,
    report: Report = lambda _: None,
    warn: Warn = lambda _: None,
) -> Path:
    """Run the plan of a study again, from the recorded sources, into a manifest of its own.

    Args:
        run: The study, whose files passed checks 1 to 3.
        request: How.
        key: What to sign with.
        report: Called with progress.
        warn: Called with what is no error, but will not verify.

    Returns:
        Path of the new manifest.

    Raises:
        AuditError: Whatever went wrong.
    """
    manifest, program = run.manifest, run.manifest.program
    with tempfile.TemporaryDirectory(prefix="auditkit-reproduce-") as scratch:
        if request.command:
            source = script_source(request.command, manifest.plan, Path.cwd())
        else:
            copy_code(run, Path(scratch))
            arguments = {**program.arguments, **request.arguments}
            source = ProgramSource(program.target, str(Path(scratch) / CODE_FOLDER), arguments)
        study = StudyRequest(
            *(source, manifest.plan, request.out, request.jobs, request.resume, request.command),
            engine=request.engine,
        )
        return run_study(study, key, report, warn)


def compare_studies(recorded: VerifiedStudy, reproduced: VerifiedStudy) -> ReproductionReport:
    """Compare two studies of one plan: states, probe tables, and the estimands of these tables."""
    before, after = recorded.run, reproduced.run
    plan = before.manifest.plan
    tables = [estimates(run, estimate, {}, {}) for run in (before, after)]
    pairs = zip(fork_runs(before), fork_runs(after), strict=True)
    same, differing = zip(*(_compare_bits(here, there) for here, there in pairs), strict=True)
    return ReproductionReport(
        recorded_sha256=recorded.manifest_sha256,
        reproduced_sha256=reproduced.manifest_sha256,
        environment_differences=environment_differences(
            before.manifest.environment, after.manifest.environment
        ),
        bit_identical=all(same),
        edited=tuple(line for lines in differing for line in lines),
        rows=compare(tables[0], tables[1], plan.margins),
        other_code=_other_code(before.manifest, after.manifest),
        other_data=_other_data(before.manifest, after.manifest),
    )


def _other_code(left: StudyManifest, right: StudyManifest) -> tuple[str, ...]:
    """A reproduction runs in the environment that it is called in, which may have other modules."""
    files = [{(file.name, file.sha256) for file in side.program.code} for side in (left, right)]
    return tuple(sorted({name for name, _ in files[0] ^ files[1]}))


def _other_data(left: StudyManifest, right: StudyManifest) -> tuple[str, ...]:
    there, here = (side.opened.hashed if side.opened else {} for side in (left, right))
    return tuple(sorted(name for name in there.keys() & here if there[name] != here[name]))


def _compare_bits(left: RunEvidence, right: RunEvidence) -> tuple[bool, tuple[str, ...]]:
    """Whether all states and tables are the same; and what is not of states that both reached.

    A table is computed from the branch's state and the probe. A machine that computes other bits
    shows it in the states: every step of training enters them, forward and backward. Where both
    studies reached one state and a table of it is not the same, it is not of this state.
    """
    identical, edited = True, []
    for seed, other in zip(left.manifest.seeds, right.manifest.seeds, strict=True):
        shared = Shared.of(seed, other)
        for here, there in zip(seed.branches, other.branches, strict=True):
            is_same = _committed(here) == _committed(there)
            identical &= is_same
            place = f"seed {seed.seed}, {here.name}"
            if is_same and not shared.probe:
                edited.append(f"{place}: equal states, but the recorded probe is not the one here")
                continue
            edited += [
                f"{place}: the recorded {_what(mismatch)} is not of the recorded states"
                for mismatch in unfounded(
                    _side(left, here),
                    _side(right, there),
                    {"t0": left.manifest.plan.fork_at, **left.manifest.plan.probed},
                    shared,
                )
            ]
    return identical and not edited, tuple(edited)


def _committed(branch: BranchRecord) -> tuple[object, ...]:
    return (branch.digests, branch.order_sha256, branch.diverged_at)


def _side(run: RunEvidence, branch: BranchRecord) -> BranchSide:
    return BranchSide(branch, run.trace(branch.trace), run.outcome(branch))


def _what(mismatch: Mismatch) -> str:
    if mismatch.kind == "commitment":
        return f"commitment to {mismatch.component} after step {mismatch.step}"
    return "label column" if mismatch.component == "labels" else f"table {mismatch.component}"
