"""The seeds of a study: what is complete of them is kept, the rest is run.

A trunk and every branch are noted as they end (:mod:`auditkit.files.run_parts`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from auditkit.engines.remote_workers import RemoteWorkers, refuse_command
from auditkit.errors import AuditError, PlanError
from auditkit.files import store
from auditkit.files.run_folder import FinishedSeed, RunFolder
from auditkit.files.run_parts import TRUNK, BranchPart, TrunkPart, present
from auditkit.observe.machine.opened import changed_files
from auditkit.processes.side_by_side import Slots
from auditkit.processes.worker_pool import Workers, run_apart
from auditkit.records.job import Job, Progress
from auditkit.records.manifest import CODE_FOLDER
from auditkit.records.opened import some_names
from auditkit.records.results import BranchesResult, TrunkResult
from auditkit.study.request import StudyRequest
from auditkit.study.samples import require_same_samples
from auditkit.study.script_workers import ScriptWorkers, require_seeded

Report = Callable[[Progress], None]


@contextmanager
def workers_of(
    request: StudyRequest, given: Workers | None, slots: Slots | None = None
) -> Iterator[Workers | ScriptWorkers]:
    """What runs the program; it is stopped at the end unless it was given."""
    if request.command:
        refuse_command(request.engine)
        with ScriptWorkers(request.command) as scripts:
            yield scripts
    elif given is not None:
        if slots is not None:
            given.slots = slots
        yield given
    else:
        made = (
            Workers(slots=slots)
            if request.engine is None
            else RemoteWorkers(request.engine, request.jobs)
        )
        with made as workers:
            yield workers


def run_seeds(
    request: StudyRequest, folder: RunFolder, report: Report, given: Workers | None
) -> list[FinishedSeed]:
    """Run what is not complete yet of every seed; all that are run, in the plan's order.

    Of a study with several forks there is one for each seed and fork, those of a seed together.
    """
    request = replace(request, position_recipe=_position_recipe(request, folder))
    finished: dict[int, tuple[FinishedSeed, ...]] = {}
    run = _run_forks if request.plan.further_forks else _run_seed
    slots, stopped = Slots(request.jobs, len(request.seeds)), threading.Event()

    def run_seed(seed: int) -> tuple[FinishedSeed, ...]:
        try:
            return run(workers, request, folder, seed, report)
        except AuditError as error:
            if not stopped.is_set():
                _require_same_data(request, seed, error)
            raise
        finally:
            slots.end_seed()

    with (
        workers_of(request, given, slots) as workers,
        ThreadPoolExecutor(max_workers=request.jobs) as pool,
    ):
        running = {pool.submit(run_seed, seed): seed for seed in request.seeds}
        try:
            ended, _ = wait(running, return_when=FIRST_EXCEPTION)
            for future, seed in running.items():  # of several that failed, the first is raised
                if future in ended:
                    finished[seed] = future.result()
        except BaseException:
            stopped.set()
            workers.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [each for seed in request.seeds for each in finished[seed]]


def _position_recipe(request: StudyRequest, folder: RunFolder) -> int | None:
    """By which recipe the study's other seeds were looked at: an earlier build may have run them.

    None where there are none yet.
    """
    if request.earlier is not None:
        return request.earlier.manifest.program.observed.position_recipe
    forks = request.plan.forks if request.plan.further_forks else (folder.fork,)
    for seed in request.seeds:
        for fork in forks:
            trunk = RunFolder(folder.path, fork).parts(seed).trunk()
            if trunk is not None:
                return trunk.result.observed.position_recipe
    return None


def _run_forks(
    workers: Workers | ScriptWorkers,
    request: StudyRequest,
    folder: RunFolder,
    seed: int,
    report: Report,
) -> tuple[FinishedSeed, ...]:
    """Run a seed's one trunk to its end, then the branches of one fork after the other."""
    plan = request.plan
    folders = [RunFolder(folder.path, fork) for fork in plan.forks]
    jobs = [
        _seed_job(replace(request, plan=plan.at(each.fork or 0)), each, seed) for each in folders
    ]
    trunks = [each.parts(seed).trunk() for each in folders]
    if all(t is not None and _is_left(job, t) for job, t in zip(jobs, trunks, strict=True)):
        report(Progress(seed, TRUNK, 0, 0, 0, kept=plan.horizon))
    else:
        for each, job in zip(folders, jobs, strict=True):
            store.make_folder(Path(job.out))
            each.parts(seed).discard()
        first = seed == request.seeds[0]  # its branches come from another import
        job = replace(
            jobs[0], kind="trunk", plan=plan, fork=None, order=None, shares_imports=not first
        )
        result = workers.run(job, report)
        _require_same_code(request, seed, result)
        for each, part in zip(folders, (result, *result.further), strict=True):
            each.parts(seed).keep_trunk(
                replace(part, further=(), read_back=result.read_back, moved=result.moved)
            )
    found: list[FinishedSeed] = []
    for each in folders:
        one = replace(request, plan=plan.at(each.fork or 0))
        found += _run_seed(workers, one, each, seed, report)
    return tuple(found)


def _run_seed(
    workers: Workers | ScriptWorkers,
    request: StudyRequest,
    folder: RunFolder,
    seed: int,
    report: Report,
) -> tuple[FinishedSeed, ...]:
    """Run a seed's trunk and branches but for those that are complete."""
    parts, names = folder.parts(seed), request.plan.branch_names[1:]
    job = _seed_job(request, folder, seed)
    store.make_folder(Path(job.out))
    trunk = parts.trunk()
    kept = parts.branches(names) if trunk is not None else {}
    # The replica last: where something outside the processes (a file, a server) was changed by a
    # branch before it, it no longer equals the control.
    missing = tuple(sorted((name for name in names if name not in kept), key="replica".__eq__))
    if trunk is not None and missing and not _is_left(job, trunk):
        trunk, missing = None, tuple(sorted(names, key="replica".__eq__))

    steps = len(kept) * (request.plan.horizon - request.plan.fork_at) if trunk is not None else 0
    if trunk is not None and folder.fork is None:
        steps += request.plan.horizon  # of several forks' it is said once
    if steps:
        report(Progress(seed, TRUNK, 0, 0, 0, kept=steps))

    def keep(result: BranchesResult) -> None:
        _require_same_program(request, trunk, result)
        kept[result.branches[0].name] = parts.keep_branch(result)

    if trunk is None:
        parts.discard()
        # The first seed's share nothing, so that it is seen what imports leave to chance.
        apart = seed == request.seeds[0]
        run = partial(run_apart, workers) if apart else workers.run_seed
        results = run(replace(job, branches=missing), report, keep)
        result = next(results)
        assert isinstance(result, TrunkResult)  # noqa: S101
        _require_same_code(request, seed, result)
        if request.command and apart and request.preflight is not None:
            require_seeded(request.preflight.built, result)
        trunk = parts.keep_trunk(result)
        for _ in results:  # kept one by one
            pass
    elif missing:
        # Under its final name, where an earlier run was killed while it published.
        fork, order = (
            str(folder.path.absolute() / present(folder.path, f"{folder.seed_name(seed)}/{stem}"))
            for stem in ("fork.safetensors", "order.safetensors")
        )
        recipe, one_by_one = trunk.result.observed.position_recipe, trunk.result.read_back
        rest = replace(job, kind="branches", branches=missing, fork=fork, order=order)
        rest = replace(rest, position_recipe=recipe, one_by_one=one_by_one)
        workers.run(rest, report, keep)
    for name in trunk.result.left:
        store.remove(Path(job.out) / name)
    return (_finished(request, folder, trunk, [kept[name] for name in names]),)


def _require_same_code(
    request: StudyRequest, seed: int, result: TrunkResult | BranchesResult
) -> None:
    """Require the sources to be those of the preflight: what came after an edit is worth nothing.

    Raises:
        PlanError: Naming the file.
    """
    code = () if request.preflight is None else request.preflight.code
    known = {file.name: file.sha256 for file in code}
    for file in result.code:
        if known.get(file.name, file.sha256) != file.sha256:
            raise PlanError(
                f"{file.name} changed while the study ran",
                where=f"seed {seed}",
                hint="put it back and go on with --resume, or start again in another folder",
            )


def _require_same_program(
    request: StudyRequest, trunk: TrunkPart | None, result: BranchesResult
) -> None:
    """Require a branch to have been given the program of its trunk, which comes before it."""
    assert trunk is not None  # noqa: S101
    _require_same_code(request, trunk.seed, result)
    for built in result.built:
        trunk.result.built.require_same(built)


def _require_same_data(request: StudyRequest, seed: int, error: AuditError) -> None:
    """Where a seed has failed: say so if what the program read is no longer what it was.

    Raises:
        PlanError: Naming the files.
    """
    opened = None if request.preflight is None else request.preflight.opened
    if changed := changed_files(opened, request.program):
        raise PlanError(
            f"{some_names(changed)} changed while the study ran; it ended in: {error}",
            where=f"seed {seed}",
            hint="put it back and go on with --resume, or start again in another folder",
        ) from error


def _is_left(job: Job, trunk: TrunkPart) -> bool:
    """Whether what the branches are compared with is still there."""
    return all((Path(job.out) / name).exists() for name in trunk.result.left)


def _seed_job(request: StudyRequest, folder: RunFolder, seed: int) -> Job:
    out = folder.seed_folder(seed).absolute()  # a program may change its working folder
    return Job(
        kind="seed",
        program=request.program,
        plan=request.plan,
        seed=seed,
        out=str(out),
        suffix=store.PARTIAL,
        code=str((folder.path / CODE_FOLDER).absolute()),
        sources=() if request.preflight is None else request.preflight.code,
        fork=str(out / f"fork.safetensors{store.PARTIAL}"),
        order=str(out / f"order.safetensors{store.PARTIAL}"),
        position_recipe=request.position_recipe,
        shares_imports=True,
    )


def _finished(
    request: StudyRequest, folder: RunFolder, trunk: TrunkPart, branches: Sequence[BranchPart]
) -> FinishedSeed:
    """A seed whose parts are all there, compared with each other."""
    joined = BranchesResult.joined([part.result for part in branches])
    require_same_samples(folder, request.plan, trunk.seed, trunk.result, joined)
    parts: list[TrunkPart | BranchPart] = [trunk, *branches]
    files = [file for part in parts for file in part.files]
    ordered = tuple(sorted(files, key=lambda file: file.name))
    return FinishedSeed(trunk.seed, trunk.result, joined, ordered, folder.fork)
