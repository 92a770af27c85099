"""``auditkit run``: run a study to its signed manifest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from auditkit.api.needed import token_sha256
from auditkit.cli.console import console
from auditkit.cli.designs import factory_arguments, refuse_design
from auditkit.cli.engine_options import engine_option, first_step, jobs_for, remote_workers
from auditkit.cli.options import (
    KEPT,
    TAIL,
    TEXT,
    WHOLE,
    CommandWithTail,
    parse_arguments,
    parse_seeds,
    require_utf8,
    split_target,
)
from auditkit.cli.passwords import signing_key_of
from auditkit.cli.plan import look_at
from auditkit.cli.preflight import print_dry_run, print_outlook
from auditkit.cli.progress import StepProgress, waiting
from auditkit.cli.run_places import RunPlace, run_place
from auditkit.cli.saying import say
from auditkit.cli.spelling import counted
from auditkit.cli.study_plans import (
    overrides,
    plan_options,
    program_plan,
    resolved,
    script_plan,
    values_of,
)
from auditkit.cli.tables import print_run
from auditkit.engines.spec import EngineSpec
from auditkit.errors import PlanError, UsageError
from auditkit.files import store
from auditkit.files.run_folder import RunFolder
from auditkit.processes.worker_pool import Workers
from auditkit.records.job import ProgramSource
from auditkit.records.manifest import MANIFEST_NAME
from auditkit.records.nudge_size import large_nudge
from auditkit.records.plan import StudyPlan
from auditkit.records.preflight import Preflight
from auditkit.signing.trust import SigningKey
from auditkit.study.deviations import argument_deviations, plan_deviations
from auditkit.study.extension import EarlierStudy, read_earlier
from auditkit.study.planning import SignedPlan, read_plan, registered_deviations
from auditkit.study.preflight import MANY_STEPS, settled, try_program
from auditkit.study.request import StudyRequest, script_source
from auditkit.study.runner import prepare_study, run_study
from auditkit.study.seed_runs import workers_of


@click.command(cls=CommandWithTail)
@click.argument("program", required=False, type=TEXT)
@click.option(
    "--out", type=TEXT, help="Folder of the run, or URL; new, or unfinished with --resume."
)
@plan_options
@click.option(
    "--plan", "plan_file", type=TEXT, help="A signed plan (auditkit plan) to bind the study to."
)
@click.option("--deviate", is_flag=True, help="Run although something differs from the plan.")
@click.option(
    "--jobs", type=WHOLE, help="Seeds, then branches, at a time; by default as cores allow."
)
@engine_option
@click.option(
    "--key", type=TEXT, help="Private key to sign with; else $AUDITKIT_KEY, else this machine's."
)
@click.option(
    "--add-seeds",
    type=TEXT,
    help="Add these to the finished study in --out; reports will say that there was a look.",
)
@click.option("--resume", is_flag=True, help="Finish an interrupted run.")
@click.option(
    "--dry-run", is_flag=True, help="Try the program, and say what it will cost and can show."
)
@click.pass_context
def run(  # noqa: PLR0913, PLR0917 # one argument an option
    ctx: click.Context,
    /,
    program: str | None,
    out: str | None,
    arguments: tuple[str, ...],
    plan_file: str | None,
    deviate: bool,
    jobs: int | None,
    engine: EngineSpec | None,
    key: str | None,
    add_seeds: str | None,
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
    _refuse_combinations(command, program, arguments, out, plan_file, deviate=deviate, dry=dry_run)
    place = run_place(out, resume=resume)
    if place.is_built and not dry_run:
        say("an earlier command finished this run: it is moved as it is, and nothing is run")
        say(f"manifest: {place.move()}")
        return
    signer = signing_key_of(key) if plan_file or add_seeds or (dry_run and key) else None
    bound = read_plan(Path(plan_file), signer.trusted) if plan_file and signer else None
    earlier = None
    if add_seeds is not None and signer is not None:
        _refuse_with_added_seeds(given, plan_file, place, dry=dry_run)
        earlier = read_earlier(RunFolder(place.folder), signer.trusted, resume=resume)
    with Workers() if engine is None else remote_workers(engine, jobs) as workers:
        asked = (program, arguments, command)
        if earlier is not None:
            source, plan = _extended(earlier, *asked, add_seeds or "")
        else:
            source, plan = _what_to_run(*(workers, *asked, given, bound, engine), deviate=deviate)
        request = StudyRequest(
            *(source, plan, place.folder, _jobs(jobs, plan, engine), resume, command),
            *(bound.data if bound else None, None, earlier, engine),
        )
        if dry_run:
            _try(request, workers)
            return
        signer = signer or signing_key_of(key)
        if bound is not None:
            _check_deviations(workers, bound, source, plan, deviate=deviate)
        with StepProgress(None, "preflight") as progress:
            request = prepare_study(request, progress.report, workers)
        _print_interrupted(request)
        print_outlook(console(), request)
        manifest = _moved(ctx, place, request, signer, workers)
    print_run(manifest, signer.fingerprint)


def _refuse_combinations(  # one argument an option
    command: tuple[str, ...],
    program: str | None,
    arguments: tuple[str, ...],
    out: str | None,
    plan_file: str | None,
    *,
    deviate: bool,
    dry: bool,
) -> None:
    if command and (program or arguments or plan_file):
        raise UsageError("a command after -- takes no PROGRAM, --arg or --plan")
    if deviate and not plan_file:
        raise UsageError("--deviate says that a study may differ from --plan, and there is none")
    if out is None and not dry:
        raise UsageError("give --out, the folder of the run", hint="--dry-run needs none")


def _print_interrupted(request: StudyRequest) -> None:
    """Say what becomes of an interrupted run that lies in the folder."""
    kept = RunFolder(request.out).progress()
    if kept and request.resume:
        console().print(f"goes on with what was complete: {kept}")
    elif kept:
        console().print("begins anew: of the interrupted run in this folder nothing was complete")


def _jobs(given: int | None, plan: StudyPlan, engine: EngineSpec | None) -> int:
    jobs = jobs_for(engine, plan.threads, len(plan.seeds)) if given is None else given
    if jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {jobs}")
    return jobs


def _refuse_with_added_seeds(
    given: dict[str, Any], plan_file: str | None, place: RunPlace, *, dry: bool
) -> None:
    if place.far is not None:
        raise UsageError(f"--add-seeds goes on with a run in a folder, not at {place.far.url}")
    if given or plan_file or dry:
        names = ", ".join(sorted(given)) or ("--plan" if plan_file else "--dry-run")
        raise UsageError(
            f"--add-seeds and {names} exclude each other",
            hint="all else is as in the study that seeds are added to",
        )


def _extended(
    earlier: EarlierStudy,
    program: str | None,
    arguments: tuple[str, ...],
    command: tuple[str, ...],
    add_seeds: str,
) -> tuple[ProgramSource, StudyPlan]:
    """The program of a study that seeds are added to, and its plan with them.

    Raises:
        UsageError: When it is another program than the study's.
        PlanError: When the study has one of the seeds.
    """
    plan, recorded = (
        earlier.extended(parse_seeds(add_seeds, "--add-seeds")),
        earlier.manifest.program,
    )
    if command:
        _require_utf8(command)
        source = script_source(command, plan, Path.cwd())
    elif program:
        target, folder = split_target(program)
        given = parse_arguments(arguments) if arguments else recorded.arguments
        source = ProgramSource(target, folder, given)
    else:
        raise UsageError("give the PROGRAM of the study, or its command after --")
    if source.target != recorded.target:
        raise UsageError(f"the study is of another program: {recorded.target}, not {source.target}")
    return source, plan


def _require_utf8(command: tuple[str, ...]) -> None:
    for word in command:
        require_utf8("a word of the command", word, "rename what it names")


def _try(request: StudyRequest, workers: Workers) -> None:
    """Say what a study would be."""
    with (
        StepProgress(None, "preflight") as progress,
        workers_of(request, workers) as running,
    ):
        found = try_program(
            *(running, request.program, request.plan, progress.report),
            seed=request.seeds[0],
            steps=MANY_STEPS,
            nudge=True,
        )
    plan = settled(request.plan, found)
    print_dry_run(console(), found, plan, request.jobs, at_once=request.branches_at_once)
    _print_warnings(_said(found, plan))


def _moved(
    ctx: click.Context,
    place: RunPlace,
    request: StudyRequest,
    signer: SigningKey,
    workers: Workers,
) -> Path | str:
    manifest = place.moved(partial(_run, ctx, request, signer, workers))
    ctx.meta[KEPT] = _complete(manifest)  # an engine takes a moment to end
    return manifest


def _run(ctx: click.Context, request: StudyRequest, signer: SigningKey, workers: Workers) -> Path:
    found = request.preflight
    said = () if found is None else (*found.undecided, *_said(found, request.plan))
    _print_warnings(said)
    warnings: list[str] = []
    try:
        with StepProgress(total_steps(request.plan, len(request.seeds)), "run") as progress:
            manifest = run_study(request, signer, progress.report, warnings.append, workers)
        ctx.meta[KEPT] = _complete(manifest)
        return manifest
    except KeyboardInterrupt:
        ctx.meta[KEPT] = _kept(request)
        raise
    finally:
        _print_warnings([warning for warning in warnings if warning not in said])


def _kept(request: StudyRequest) -> str:
    """What an interrupt leaves of a run."""
    folder, manifest = RunFolder(request.out), request.out / MANIFEST_NAME
    earlier = None if request.earlier is None else request.earlier.data
    if manifest.exists() and store.read_bytes(manifest) != earlier:
        return _complete(manifest)
    return f"kept for --resume: {folder.progress()}" if folder.has_parts else "nothing to keep yet"


def _complete(manifest: Path | str) -> str:
    return f"the run was complete: {manifest}"


def _said(found: Preflight, plan: StudyPlan) -> tuple[str, ...]:
    """What a preflight warns of, whether or not a study follows."""
    large = large_nudge(int(plan.placebo_scale))
    return found.notes if large is None else (*found.notes, large)


def _print_warnings(warnings: Iterable[str]) -> None:
    for warning in warnings:
        say(f"warning: {warning}")


def total_steps(plan: StudyPlan, n_seeds: int) -> int:
    """Training steps of a study's seeds."""
    return n_seeds * plan.seed_steps


def _what_to_run(
    workers: Workers,
    program: str | None,
    arguments: tuple[str, ...],
    command: tuple[str, ...],
    given: dict[str, Any],
    bound: SignedPlan | None,
    engine: EngineSpec | None,
    *,
    deviate: bool,
) -> tuple[ProgramSource, StudyPlan]:
    if command:
        _require_utf8(command)
        plan = script_plan(given)
        return script_source(command, plan, Path.cwd()), plan
    if not program:
        raise UsageError("give a PROGRAM, or a command after --")
    target, folder = split_target(program)
    source = ProgramSource(target, folder, factory_arguments(given, arguments))
    if bound is None:
        with waiting(first_step(engine)):
            return source, program_plan(workers, source, given)
    if given and not deviate:
        raise UsageError(
            f"--plan settles {', '.join(sorted(given))} already",
            hint="leave the options out, or give --deviate: verify will list what differs",
        )
    refuse_design(given, "--plan")
    if not arguments:
        source = replace(source, arguments=bound.registration.program.arguments)
    planned = values_of(bound.study_plan(token_sha256).changed(**given))
    return source, resolved(planned)


def _check_deviations(
    workers: Workers,
    bound: SignedPlan,
    source: ProgramSource,
    plan: StudyPlan,
    *,
    deviate: bool,
) -> None:
    """Compare plan, program and data with the plan before hours are spent.

    Raises:
        PlanError: When something differs and that was not asked for.
    """
    registration = bound.registration
    whole = registration.data.dataset_sha256 is not None
    found = look_at(workers, source, registration.plan, registration.data.seed, whole=whole)
    lines = list(plan_deviations(bound.study_plan(token_sha256), plan))
    if source.target != registration.program.target:
        lines.append(f"factory: {registration.program.target} was planned")
    lines += argument_deviations(registration.program, source.arguments)
    lines += registered_deviations(registration, found)
    for line in lines:
        say(f"deviates from the plan: {line}")
    if lines and not deviate:
        raise PlanError(
            f"the program differs from the plan in {counted(len(lines), 'point')}",
            hint="make a new plan, or give --deviate: verify will list what differs",
        )
