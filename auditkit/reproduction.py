"""Run a recorded study again on this machine, and set the two side by side."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from auditkit import canonical, store
from auditkit.agreement import compare
from auditkit.content import branch_tables
from auditkit.estimands import estimate
from auditkit.evidence import RunEvidence
from auditkit.manifests import from_statement
from auditkit.records.agreement import ReproductionReport
from auditkit.records.job import ProgramSource
from auditkit.records.manifest import CODE_FOLDER, StudyManifest
from auditkit.replay import copy_code
from auditkit.signing import open_envelope
from auditkit.study import Report, StudyRequest, Warn, run_study, script_source
from auditkit.trust import SigningKey
from auditkit.verification import environment_lines


@dataclass(frozen=True)
class ReproductionRequest:
    """How to run a recorded study again.

    Attributes:
        out: Folder of the new study.
        arguments: Arguments of the factory that replace recorded ones.
        jobs: Seeds that run at the same time.
        resume: Whether to finish an interrupted reproduction.
        command: The user's own command, for the study of a script.
    """

    out: Path
    arguments: Mapping[str, str]
    jobs: int
    resume: bool = False
    command: tuple[str, ...] = ()


def read_study(path: Path) -> RunEvidence:
    """A study, by its manifest; nothing is verified."""
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
    manifest = from_statement(open_envelope(data, what=path.name).payload, what=path.name)
    return RunEvidence(path.parent, manifest)


def rerun(
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
            source, manifest.plan, request.out, request.jobs, request.resume, request.command
        )
        return run_study(study, key, report, warn)


def side_by_side(recorded: Path, reproduced: Path) -> ReproductionReport:
    """Compare the estimands of two studies of one plan, from their recorded tables."""
    before, after = read_study(recorded), read_study(reproduced)
    plan = before.manifest.plan
    tables = [estimate(branch_tables(run, {}), plan) for run in (before, after)]
    return ReproductionReport(
        recorded_sha256=_sha256(recorded),
        reproduced_sha256=_sha256(reproduced),
        environment_differences=environment_lines(
            before.manifest.environment, after.manifest.environment
        ),
        bit_identical=_same_bits(before.manifest, after.manifest),
        rows=compare(tables[0], tables[1], plan.margins),
    )


def _same_bits(left: StudyManifest, right: StudyManifest) -> bool:
    """Whether every branch of every seed ended in the same committed states and order."""
    return all(
        (here.digests, here.order_sha256, here.diverged_at)
        == (there.digests, there.order_sha256, there.diverged_at)
        for seed, other in zip(left.seeds, right.seeds, strict=True)
        for here, there in zip(seed.branches, other.branches, strict=True)
    )


def _sha256(path: Path) -> str:
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
    return hashlib.sha256(data).hexdigest()
