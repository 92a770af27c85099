"""What a study asks of a program long after its first steps, asked at once.

A schedule that ends before the horizon, and a stream of batches that can be gone through once,
are found where training gets there, which may be hours. The process of a preflight is thrown away:
there its scheduler is stepped as often as the plan will have it stepped, without training in
between, a stream is gone through without training on it, and the indices of segments are drawn.
"""

from __future__ import annotations

import time
import warnings
from itertools import islice
from typing import Any

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from auditkit.errors import AuditError, PlanError, ProgramError
from auditkit.formats.ordering import Batch
from auditkit.formats.quote import class_of
from auditkit.observe.loader.driver import Delivery, LoaderDriver
from auditkit.observe.rng.streams import capture_streams
from auditkit.program.program import Program, program_failure
from auditkit.program.segments import Segments
from auditkit.program.session import Session
from auditkit.records.plan import StudyPlan
from auditkit.study.worker.segments import SegmentWatch

#: They yield as many indices as they have.
_SAMPLERS = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler)

#: What each of these may take.
_SECONDS = 1.0


def try_schedule(program: Program, plan: StudyPlan, done: int) -> tuple[str, ...]:
    """Step a program's scheduler until the plan's horizon; it is of no use afterwards.

    Args:
        program: The program.
        plan: The plan.
        done: Steps that it has trained.

    Returns:
        What cannot be told, a line each: how a step of the program's own goes on with it.

    Raises:
        PlanError: When it raises before that.
    """
    scheduler: Any = program.scheduler
    every = _steps_between(program, done)
    if scheduler is None or every is None:
        return ()
    started = time.perf_counter()
    first, last = (_count(program, step, every) + 1 for step in (done, plan.horizon))
    for number in range(first, last):
        step = number * every + (program.scheduler_interval == "epoch")
        if time.perf_counter() - started > _SECONDS:
            return (f"the scheduler was tried up to step {step} only: it takes long",)
        try:
            with warnings.catch_warnings():  # that the optimizer does not step in between
                warnings.simplefilter("ignore")
                scheduler.step()
        except Exception as error:  # whatever a scheduler may raise
            what = f"the scheduler {class_of(scheduler)}, at step {step} of {plan.horizon},"
            failure = program_failure(error, what)
            if _is_its_own(program):
                return (
                    f"{failure.message}, if the program's step goes on to step it for every batch",
                )
            raise PlanError(
                failure.message,
                where=failure.where,
                hint=f"let the schedule last to T, for {last - 1} steps of the scheduler, or give "
                "an earlier --horizon",
            ) from error
    return ()


def try_forks(session: Session, plan: StudyPlan) -> None:
    """Ask the loader whether it could be frozen at every t0, as far as it knows.

    Raises:
        UnsupportedLoader: When it could not.
    """
    if isinstance(session.driver, LoaderDriver):
        for step in plan.forks:
            session.driver.refuse_ahead(step)


def _is_its_own(program: Program) -> bool:
    """Whether a step of the program's own says when its scheduler steps."""
    return program.step is not None and program.scheduler_interval == "step"


def _steps_between(program: Program, done: int) -> int | None:
    """Training steps from one step of the scheduler to the next; None where that is not known."""
    if program.scheduler_interval == "epoch":
        loader = program.data_loader
        kinds = type(loader.batch_sampler), type(loader.sampler)
        # Of others there may be no length, or it may be an estimate, or change: a stream's, too.
        return len(loader) if kinds[0] is BatchSampler and kinds[1] in _SAMPLERS else None
    if not _is_its_own(program):
        return program.accumulate
    scheduler: object = program.scheduler
    if not isinstance(scheduler, LRScheduler) or isinstance(scheduler, ReduceLROnPlateau):
        return None
    return 1 if scheduler.last_epoch == done else None


def _count(program: Program, step: int, every: int) -> int:
    """How often the scheduler was stepped when a training step has ended."""
    # The end of an epoch is seen when the next batch is asked for.
    return (step - (program.scheduler_interval == "epoch")) // every


def try_stream(session: Session, plan: StudyPlan) -> None:
    """Go through a stream of batches as far as the plan does, if that takes no time.

    Args:
        session: A live program that has not been iterated, and will not be used.
        plan: The plan.

    Raises:
        ProgramError: When there are no more batches, and the plan needs some.
        ProgramFailed: When loading one raises.
    """
    driver, program = session.driver, session.program
    is_fed = program.step is not None or program.on_epoch_end is not None  # may decide what comes
    if is_fed or not driver.iterable or not isinstance(driver, LoaderDriver):
        return
    started, n_batches, n_empty = time.perf_counter(), 0, 0
    while n_empty < 2:
        n_empty += 1
        driver.begin_epoch()
        while _next(driver, n_batches + 1) is not None:
            n_batches, n_empty = n_batches + 1, 0
            if n_batches >= plan.horizon or time.perf_counter() - started > _SECONDS:
                return
    raise ProgramError(
        f"the data loader yields {n_batches} batches and then none, also when it is iterated again",
        expected=f"{plan.horizon} batches, the plan's horizon, in as many epochs as that takes",
        hint="let every iteration of the data set begin anew: make in __iter__ what it yields from",
    )


def try_order(session: Session, plan: StudyPlan) -> tuple[str, ...]:
    """Compare the segments that a program's loader draws with the plan; nothing is trained.

    Args:
        session: A live program that has not been iterated, and will not be used.
        plan: The plan.

    Returns:
        What could not be compared, a line each.

    Raises:
        PlanError: When the second segment has another share of the first one's indices, or others
            of its classes, than the plan says.
        ProgramFailed: When drawing it or loading a batch raises.
    """
    driver, program, asked = session.driver, session.program, plan.segments
    if asked is None or not (asked.overlap is not None or asked.same_classes):
        return ()
    if not isinstance(driver, LoaderDriver) or driver.iterable:
        return ()
    is_fed = program.step is not None or program.on_epoch_end is not None  # may decide what comes
    if not isinstance(program.data_loader.batch_sampler, Segments) and (
        is_fed or not driver.per_sample
    ):
        return ("whether the segments are as planned is seen when the trunk has come to T",)
    until = time.perf_counter() + _SECONDS
    try:
        order = list(islice(driver.draw(until), plan.horizon))
    except AuditError:
        raise
    except Exception as error:  # whatever a sampler may raise
        raise program_failure(error, "drawing the order") from error
    watch = SegmentWatch(session, plan)
    if asked.same_classes and driver.loads_by_index:
        for step in range(plan.fork_at + 1, len(order) + 1):
            if time.perf_counter() > until:
                order = []
                break
            watch.note_classes(step, order[step - 1], _loaded(driver, order[step - 1], step), plan)
    if len(order) < plan.horizon:
        return ("the segments were not compared with the plan: it takes long",)
    watch.require_planned(order)
    return ()


def _loaded(driver: LoaderDriver, batch: Batch, step: int) -> Any:
    try:
        return driver.load([batch])[0]
    except AuditError:
        raise
    except Exception as error:  # whatever a data set may raise
        raise program_failure(error, f"loading the batch of step {step}") from error


def _next(driver: LoaderDriver, step: int) -> Delivery | None:
    try:
        return driver.next(capture_streams())
    except AuditError:
        raise
    except Exception as error:  # whatever a data set may raise
        raise program_failure(error, f"loading the batch of step {step}") from error
