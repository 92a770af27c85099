"""``auditkit run``: run a study to its signed manifest."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from auditkit.cli.options import (
    TAIL,
    CommandWithTail,
    default_jobs,
    parse_arguments,
    parse_seeds,
    split_target,
)
from auditkit.cli.progress import StepProgress
from auditkit.cli.tables import print_cost, print_run
from auditkit.errors import PlanError, UsageError
from auditkit.launch import Workers
from auditkit.records.job import Description, Job, ProgramSource
from auditkit.records.plan import StudyPlan
from auditkit.signing import signing_key
from auditkit.study import StudyRequest, resolve, run_study, script_source
from auditkit.trust import SigningKey

#: Steps that ``--dry-run`` times.
_TIMED_STEPS = 12

_REQUIRED = ("fork_at", "window", "horizon", "seeds", "perturbations")


@click.command(cls=CommandWithTail)
@click.argument("program", required=False)
@click.option("--out", required=True, help="Folder of the run; new, or unfinished with --resume.")
@click.option("--arg", "arguments", multiple=True, help="name=value for the factory; repeatable.")
@click.option("--fork-at", type=int, help="t0: the step after which the state is forked.")
@click.option("--window", type=int, help="W: effects are measured at t0+W ...")
@click.option("--horizon", type=int, help="... and at T, an absolute step.")
@click.option("--seeds", help="0-7, or 1,3,5.")
@click.option("--perturb", multiple=True, help="NAME or NAME:key=value,...; repeatable.")
@click.option("--placebos", type=int, help="K placebos a seed (the noise floor).")
@click.option("--jobs", type=int, help="Seeds that run at a time; by default as cores allow.")
@click.option("--key", help="Private key to sign with; else $AUDITKIT_KEY, else this machine's.")
@click.option("--resume", is_flag=True, help="Finish an interrupted run.")
@click.option("--dry-run", is_flag=True, help="Say what it will cost, from a few timed steps.")
@click.pass_context
def run(  # noqa: PLR0913, PLR0917 # one argument an option
    ctx: click.Context,
    /,
    program: str | None,
    out: str,
    arguments: tuple[str, ...],
    fork_at: int | None,
    window: int | None,
    horizon: int | None,
    seeds: str | None,
    perturb: tuple[str, ...],
    placebos: int | None,
    jobs: int | None,
    key: str | None,
    resume: bool,
    dry_run: bool,
) -> None:
    """Run the study of PROGRAM: FILE.py, FILE.py:FACTORY or package.module:FACTORY.

    Or of a script that trains by itself and uses auditkit.Recorder: give its command after `--`,
    with {seed} where the script takes its seed.

    Options override the program's STUDY. Every step leaves evidence; the run ends in a signed
    manifest, for `auditkit verify`.
    """
    command: tuple[str, ...] = ctx.meta[TAIL]
    overrides: dict[str, Any] = {
        "fork_at": fork_at,
        "window": window,
        "horizon": horizon,
        "seeds": None if seeds is None else parse_seeds(seeds),
        "perturbations": perturb or None,
        "placebos": placebos,
    }
    given = {name: value for name, value in overrides.items() if value is not None}
    if command and (program or arguments or dry_run):
        raise UsageError("a command after -- takes no PROGRAM, --arg or --dry-run")
    source, plan = _what_to_run(program, arguments, command, given)
    n_jobs = jobs if jobs is not None else default_jobs(plan.threads, len(plan.seeds))
    if n_jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {n_jobs}")
    if dry_run:
        job = Job("describe", source, plan, plan.seeds[0], out="", step=_TIMED_STEPS)
        print_cost(_ask(job), plan, n_jobs)
        return
    signer = _signer(key)
    request = StudyRequest(source, plan, Path(out), n_jobs, resume, command)
    warnings: list[str] = []
    with StepProgress(total_steps(plan), "run") as progress:
        manifest = run_study(request, signer, progress.report, warnings.append)
    for warning in warnings:
        click.echo(f"auditkit: warning: {warning}", err=True)
    print_run(manifest, plan, signer.fingerprint)


def total_steps(plan: StudyPlan) -> int:
    """Training steps of a whole study."""
    branches = (plan.horizon - plan.fork_at) * (len(plan.branch_names) - 1)
    return len(plan.seeds) * (plan.horizon + branches)


def _what_to_run(
    program: str | None,
    arguments: tuple[str, ...],
    command: tuple[str, ...],
    given: dict[str, Any],
) -> tuple[ProgramSource, StudyPlan]:
    if command:
        plan = _script_plan(given)
        return script_source(command, plan, Path.cwd()), plan
    if not program:
        raise UsageError("give a PROGRAM, or a command after --")
    target, folder = split_target(program)
    source = ProgramSource(target, folder, parse_arguments(arguments))
    return source, _plan(source, given)


def _signer(key: str | None) -> SigningKey:
    signer = signing_key(key)
    if signer.created:
        click.echo(
            f"auditkit: made a signing key, {signer.fingerprint}, in {signer.source}; "
            "this machine trusts it",
            err=True,
        )
    return signer


def _plan(source: ProgramSource, overrides: dict[str, Any]) -> StudyPlan:
    described = _ask(Job("describe", source, None, 0, out="", step=0))
    base: dict[str, Any] = {}
    if described.plan is not None:
        base = {item.name: getattr(described.plan, item.name) for item in fields(StudyPlan)}
    values = {**base, **overrides}
    _require(values, "the program has no STUDY", "write STUDY = auditkit.StudyPlan(...) in it")
    return resolve(StudyPlan(**values), _declarations(values["perturbations"]))


def _script_plan(given: dict[str, Any]) -> StudyPlan:
    """The plan of a script; what its loader draws is left alone."""
    values = {"seeds": [0], "augmentation_rng": "inherit", **given}
    _require(values, "a script has no STUDY", "for example --fork-at 100 --window 20 --horizon 300")
    return resolve(StudyPlan(**values), _declarations(values["perturbations"]))


def _require(values: dict[str, Any], why: str, hint: str) -> None:
    missing = [name for name in _REQUIRED if name not in values]
    if missing:
        raise PlanError(
            f"{why}, and no option gives {', '.join(missing)}", hint=f"{hint}, or give the options"
        )


def _declarations(perturbations: Any) -> Any:
    from auditkit.records.perturbation import DECLARATIONS  # noqa: PLC0415

    names = {
        item.partition(":")[0] if isinstance(item, str) else item.name for item in perturbations
    }
    if names <= set(DECLARATIONS):
        return DECLARATIONS
    from auditkit.perturb.registry import registry  # noqa: PLC0415 # loads torch and plug-ins

    return {name: item.declaration for name, item in registry().items()}


def _ask(job: Job) -> Description:
    with Workers() as workers:
        answer: Description = workers.run(job)
    return answer
