"""Builds the recorded program again, to compare its data with what the plan says of them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from auditkit.evidence.reader import RunEvidence
from auditkit.processes.worker_pool import Report, Workers
from auditkit.records.job import Job, ProgramSource
from auditkit.records.manifest import CODE_FOLDER
from auditkit.records.registration import RegisterResult, Registration
from auditkit.replay.study_replay import copy_code


def rebuild_program(
    run: RunEvidence,
    registration: Registration,
    seed: int,
    arguments: Mapping[str, str],
    report: Report = lambda _: None,
    variables: Mapping[str, str] | None = None,
) -> RegisterResult:
    """Build the recorded program as its plan did, from the recorded sources alone.

    Args:
        run: The study, whose files passed checks 1 to 3.
        registration: Its plan.
        seed: The study seed to build it with; its data are read with the planned seed's streams.
        arguments: Arguments of the factory that replace recorded ones.
        report: Called with progress.
        variables: Environment variables that it has beside those that any replay has.

    Raises:
        AuditError: Whatever went wrong.
    """
    program = run.manifest.program
    with (
        tempfile.TemporaryDirectory(prefix="auditkit-plan-") as scratch,
        Workers(variables=variables, scratch=Path(scratch)) as workers,
    ):
        copy_code(run, Path(scratch))
        folder = str(Path(scratch) / CODE_FOLDER)
        source = ProgramSource(program.target, folder, {**program.arguments, **arguments})
        data = registration.data
        whole = int(data.dataset_sha256 is not None)
        job = Job("register", source, registration.plan, seed, out="", step=whole)
        job = replace(job, sample_seed=data.seed)
        found: RegisterResult = workers.run(job, report)
    return found
