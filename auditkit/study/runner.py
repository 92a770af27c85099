"""Run a study: the five stages over every seed, then one signed manifest.

::

    for each seed, in processes of their own:
        trunk      steps 1..t0..T: trunk, fork, control
        branches   from the fork's file, each in its own: placebos, treatments, replica

While this goes on every file ends in ``.partial`` and there is no manifest. A seed is complete
once its ``seed.json.partial`` lists its files; ``resume`` rechecks complete seeds by SHA-256
and runs the others from their start.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from auditkit.errors import PlanError
from auditkit.files import store
from auditkit.files.run_folder import FinishedSeed, RunFolder, merged_code, merged_environment
from auditkit.formats.redaction import redact_text
from auditkit.formats.statements import to_statement
from auditkit.observe.machine.code import git_state
from auditkit.processes.worker_pool import Workers, run_apart
from auditkit.records.declaration import Declaration, declaration_of
from auditkit.records.job import Job, ProgramSource, Progress
from auditkit.records.manifest import (
    CODE_FOLDER,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    SIGNER_NAME,
    FileRecord,
    Producer,
    ProgramRecord,
    RunTimes,
    SeedRecord,
    StudyManifest,
)
from auditkit.records.opened import merged_opened, some_names, unhashed_notes
from auditkit.records.plan import StudyPlan
from auditkit.records.registration import PLAN_NAME, PLAN_ROLE
from auditkit.records.replication import equal_seeds
from auditkit.records.results import BranchesResult, TrunkResult
from auditkit.signing.envelopes import sign_statement
from auditkit.signing.keys import public_line
from auditkit.signing.trust import SigningKey
from auditkit.study.replicas import refuse_parted_branches
from auditkit.study.samples import require_same_samples, unmeasured_samples
from auditkit.study.script_workers import SEED, ScriptWorkers
from auditkit.study.variables import unreplayed_variables
from auditkit.version import __version__

Report = Callable[[Progress], None]
Warn = Callable[[str], None]


@dataclass(frozen=True)
class StudyRequest:
    """What to run.

    Attributes:
        program: Where the factory is.
        plan: The plan, perturbations resolved (see :func:`resolve`).
        out: The run's folder.
        jobs: Seeds that run at the same time, in processes of their own.
        resume: Whether to finish an interrupted run.
        command: The user's own command, where the program is a script with a Recorder in it;
            see :func:`script_source`.
        plan_file: The signed plan (:mod:`auditkit.study.planning`) that the study is bound to.
    """

    program: ProgramSource
    plan: StudyPlan
    out: Path
    jobs: int = 1
    resume: bool = False
    command: tuple[str, ...] = ()
    plan_file: bytes | None = None


def script_source(command: Sequence[str], plan: StudyPlan, folder: Path) -> ProgramSource:
    """The program that a user's own command is.

    Args:
        command: The command; ``{seed}`` in it stands for the study seed.
        plan: The plan.
        folder: Where it runs.

    Raises:
        PlanError: When several seeds would run the same command.
    """
    if len(plan.seeds) > 1 and not any(SEED in part for part in command):
        raise PlanError(
            f"{len(plan.seeds)} seeds, and the command is the same for all",
            hint=f"give the script its seed: -- python train.py --seed {SEED}",
        )
    return ProgramSource(shlex.join(map(redact_text, command)), str(folder), {})


def resolve(plan: StudyPlan, declarations: Mapping[str, Declaration]) -> StudyPlan:
    """Fill in the parameters of every perturbation.

    Raises:
        UnknownPerturbation: On a name, parameter or value that no declaration has.
        PlanError: When two perturbations turn out to be the same.
    """
    specs = [declaration_of(spec.name, declarations).resolve(spec) for spec in plan.perturbations]
    return plan.with_perturbations(specs)


def run_study(
    request: StudyRequest,
    key: SigningKey,
    report: Report = lambda _: None,
    warn: Warn = lambda _: None,
    workers: Workers | None = None,
) -> Path:
    """Run a study to its signed manifest.

    Args:
        request: What to run.
        key: What to sign with.
        report: Called with the progress of every worker, from several threads.
        warn: Called with what is no error, but will not verify.
        workers: Run the program; stopped only where something went wrong. By default they are
            started here. Of no use to a script.

    Returns:
        Path of the manifest.

    Raises:
        ReplicaMismatch: When a branch that nothing was changed in parts from its control; the
            manifest is there all the same, to be verified and compared.
        AuditError: Whatever else went wrong; files of complete seeds are kept for ``resume``.
    """
    if request.jobs < 1:
        raise PlanError(f"jobs must be at least 1, not {request.jobs}")
    folder = RunFolder(request.out)
    with folder.locked():
        started = folder.begin(
            request.plan,
            request.program,
            _now(),
            resume=request.resume,
            plan_sha256=_sha256(request.plan_file),
        )
        finished = _run_seeds(request, folder, report, workers)
        if text := unmeasured_samples(request.plan, finished[0]):
            warn(text)
        notes = (note for seed in finished for note in (*seed.trunk.notes, *seed.branches.notes))
        for note in dict.fromkeys(notes):
            warn(note)
        manifest = _manifest(request, finished, started)
        for note in unhashed_notes(manifest.opened):
            warn(note)
        for text in manifest.environment.contradictions(request.plan.threads):
            warn(f"this run will not verify: {text}; leave it to the plan")
        for (first, again), names in equal_seeds(manifest.seeds).items():
            warn(
                f"this run will not verify: seeds {first} and {again} are one seed, with the same "
                f"{', '.join(names)}; let the factory's seed decide what is drawn"
            )
        envelope = sign_statement(to_statement(manifest), key.key)
        signer = f"{public_line(key.key)}\n".encode()
        folder.publish(manifest.files, {SIGNER_NAME: signer, MANIFEST_NAME: envelope})
    if not request.command:
        _warn_of_variables(request.out, manifest, warn)
    refuse_parted_branches(request.out, manifest)
    return request.out / MANIFEST_NAME


def _run_seeds(
    request: StudyRequest, folder: RunFolder, report: Report, given: Workers | None
) -> list[FinishedSeed]:
    """Run the seeds that are not complete yet; all of them in the plan's order."""
    finished = {seed: done for seed in request.plan.seeds if (done := folder.finished_seed(seed))}
    waiting = [seed for seed in request.plan.seeds if seed not in finished]
    with ExitStack() as stack:
        workers: Workers | ScriptWorkers | None = given
        if request.command:
            workers = stack.enter_context(ScriptWorkers(request.command))
        elif workers is None:
            workers = stack.enter_context(Workers())
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=request.jobs))
        running = {
            pool.submit(_run_seed, workers, request, folder, seed, report): seed for seed in waiting
        }
        try:
            ended, _ = wait(running, return_when=FIRST_EXCEPTION)
            for future, seed in running.items():  # of several that failed, the first is raised
                if future in ended:
                    finished[seed] = future.result()
        except BaseException:
            workers.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [finished[seed] for seed in request.plan.seeds]


def _warn_of_variables(out: Path, manifest: StudyManifest, warn: Warn) -> None:
    """Say that a replay will lack what the program's code looks for."""
    code = (store.read_bytes(out / CODE_FOLDER / file.name) for file in manifest.program.code)
    if names := unreplayed_variables(code):
        warn(
            f"the program's code reads environment variables that a replay does not have: "
            f"{some_names(names)}; take an argument instead, or tell verifiers to give --env NAME"
        )


def _run_seed(
    workers: Workers | ScriptWorkers,
    request: StudyRequest,
    folder: RunFolder,
    seed: int,
    report: Report,
) -> FinishedSeed:
    out = folder.seed_folder(seed).absolute()  # a program may change its working folder
    store.make_folder(out)
    names = request.plan.branch_names[1:]
    job = Job(
        kind="seed",
        program=request.program,
        plan=request.plan,
        seed=seed,
        out=str(out),
        suffix=store.PARTIAL,
        code=str((folder.path / CODE_FOLDER).absolute()),
        fork=str(out / f"fork.safetensors{store.PARTIAL}"),
        order=str(out / f"order.safetensors{store.PARTIAL}"),
        # The replica last: where something outside the processes (a file, a server) was changed
        # by a branch before it, it no longer equals the control.
        branches=tuple(sorted(names, key="replica".__eq__)),
    )
    # The first seed's share nothing, so that it is seen what a program's imports leave to chance.
    apart = seed == request.plan.seeds[0]
    trunk, branches = run_apart(workers, job, report) if apart else workers.run_seed(job, report)
    assert isinstance(trunk, TrunkResult)  # noqa: S101
    assert isinstance(branches, BranchesResult)  # noqa: S101
    for built in branches.built:
        trunk.built.require_same(built)
    require_same_samples(out, request.plan, seed, trunk, branches)
    records = {branch.name: branch for branch in branches.branches}
    branches = replace(branches, branches=tuple(records[name] for name in names))
    return folder.finish_seed(seed, trunk, branches)


def _manifest(request: StudyRequest, finished: list[FinishedSeed], started: str) -> StudyManifest:
    code = merged_code(finished)
    module_name, _, _ = request.program.target.partition(":")
    source = module_name if module_name.endswith(".py") else module_name.partition(".")[0]
    if request.command:  # the script is the first of its files that the command names
        source = next((part for part in request.command if part.endswith(".py")), "")
    commit, dirty = git_state(Path(request.program.folder), source)
    files = [file for seed in finished for file in seed.files]
    if request.plan_file is not None:
        files.append(_keep_plan(request.out, request.plan_file))
    files.extend(
        FileRecord(f"{CODE_FOLDER}/{file.name}", "code", size, file.sha256)
        for file, size in zip(code, RunFolder(request.out).code_sizes(code), strict=True)
    )
    return StudyManifest(
        schema_version=SCHEMA_VERSION,
        producer=Producer("auditkit", __version__),
        run=RunTimes.ending(started, _now()),
        plan=request.plan,
        program=ProgramRecord(
            target=request.program.target,
            arguments=request.program.arguments,
            description=finished[0].trunk.program,
            git_commit=commit,
            git_dirty=dirty,
            code=code,
            command=tuple(map(redact_text, request.command)),
        ),
        environment=merged_environment(finished),
        seeds=tuple(_seed_record(seed) for seed in finished),
        files=tuple(sorted(files, key=lambda file: file.name)),
        opened=merged_opened(seed.trunk.opened for seed in finished),
    )


def _keep_plan(folder: Path, data: bytes) -> FileRecord:
    """Put the signed plan beside the study's other files, as part of it."""
    store.write_bytes(folder / f"{PLAN_NAME}{store.PARTIAL}", data)
    return FileRecord(PLAN_NAME, PLAN_ROLE, len(data), _sha256(data) or "")


def _sha256(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def _seed_record(finished: FinishedSeed) -> SeedRecord:
    trunk, folder = finished.trunk, RunFolder.seed_name(finished.seed)
    return SeedRecord(
        seed=finished.seed,
        fork=f"{folder}/fork.safetensors",
        fork_digests=trunk.fork_digests,
        order=f"{folder}/order.safetensors",
        order_sha256=trunk.order_sha256,
        trunk=f"{folder}/trunk.trace.safetensors",
        initial=trunk.initial,
        components=trunk.components,
        rng=trunk.rng,
        data=trunk.data,
        branches=(trunk.control, *finished.branches.branches),
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
