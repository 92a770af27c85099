"""``auditkit run``: run a study to its signed manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from auditkit.cli.options import (
    TAIL,
    TEXT,
    WHOLE,
    CommandWithTail,
    default_jobs,
    parse_arguments,
    split_target,
    token_sha256,
)
from auditkit.cli.passwords import signing_key_of
from auditkit.cli.plan import look_at
from auditkit.cli.progress import StepProgress, waiting
from auditkit.cli.spelling import spelt
from auditkit.cli.study_plans import (
    overrides,
    plan_options,
    program_plan,
    resolved,
    script_plan,
    values_of,
)
from auditkit.cli.tables import print_cost, print_run
from auditkit.errors import PlanError, UsageError
from auditkit.processes.worker_pool import Workers
from auditkit.records.job import Job, ProgramSource
from auditkit.records.plan import StudyPlan
from auditkit.study.planning import (
    SignedPlan,
    argument_deviations,
    read_plan,
    registered_deviations,
)
from auditkit.study.runner import StudyRequest, run_study, script_source

#: Steps that ``--dry-run`` times.
_TIMED_STEPS = 12


@click.command(cls=CommandWithTail)
@click.argument("program", required=False, type=TEXT)
@click.option(
    "--out", required=True, type=TEXT, help="Folder of the run; new, or unfinished with --resume."
)
@plan_options
@click.option(
    "--plan", "plan_file", type=TEXT, help="A signed plan (auditkit plan) to bind the study to."
)
@click.option("--deviate", is_flag=True, help="Run although something differs from the plan.")
@click.option("--jobs", type=WHOLE, help="Seeds that run at a time; by default as cores allow.")
@click.option(
    "--key", type=TEXT, help="Private key to sign with; else $AUDITKIT_KEY, else this machine's."
)
@click.option("--resume", is_flag=True, help="Finish an interrupted run.")
@click.option("--dry-run", is_flag=True, help="Say what it will cost, from a few timed steps.")
@click.pass_context
def run(  # noqa: PLR0913, PLR0917 # one argument an option
    ctx: click.Context,
    /,
    program: str | None,
    out: str,
    arguments: tuple[str, ...],
    plan_file: str | None,
    deviate: bool,
    jobs: int | None,
    key: str | None,
    resume: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Run the study of PROGRAM: FILE.py, FILE.py:FACTORY or package.module:FACTORY.

    Or of a script that trains by itself and uses auditkit.Recorder: give its command after `--`,
    with {seed} where the script takes its seed.

    Options override the program's STUDY. Every step leaves evidence; the run ends in a signed
    manifest, for `auditkit verify`.
    """
    command: tuple[str, ...] = ctx.meta[TAIL]
    given = overrides(**options)
    if command and (program or arguments or dry_run or plan_file):
        raise UsageError("a command after -- takes no PROGRAM, --arg, --plan or --dry-run")
    if deviate and not plan_file:
        raise UsageError("--deviate says that a study may differ from --plan, and there is none")
    bound = None
    if plan_file:
        signer = signing_key_of(key)
        bound = read_plan(Path(plan_file), signer.trusted)
    with Workers() as workers:
        source, plan = _what_to_run(
            workers, program, arguments, command, given, bound, deviate=deviate
        )
        n_jobs = jobs if jobs is not None else default_jobs(plan.threads, len(plan.seeds))
        if n_jobs < 1:
            raise UsageError(f"--jobs must be at least 1, not {n_jobs}")
        if dry_run:
            job = Job("describe", source, plan, plan.seeds[0], out="", step=_TIMED_STEPS)
            with waiting("timing a few steps ..."):
                described = workers.run(job)
            print_cost(described, plan, n_jobs)
            return
        if bound is not None:
            _check_deviations(workers, bound, source, given, deviate=deviate)
        else:
            signer = signing_key_of(key)
        request = StudyRequest(
            source, plan, Path(out), n_jobs, resume, command, bound.data if bound else None
        )
        warnings: list[str] = []
        try:
            with StepProgress(total_steps(plan), "run") as progress:
                manifest = run_study(request, signer, progress.report, warnings.append, workers)
        finally:
            for warning in warnings:
                click.echo(f"auditkit: warning: {spelt(warning)}", err=True)
    print_run(manifest, plan, signer.fingerprint)


def total_steps(plan: StudyPlan) -> int:
    """Training steps of a whole study."""
    branches = (plan.horizon - plan.fork_at) * (len(plan.branch_names) - 1)
    return len(plan.seeds) * (plan.horizon + branches)


def _what_to_run(
    workers: Workers,
    program: str | None,
    arguments: tuple[str, ...],
    command: tuple[str, ...],
    given: dict[str, Any],
    bound: SignedPlan | None,
    *,
    deviate: bool,
) -> tuple[ProgramSource, StudyPlan]:
    if command:
        plan = script_plan(given)
        return script_source(command, plan, Path.cwd()), plan
    if not program:
        raise UsageError("give a PROGRAM, or a command after --")
    target, folder = split_target(program)
    source = ProgramSource(target, folder, parse_arguments(arguments))
    if bound is None:
        with waiting("building the program ..."):
            return source, program_plan(workers, source, given)
    if given and not deviate:
        raise UsageError(
            f"--plan settles {', '.join(sorted(given))} already",
            hint="leave the options out, or give --deviate: verify will list what differs",
        )
    if not arguments:
        source = replace(source, arguments=bound.registration.program.arguments)
    planned = values_of(bound.study_plan(token_sha256))
    return source, resolved({**planned, **given})


def _check_deviations(
    workers: Workers,
    bound: SignedPlan,
    source: ProgramSource,
    given: dict[str, Any],
    *,
    deviate: bool,
) -> None:
    """Compare program and data with the plan before hours are spent.

    Raises:
        PlanError: When something differs and that was not asked for.
    """
    registration = bound.registration
    whole = registration.data.dataset_sha256 is not None
    found = look_at(workers, source, registration.plan, registration.data.seed, whole=whole)
    lines = [f"{name}: given on the command line" for name in sorted(given)]
    if source.target != registration.program.target:
        lines.append(f"factory: {registration.program.target} was planned")
    lines += argument_deviations(registration.program, source.arguments)
    lines += registered_deviations(registration, found)
    for line in lines:
        click.echo(f"auditkit: deviates from the plan: {line}", err=True)
    if lines and not deviate:
        raise PlanError(
            f"the program differs from the plan in {len(lines)} points",
            hint="make a new plan, or give --deviate: verify will list what differs",
        )
