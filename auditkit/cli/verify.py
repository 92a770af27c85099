"""``auditkit verify``: the ten checks, then the estimands."""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from auditkit.api.countersigned import countersigned, utc_now
from auditkit.api.verifying import verify_as_asked
from auditkit.cli.engine_options import first_step, jobs_for
from auditkit.cli.needs import print_needs
from auditkit.cli.options import (
    NUMBER,
    TAIL,
    TEXT,
    TYPED,
    WHOLE,
    CommandWithTail,
    decimal_number,
    wide_option,
)
from auditkit.cli.outputs import destination
from auditkit.cli.passwords import signing_key_of
from auditkit.cli.progress import StepProgress
from auditkit.cli.received import Received, received_manifest
from auditkit.cli.saying import say
from auditkit.cli.tables import print_report
from auditkit.cli.verify_options import (
    let_through_option,
    refuse_idle,
    request_of,
    verification_options,
)
from auditkit.errors import UsageError
from auditkit.formats import canonical, structure
from auditkit.formats.quote import brief
from auditkit.records.report import VerificationReport
from auditkit.signing.trust import SigningKey
from auditkit.verification.countersigning import countersignature_output
from auditkit.verification.report_files import IS_REPORT, keep
from auditkit.verification.request import REQUIRED, VerifyRequest

if TYPE_CHECKING:
    from auditkit.evidence.reader import RunEvidence
    from auditkit.replay.request import ReplayOutcome, ReplayRequest
    from auditkit.verification.pilot_seeds import PilotSeeds

#: Says how many threads the linear algebra of numpy's wheels starts with.
_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


@click.command("verify", cls=CommandWithTail)
@click.argument("manifest", type=TEXT)
@verification_options(replay="all")
@let_through_option
@click.option("--replay-seed", type=WHOLE, help="Repeat a draw of --replay N.")
@click.option(
    "--budget",
    type=TEXT,
    help="Replay what fits into 90s, 30m or 6h; at most N with --replay N.",
)
@click.option(
    "--tolerance",
    type=NUMBER,
    help="Call another environment's tables close up to this total variation; never verified.",
)
@click.option(
    "--countersign",
    "countersigner",
    type=TEXT,
    help="Private key to sign this report with, beside MANIFEST.",
)
@click.option(
    "--require",
    type=click.Choice(list(REQUIRED)),
    help="Exit with 7 where nothing is wrong and less was shown: verified, sampled, "
    "integrity-only.",
)
@click.option(
    "--generalise-probe",
    is_flag=True,
    help="Also give effects for other examples than the probe's: two-way intervals.",
)
@click.option(
    "--pilot", type=TEXT, help="The study that this one was planned by: are its seeds new?"
)
@wide_option
@click.option("--all", "everything", is_flag=True, help="Print every estimate.")
@click.option(
    "--json", "json_out", type=TEXT, help="Write the report as JSON to a file, or - for stdout."
)
@click.pass_context
def verify_command(
    ctx: click.Context,
    /,
    manifest: str,
    replay_seed: int | None,
    budget: str | None,
    tolerance: float | None,
    countersigner: str | None,
    everything: bool,
    json_out: str | None,
    **options: Any,
) -> None:
    """Verify MANIFEST: signature, files, pairing, replay; then compute the estimands.

    MANIFEST is a manifest.json, its folder, or a .zip or .tar.gz of that as it was received.

    The study of a script is replayed with the command that follows `--`, in which {seed} stands
    for the seed; a recorded command is never run.

    Exit codes: 0 nothing wrong, 1 a check failed, 2 wrong use, 3 signed by a key that is not
    trusted, 4 not signed, 5 malformed, 6 cannot decide, 7 less than required.
    """
    received = ctx.with_resource(received_manifest(manifest))
    path = received.path
    json_to = destination("--json", json_out, IS_REPORT, "report", path)
    key = signing_key_of(countersigner) if countersigner is not None else None
    if key is not None:
        _check_countersigning(received, key)
    pilot = options.pop("pilot")
    request = replace(
        request_of(path, replay_seed=replay_seed, **options),
        command=ctx.meta[TAIL],
        budget=None if budget is None else _seconds(budget),
        tolerance=tolerance,
    )
    if pilot is not None:
        request = replace(request, pilot=_pilot(ctx, pilot, request))
    if request.tolerance is not None and not 0 <= request.tolerance <= 1:  # false for NaN, too
        raise UsageError(f"--tolerance is a total variation, 0 to 1, not {request.tolerance}")
    refuse_idle(request)
    started = utc_now()
    report = verify_path(path, request)
    if key is not None:
        _countersign(path, report, started, key)
    if not json_to.is_stdout:
        print_report(report, everything=everything)
    json_to.write(canonical.dumps(structure.to_dict(report)))
    kept = keep(report, None if received.is_unpacked else path)
    if kept is not None:  # not on stdout, whose last line is the verdict
        say(f"report: {kept}")
    if not json_to.is_stdout:
        print_needs(report, "verify", ctx.meta[TYPED])
    ctx.exit(report.exit_code)


def _pilot(ctx: click.Context, pilot: str, request: VerifyRequest) -> PilotSeeds:
    # loads the estimands, and so scipy
    from auditkit.verification.pilot import pilot_seeds  # noqa: PLC0415

    return pilot_seeds(ctx.with_resource(received_manifest(pilot)).path, request)


def _check_countersigning(received: Received, key: SigningKey) -> None:
    """Look whether a countersignature can be kept, before hours are spent.

    Raises:
        UsageError: Of an archive, beside whose manifest nothing stays.
        StoreError: When it may not be written.
    """
    if received.is_unpacked:
        raise UsageError(
            "--countersign leaves a file beside the manifest, and this one lies in an archive",
            hint="unpack it, verify the folder, and pack that again",
        )
    countersignature_output(received.path.parent, key.fingerprint).check()


def verify_path(path: Path, request: VerifyRequest) -> VerificationReport:
    """Verify with replay and estimands where they are asked for, showing progress."""
    if request.replay == "none":
        _load_numpy_without_threads()
    with StepProgress(None, "verify", "checking the files ...") as progress:
        return verify_as_asked(path, request, functools.partial(_replay_with_progress, progress))


def _load_numpy_without_threads() -> None:
    """Load numpy without threads for linear algebra: to start them takes a quarter of its start.

    Where nothing is replayed no matrices are multiplied. Whoever says how many there are to be is
    heard.
    """
    if "numpy" in sys.modules or _BLAS_THREADS in os.environ:
        return
    os.environ[_BLAS_THREADS] = "1"  # read once, while it is loaded
    try:
        import numpy  # noqa: F401, PLC0415
    finally:
        del os.environ[_BLAS_THREADS]


def _replay_with_progress(
    progress: StepProgress, run: RunEvidence, request: ReplayRequest
) -> ReplayOutcome:
    # what starts processes is loaded only where something is replayed
    from auditkit.replay.budget import steps_of  # noqa: PLC0415
    from auditkit.replay.study_replay import replay  # noqa: PLC0415

    plan = run.manifest.plan
    pairs = [(seed, name) for seed, names in request.choice.items() for name in names]
    total = steps_of(plan, pairs)
    jobs = request.jobs or jobs_for(request.engine, plan.threads, len(request.choice))
    progress.expect(total, "replay", first_step(request.engine))
    return replay(run, replace(request, jobs=jobs), progress.report)


def _countersign(path: Path, report: VerificationReport, started: str, key: SigningKey) -> None:
    """Sign a report, where there is something to put one's name to; says why where not."""
    written = countersigned(path, report, started, key, say)
    if written is not None:
        say(f"wrote {written}, signed by {key.fingerprint}")


def _seconds(text: str) -> float:
    number = decimal_number(text[:-1]) or 0.0
    seconds = number * {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:], 0.0)
    if not 0 < seconds < float("inf"):
        raise UsageError(f"--budget {brief(text)} is not like 90s, 30m or 6h")
    return seconds
