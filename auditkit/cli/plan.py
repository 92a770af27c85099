"""``auditkit plan``: sign what a study will be, before anything runs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from auditkit.cli.console import console
from auditkit.cli.designs import factory_arguments
from auditkit.cli.help import Command
from auditkit.cli.options import TEXT, WHOLE, split_target
from auditkit.cli.outputs import new_file
from auditkit.cli.passwords import signing_key_of
from auditkit.cli.progress import StepProgress, waiting
from auditkit.cli.spelling import counted
from auditkit.cli.study_plans import overrides, plan_options, program_plan
from auditkit.errors import PlanError, UsageError
from auditkit.formats.statements import to_statement
from auditkit.observe.machine.code import git_state
from auditkit.processes.worker_pool import Workers
from auditkit.records.job import Job, ProgramSource
from auditkit.records.manifest import ProgramRecord
from auditkit.records.plan import AUTO, StudyPlan
from auditkit.records.plan_values import spelled_seeds
from auditkit.records.registration import PLAN_NAME, RegisterResult, Registration, SeedSource
from auditkit.signing.envelopes import sign_statement
from auditkit.study.planning import make_registration


@click.command(cls=Command)
@click.argument("program", type=TEXT)
@click.option("--out", default=PLAN_NAME, show_default=True, type=TEXT, help="The file to write.")
@plan_options
@click.option(
    "--seeds-from-timestamp",
    "count",
    type=WHOLE,
    help="How many seeds to derive from a third party's timestamp over the plan.",
)
@click.option("--skip-data", is_flag=True, help="Do not read the dataset.")
@click.option(
    "--key", type=TEXT, help="Private key to sign with; else $AUDITKIT_KEY, else this machine's."
)
def plan(
    program: str,
    out: str,
    arguments: tuple[str, ...],
    count: int | None,
    skip_data: bool,
    key: str | None,
    **options: Any,
) -> None:
    """Sign the plan of PROGRAM's study: seeds, program and data digests. Nothing is trained.

    `auditkit run PROGRAM --plan PLAN` then binds the study to it, and `auditkit verify` lists
    what differs. With --seeds-from-timestamp the seeds are known only once an authority has
    stamped the plan (`auditkit timestamp`): only such a study is called registered.
    """
    target, folder = split_target(program)
    plan_to = new_file("--out", out, "plan")
    given = overrides(**options)
    if count is not None:
        if "seeds" in given:
            raise UsageError("--seeds and --seeds-from-timestamp exclude each other")
        if not 1 <= count <= 100_000:
            raise UsageError(f"--seeds-from-timestamp must be 1 to 100000, not {count}")
        given["seeds"] = range(count)
    source = ProgramSource(target, folder, factory_arguments(given, arguments))
    with Workers() as workers:
        with waiting("building the program ..."):
            made = program_plan(workers, source, given)
        if made.placebo_scale == AUTO:
            raise PlanError(
                f"a plan that is signed settles everything, and placebo_scale is {AUTO!r}",
                hint="auditkit run PROGRAM --dry-run says which scale it would be; give that one",
            )
        signer = signing_key_of(key)
        found = look_at(workers, source, made, whole=not skip_data)
    commit, dirty = git_state(Path(folder), target.partition(":")[0])
    record = ProgramRecord(target, source.arguments, {}, commit, dirty, ())
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    seeds_from: SeedSource = "plan" if count is None else "timestamp"
    registration = make_registration(made, seeds_from, record, found, now)
    plan_to.write(sign_statement(to_statement(registration), signer.key))
    _tell(registration, plan_to.path, signer.fingerprint, program)


def look_at(
    workers: Workers,
    source: ProgramSource,
    plan: StudyPlan,
    seed: int | None = None,
    *,
    whole: bool,
) -> RegisterResult:
    """Build a program in a process of its own, and digest its code and data.

    Args:
        workers: Run the process.
        source: The program.
        plan: The plan.
        seed: The seed that it is built with; by default the plan's first.
        whole: Whether all of the data are read.
    """
    seed = plan.seeds[0] if seed is None else seed
    job = Job("register", source, plan, seed, out="", step=int(whole))
    with StepProgress(None, "data", "reading the data ...", unit="samples") as progress:
        answer: RegisterResult = workers.run(job, progress.report)
    return answer


def _tell(registration: Registration, path: Path, fingerprint: str, program: str) -> None:
    out, made, data = console(), registration.plan, registration.data
    seeds = counted(len(made.seeds), "seed")
    if registration.seeds_from == "timestamp":
        seeds += ", to be derived from a timestamp"
    else:
        seeds += f" ({spelled_seeds(sorted(made.seeds))})"
    out.print(f"{seeds}, {len(made.branch_names)} branches each, to step {made.horizon}")
    read = "not read" if data.dataset_sha256 is None else f"{data.samples} samples"
    files = counted(len(registration.program.code), "source file")
    out.print(f"bound: {files}, data ({read}), probe")
    out.print(f"plan: {path}")
    out.print(f"signed by: {fingerprint}")
    if registration.seeds_from == "timestamp":
        out.print(f"next: auditkit timestamp request {path}")
    else:
        out.print(f"next: auditkit run {program} --plan {path} --out FOLDER")
