"""What a worker process does with a job: the stages, one after the other.

Runs in a fresh process (see ``auditkit.processes.worker_pool``), under deterministic kernels, and
leaves files and one result record behind. Replay runs the very same jobs.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from auditkit.errors import AuditError, ProgramFailed
from auditkit.formats.ordering import Batch
from auditkit.formats.redaction import expand_home
from auditkit.formats.run_files import OrderFile
from auditkit.observe.machine.code import import_notes, user_code
from auditkit.observe.machine.determinism import deterministic, require_settings
from auditkit.observe.machine.environment import environment
from auditkit.observe.machine.imports import note_held_files, note_read_backs
from auditkit.observe.machine.opened import opened_files
from auditkit.observe.values.digests import commitments
from auditkit.perturbations.own import adopted, require_declared
from auditkit.perturbations.registry import perturbation_of
from auditkit.program.arguments import lacking_options, own_files_note, where_data_lie
from auditkit.program.program import LoadedFactory
from auditkit.program.reference import References
from auditkit.program.session import Session, hidden_values, open_session
from auditkit.records.environment import Environment
from auditkit.records.job import Description, Job, ModuleTrace, Progress
from auditkit.records.manifest import BranchRecord
from auditkit.records.opened import OpenedFiles, unhashed_notes
from auditkit.records.plan import PerturbationSpec, StudyPlan
from auditkit.records.preflight import Preflight
from auditkit.records.registration import RegisterResult
from auditkit.records.results import BranchesResult, BuiltProgram, TrunkResult
from auditkit.study.stages.auditor import Auditor
from auditkit.study.stages.describer import built_program, data_identity, describe
from auditkit.study.stages.forker import Fork, closed_on_error, load_fork, restore_fork
from auditkit.study.stages.holder import hold
from auditkit.study.stages.perturber import perturb
from auditkit.study.worker.ahead import try_forks, try_order, try_schedule, try_stream
from auditkit.study.worker.augmentation import require_per_sample
from auditkit.study.worker.branch_processes import Forks, Unforkable, unshared
from auditkit.study.worker.callbacks import BranchCallback, ModuleCallback
from auditkit.study.worker.causal_break import Breaking
from auditkit.study.worker.data_changes import change_data
from auditkit.study.worker.forks import ForksCallback, fork_jobs
from auditkit.study.worker.job_files import (
    branch_record,
    branch_result,
    follow_control,
    measure_samples,
    plan_of,
    read_order,
)
from auditkit.study.worker.loaded_program import LoadedProgram, load_program
from auditkit.study.worker.nudges import nudged_after, try_nudges
from auditkit.study.worker.preflight import PreflightCallback, trial_steps
from auditkit.study.worker.program_warnings import noted_warnings
from auditkit.study.worker.recalibration import with_batches
from auditkit.study.worker.segments import SegmentWatch
from auditkit.study.worker.yoking import keep_consumed, yoke

Report = Callable[[Progress], None]
Result = (
    TrunkResult
    | BranchesResult
    | BuiltProgram
    | Description
    | Preflight
    | ModuleTrace
    | RegisterResult
    | Environment
)


def run_job(
    job: Job,
    report: Report,
    wait: Callable[[], object] = lambda: None,
    lent: Callable[[int], int] = lambda _: 0,
) -> Result:
    """Do a job.

    Of a job of several branches, this returns in as many processes, in each with one result.

    Args:
        job: What to do.
        report: Called with the progress, many times a second.
        wait: Called between trunk and branches of a ``seed`` job; returns when fork and order are
            where the job says.
        lent: How many processes beside one may be at work of so many as could be.

    Raises:
        AuditError: Whatever went wrong.
    """
    if job.kind == "environment":
        with deterministic(job.plan.threads if job.plan else 1):
            return environment()
    with load_program(job) as program:
        return run_loaded(program, job, report, wait, lent)


def run_loaded(
    program: LoadedProgram,
    job: Job,
    report: Report,
    wait: Callable[[], object] = lambda: None,
    lent: Callable[[int], int] = lambda _: 0,
) -> Result:
    """As :func:`run_job`, of a program that this process has imported."""
    factory, before = program.factory, program.before or Unforkable.now()
    branches = partial(_branches, before, (lambda _: 0) if job.one_by_one else lent)
    kinds: dict[str, Callable[[Job, LoadedFactory, Report], Result]] = {
        "describe": _describe,
        "build": _build,
        "preflight": partial(_preflight, before, program.seconds),
        "register": _register,
        "trunk": _trunk,
        "branches": branches,
        "seed": partial(_seed, before, wait, branches),
        "modules": _modules,
    }
    require_declared(job.plan)
    result = kinds[job.kind](job, factory, report)
    require_settings(program.settings)
    if isinstance(result, TrunkResult):
        opens = program.watch.opens
        files = (f"the file {opens.read_back_name}",) if opens.read_back_name else ()
        result = replace(result, read_back=opens.read_back, moved=(*result.moved, *files))
    if job.judged and isinstance(result, (TrunkResult, BranchesResult)):
        result = replace(result, imported=program.watch.files(), notes=())
    elif job.code and isinstance(result, (TrunkResult, BranchesResult)):
        opened = result.opened if isinstance(result, TrunkResult) else None
        notes = (*result.notes, *import_notes(), *_own_files_note(job, factory, opened))
        result = replace(result, notes=notes)
    return result


def _trunk(job: Job, factory: LoadedFactory, report: Report) -> TrunkResult:
    plan = plan_of(job)
    with _error_location(f"seed {job.seed}"), _session(job, factory) as session:
        measure_samples(session, plan, None)
        keep_consumed(session, plan)
        auditor = Auditor(1, commit_data=True, recipe=plan.evidence_digest, beside=True)
        report_step = _step_reporter(report, job, plan.horizon, lambda t: _phase(plan, t))
        callback = ForksCallback(session, fork_jobs(job), report_step)
        hidden = hidden_values(session) if job.code else None
        note_read_backs()
        hold(session, 1, plan.horizon, auditor, callback, plan.has_state)
        note_held_files()
        moved = () if hidden is None else hidden.moved()
        return replace(callback.result(auditor), moved=moved)


def _branches(
    before: Unforkable | None,
    lent: Callable[[int], int],
    job: Job,
    factory: LoadedFactory,
    report: Report,
) -> BranchesResult:
    """Run one of the job's branches; the others in forks of this process, where it can be forked.

    In every process this returns the result of one branch.
    """
    plan = plan_of(job)
    with _error_location(f"seed {job.seed}"), _session(job, factory) as session:
        built = built_program(session)
        name = Forks(before).each(job.branches, lent)
        steps = plan.horizon - plan.fork_at
        report_step = _step_reporter(report, job, steps, _constant(name), -plan.fork_at)
        with _error_location(name):
            record = _branch(job, session, name, report_step)
    return branch_result(job, record, built)


def _seed(
    before: Unforkable | None,
    wait: Callable[[], object],
    branches: Callable[[Job, LoadedFactory, Report], BranchesResult],
    job: Job,
    factory: LoadedFactory,
    report: Report,
) -> TrunkResult | BranchesResult:
    """Run the trunk, then the branches, as above; where there is no forking, the trunk alone.

    Both have the program's imports in common, which take seconds; each calls the factory itself,
    so that it is seen where it makes something else in every process.
    """
    if Forks(before).begin():
        return _trunk(job, factory, report)
    wait()
    return branches(job, factory, report)


def _examine(plan: StudyPlan, session: Session) -> None:
    """Refuse augmentation that does not keep the promise of its mode; asked of one seed.

    Raises:
        AugmentationDrift: Naming sample, generator and library.
    """
    if session.driver.per_sample:
        kinds = (perturbation_of(spec.name).declaration.kind for spec in plan.perturbations)
        require_per_sample(session, moves="order" in kinds)


def _branch(
    job: Job, session: Session, name: str, report_step: Callable[[int], None]
) -> BranchRecord:
    plan = plan_of(job)
    _, spec = plan.branch(name)
    version = job.version_of(name)
    with closed_on_error(load_fork(Path(job.fork or ""))) as saved:
        fork, order = with_batches(session, saved), read_order(job)
        if spec is not None:
            measure_samples(session, plan, spec)
        follow, reset = _start_branch(job, session, fork, order, spec, version)
    callback = BranchCallback(
        *(session, plan, fork.recalibration, order.content, report_step),
        References(Path(job.references or job.out)),
        job.position_recipe,
    )
    auditor = Auditor(plan.fork_at + 1, recipe=plan.evidence_digest)
    breaking = Breaking(callback, job, session, name, fork.recalibration)
    hold(session, plan.fork_at + 1, plan.horizon, auditor, breaking, plan.has_state)
    callback.segments.close()
    record = branch_record(job, session, name, auditor, callback, follow, reset)
    return replace(record, broken=breaking.record)


def _modules(job: Job, factory: LoadedFactory, report: Report) -> ModuleTrace:
    plan = plan_of(job)
    assert job.step is not None  # noqa: S101 # every modules job names its step
    with _session(job, factory) as session:
        first, name, recalibration = 1, "", []
        if job.fork is not None:
            name = job.branches[0]
            _, spec = plan.branch(name)
            with closed_on_error(load_fork(Path(job.fork))) as saved:
                fork = with_batches(session, saved)
                _start_branch(job, session, fork, read_order(job), spec, job.version_of(name))
            first, recalibration = plan.fork_at + 1, fork.recalibration
        report_step = _step_reporter(report, job, job.step, _constant("modules"))
        segments = SegmentWatch(session, plan)
        callback = ModuleCallback(session.program.model, job.step, report_step, segments)
        breaking = Breaking(callback, job, session, name, recalibration)
        hold(session, first, job.step, Auditor(first), breaking)
        segments.close()
        return ModuleTrace(tuple(callback.entries))


def _describe(job: Job, factory: LoadedFactory, report: Report) -> Description:
    return Description(factory.plan, tuple(found.own for found in adopted().values()))


def _build(job: Job, factory: LoadedFactory, report: Report) -> BuiltProgram:
    with _error_location(f"seed {job.seed}"), _session(job, factory) as session:
        return built_program(session)


def _preflight(
    before: Unforkable | None, seconds: float, job: Job, factory: LoadedFactory, report: Report
) -> Preflight:
    """Train a few steps and ask for everything; see :mod:`auditkit.study.worker.preflight`."""
    plan, imports_alone = plan_of(job), bool(unshared(before))
    n_steps = trial_steps(plan, job.step or 0)
    report_step = _step_reporter(report, job, n_steps, _constant("preflight"))
    with _error_location(f"seed {job.seed}"), noted_warnings() as warned:
        begin = time.perf_counter()
        with _session(job, factory) as session:
            built_after, alone = time.perf_counter() - begin, unshared(before)
            built = built_program(session)
            try_forks(session, plan)
            _examine(plan, session)
            scales = job.nudges if session.program.named_probes else ()
            nudged = nudged_after(plan) if scales else None
            callback = PreflightCallback(session, plan, report_step, nudged)
            hold(session, 1, n_steps, auditor := Auditor(1, recipe=plan.evidence_digest), callback)
            cost, last = callback.cost(auditor, seconds, built_after), n_steps
            while (step := callback.next_attempt) is not None:
                hold(session, last + 1, step + 1, Auditor(last + 1), callback)
                last = step + 1
            undecided = callback.require_possible()
            if nudged is not None and nudged >= last:
                hold(session, last + 1, nudged + 1, Auditor(last + 1), callback)
                last = nudged + 1
        with _session(job, factory) as again:
            built.require_same(built_program(again), "when it is called again")
            try_stream(again, plan)
            undecided += try_order(again, plan)
        undecided += try_schedule(session.program, plan, last)
        make = partial(_open, job, factory)
        state = callback.nudged
        nudges = () if state is None else try_nudges(make, state, plan, scales)
    opened = opened_files(job.program.arguments)
    return Preflight(
        cost=replace(cost, alone=alone, imports_alone=imports_alone),
        built=built,
        code=user_code(),
        opened=opened,
        environment=environment(),
        undecided=undecided,
        nudges=nudges,
        notes=(*unhashed_notes(opened), *_own_files_note(job, factory, opened), *warned),
    )


def _own_files_note(job: Job, factory: LoadedFactory, opened: OpenedFiles | None) -> Iterator[str]:
    parameters = inspect.signature(factory.make).parameters
    yield from own_files_note(parameters, Path(job.program.folder), opened)


def _register(job: Job, factory: LoadedFactory, report: Report) -> RegisterResult:
    """Build the program and describe its code and data; nothing is trained."""

    def report_sample(done: int, total: int) -> None:
        report(Progress(job.seed, "data", done, done, total))

    with _session(job, factory) as session:
        streams = job.seed if job.sample_seed is None else job.sample_seed
        initial = commitments(session.state())
        data = data_identity(session, report_sample, whole=job.step != 0, sample_seed=streams)
        return RegisterResult(describe(session), initial, user_code(None, ""), data, environment())


def _start_branch(
    job: Job,
    session: Session,
    fork: Fork,
    order: OrderFile,
    spec: PerturbationSpec | None,
    version: int | None,
) -> tuple[list[Batch], tuple[str, ...]]:
    """Bring a session to the start of a branch.

    Returns:
        The batches that it will be delivered, and what was reset, see :func:`perturb`.
    """
    plan = plan_of(job)
    follow = follow_control(session, plan, order, spec)
    yoke(session, plan, job, order.batches, spec)
    change_data(session, plan, spec, version)
    restore_fork(session, fork)
    return follow, perturb(session, spec, version, fork.recalibration)


@contextmanager
def _error_location(where: str) -> Iterator[None]:
    """Add to errors which branch they come from."""
    try:
        yield
    except AuditError as error:
        error.where = where if error.where is None else f"{where}, {error.where}"
        raise


@contextmanager
def _session(job: Job, factory: LoadedFactory) -> Iterator[Session]:
    session = _open(job, factory)
    try:
        yield session
    except ProgramFailed as error:  # of data that are read while it trains
        if isinstance(error.__cause__, FileNotFoundError):
            parameters = inspect.signature(factory.make).parameters
            arguments = job.program.arguments
            error.lacking = lacking_options(parameters, arguments, error.__cause__)
            error.hint = error.hint or where_data_lie(error.lacking)
        raise
    finally:
        session.close()


def _open(job: Job, factory: LoadedFactory) -> Session:
    arguments = {name: expand_home(value) for name, value in job.program.arguments.items()}
    return open_session(factory, arguments, plan_of(job), job.seed)


def _constant(name: str) -> Callable[[int], str]:
    return lambda step: name


def _phase(plan: StudyPlan, step: int) -> str:
    return "trunk" if step <= plan.fork_at else "control"


def _step_reporter(
    report: Report, job: Job, total: int, branch: Callable[[int], str], base: int = 0
) -> Callable[[int], None]:
    fork = plan_of(job).fork_at

    def report_step(step: int) -> None:
        report(Progress(job.seed, branch(step), step, base + step, total, fork))

    return report_step
