"""``auditkit reproduce``: run a recorded study here, and set the two sets of estimands together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from auditkit.cli.console import console, interval, number, print_table
from auditkit.cli.engine_options import first_step, jobs_for
from auditkit.cli.options import TAIL, TEXT, CommandWithTail, wide_option
from auditkit.cli.outputs import REPRODUCTION, destination, json_of
from auditkit.cli.passwords import signing_key_of
from auditkit.cli.progress import StepProgress, waiting
from auditkit.cli.received import manifest_path
from auditkit.cli.run import total_steps
from auditkit.cli.run_places import local_folder
from auditkit.cli.saying import say
from auditkit.cli.spelling import counted
from auditkit.cli.tables import print_report
from auditkit.cli.verify_options import request_of, verification_options
from auditkit.errors import UsageError
from auditkit.evidence.reader import RunEvidence
from auditkit.formats import structure
from auditkit.records.agreement import Agreement, ReproductionReport
from auditkit.records.estimate import AS_IS, PRIMARY
from auditkit.records.plan import as_typed, rounded
from auditkit.signing.envelopes import Envelope
from auditkit.signing.signatures import check_signatures
from auditkit.signing.trust import SigningKey
from auditkit.verification.authenticity import is_own
from auditkit.verification.procedure import VerifyRequest, verify


@click.command("reproduce", cls=CommandWithTail)
@click.argument("manifest", type=TEXT)
@click.option("--out", required=True, type=TEXT, help="Folder of the new study.")
@verification_options(replay="none")
@click.option(
    "--sign-with", type=TEXT, help="Private key for the new manifest; else as for `auditkit run`."
)
@click.option("--resume", is_flag=True, help="Finish an interrupted reproduction.")
@wide_option
@click.option("--all", "everything", is_flag=True, help="Print every estimand.")
@click.option("--json", "json_out", type=TEXT, help="Write the comparison as JSON to a file, or -.")
@click.pass_context
def reproduce(
    ctx: click.Context,
    /,
    manifest: str,
    out: str,
    sign_with: str | None,
    resume: bool,
    everything: bool,
    json_out: str | None,
    **options: Any,
) -> None:
    """Run the plan of MANIFEST on this machine, and compare the two sets of estimands.

    For a reader whose hardware or versions differ from the record, where bits cannot be compared.
    The new study is signed and verified by itself. The study of a script is run with the command
    that follows `--`.

    Exit codes: those of verify where either study is not in order; else 1 where an estimand
    disagrees or a recorded table is not of the recorded states, and 0.
    """
    # Lazy for start-up time: scipy.
    from auditkit.verification.reproduction import compare_studies, read_study  # noqa: PLC0415

    path, folder = manifest_path(manifest), local_folder(out)
    json_to = destination("--json", json_out, REPRODUCTION, "comparison", path)
    request = replace(request_of(path, **options), replay="none", command=ctx.meta[TAIL])
    with waiting("checking the files ..."):
        report = verify(path, request)
    if report.exit_code != 0:
        print_report(report, everything=False)
        ctx.exit(report.exit_code)
    recorded = read_study(path, report.manifest_sha256)
    _refuse(recorded.run, recorded.envelope, request)
    signer = signing_key_of(sign_with)
    made = _rerun(recorded.run, folder, request, signer, resume=resume)
    own = replace(request, trusted=[signer.trusted], threshold=1, command=())
    again = verify(made, own)
    if again.exit_code != 0:
        print_report(again, everything=False)
        ctx.exit(again.exit_code)
    compared = compare_studies(recorded, read_study(made, again.manifest_sha256))
    if not json_to.is_stdout:
        _print_agreement(compared, everything=everything)
        click.echo(f"manifest: {made}\nsigned by: {signer.fingerprint}")
    json_to.write(json_of(structure.to_dict(compared)))
    ctx.exit(1 if compared.edited or compared.count("disagree") else 0)


def _refuse(run: RunEvidence, envelope: Envelope, request: VerifyRequest) -> None:
    """Refuse to execute what the user has not agreed to execute.

    Raises:
        UsageError: Where somebody else's code would run, or nothing could.
    """
    scripted = bool(run.manifest.program.command)
    if scripted != bool(request.command):
        what = "a script: give its command after --" if scripted else "a program, not a command"
        raise UsageError(f"the study is of {what}")
    own = is_own(check_signatures(envelope, request.trusted, request.threshold))
    if not own and not request.allow_code and not scripted:
        raise UsageError(
            "the code is signed by somebody else's key", hint="read it, then give --allow-code"
        )


def _rerun(
    run: RunEvidence, folder: Path, request: VerifyRequest, signer: SigningKey, *, resume: bool
) -> Path:
    from auditkit.verification.reproduction import ReproductionRequest, rerun_study  # noqa: PLC0415

    plan = run.manifest.plan
    jobs = request.jobs or jobs_for(request.engine, plan.threads, len(plan.seeds))
    again = ReproductionRequest(
        folder, request.arguments, jobs, resume, request.command, request.engine
    )
    warnings: list[str] = []
    total = total_steps(plan, len(plan.seeds))
    with StepProgress(total, "reproduce", first_step(request.engine)) as progress:
        made = rerun_study(run, again, signer, progress.report, warnings.append)
    for warning in warnings:
        say(f"warning: {warning}")
    return made


def _print_agreement(report: ReproductionReport, *, everything: bool) -> None:
    """Print the comparison: by default the primary metric, and whatever disagrees."""
    out = console()
    for line in report.environment_differences:
        out.print(f"environment: {line}")
    for kind, names in (("code", report.other_code), ("data", report.other_data)):
        for name in names:
            out.print(f"{kind}: {name} is not the recorded file, or in one of the two only")
    if report.bit_identical:
        out.print("Every branch ended in the very bits of the record.")
    for line in report.edited:
        out.print(f"mismatch: {line}")
    rows = [
        _cells(row)
        for row in report.rows
        if everything or row.family == PRIMARY or row.verdict == "disagree"
    ]
    print_table(out, "agreement", rows, title="Estimands: recorded, and reproduced here")
    counts = ", ".join(
        f"{report.count(verdict)} {verdict}" for verdict in ("agree", "disagree", "cannot tell")
    )
    n_seeds = max((row.n for row in report.rows), default=0)
    over = counted(n_seeds, "seed")
    out.print(f"Of {len(report.rows)} estimands over {over}: {counts}.")


def _cells(row: Agreement) -> tuple[str, ...]:
    return (
        as_typed(row.perturbation),
        row.metric if row.variant == AS_IS else f"{row.metric} (recal.)",
        row.time,
        number(rounded(row.recorded, row.metric)),
        number(rounded(row.reproduced, row.metric)),
        number(rounded(row.difference, row.metric)),
        interval(row.interval, row.metric),
        number(row.adjusted_p),
        row.verdict,
        row.reason,
    )
