"""Hold: train a session step by step to a horizon, with evidence of every step.

The loop of the Evaluator stage. It knows when a row is cut and what happens at the end of an
epoch; what is evaluated, and when, comes in as a callback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from auditkit.errors import AuditError, ProgramError
from auditkit.formats.packed_batch import Drawn
from auditkit.observe.loader.consumption import StepDriver, Taker, refuse_consumption, taking
from auditkit.observe.loader.driver import Delivery, LoaderDriver
from auditkit.observe.state.components import State
from auditkit.observe.values.codec import Leaves
from auditkit.program.program import program_failure
from auditkit.program.session import Session
from auditkit.program.untouched import fingerprint, require_untouched


class Evidence(Protocol):
    """What the loop reports to."""

    def cut(self, state: State) -> None:
        """The state at a batch boundary."""

    def consume(self, batch: Any, order: Drawn | None) -> Leaves:
        """What a step consumes."""

    def note_delivered(self, batch: Any) -> None:
        """What the loader delivered, where the step consumes something else."""

    def consume_part(self, indices: Any, batch: Any) -> None:
        """What a step without a loader says that it consumes."""

    def finish_step(self, loss: float | None) -> None:
        """The step was taken."""

    def close(self, state: State) -> None:
        """The state at the end."""


class StepCallback(Protocol):
    """What is called while a branch is held."""

    def on_boundary(self, step: int, state: State) -> None:
        """Called at the boundary before ``step``; again where an epoch turns out to be over."""

    def on_batch(self, step: int, delivery: Delivery, leaves: Leaves) -> None:
        """Called with what ``step`` consumes, before it trains."""

    def on_step_end(self, step: int, loss: float | None) -> None:
        """Called after ``step``."""


def hold(
    session: Session,
    first: int,
    last: int,
    evidence: Evidence,
    callback: StepCallback,
    has_state: Callable[[int], bool] = lambda _: True,
) -> None:
    """Train steps ``first`` .. ``last``.

    Args:
        session: The live program.
        first: The first step.
        last: The last step.
        evidence: What the loop reports to.
        callback: Called while the branch is held; of a boundary without one it is given no state.
        has_state: Of which steps the row holds the state.

    Raises:
        ProgramFailed: When the user's program raises.
        ProgramError: When its loader yields no batch.
    """
    driver = session.driver
    # A loop of its own cannot be driven.
    assert isinstance(driver, LoaderDriver | StepDriver)  # noqa: S101
    for step in range(first, last + 1):
        delivery = _deliver(session, driver, step, evidence, callback, has_state(step))
        taker: Taker = refuse_consumption
        leaves: Leaves = {}
        if isinstance(driver, StepDriver):
            taker = _taker(driver, step, evidence)
        else:
            if session.supply.replaces(step):
                given = delivery.batch
                evidence.note_delivered(given)
                batch = _supplied(session, step, given, watched=step == first)
                delivery = replace(delivery, batch=batch, delivered=given)
            leaves = evidence.consume(delivery.batch, delivery.drawn)
        callback.on_batch(step, delivery, leaves)
        with _blaming(f"step {step}"), taking(taker):
            loss = session.program.train_on(delivery.batch, step)
        if isinstance(driver, StepDriver):
            driver.end_step(step)
        evidence.finish_step(loss)
        callback.on_step_end(step, loss)
    evidence.close(session.state())


def _supplied(session: Session, step: int, given: Any, *, watched: bool) -> Any:
    """What the step consumes; whoever makes it must touch nothing else.

    It is watched at the first step and inside the window: at every step it would cost as much as
    the evidence.
    """
    if not watched and not session.supply.is_watched(step):
        return session.supply(step, given)
    before = fingerprint(session)
    batch = session.supply(step, given)
    hint = "augment= and changes of data make another batch of the one that they are given"
    require_untouched(before, fingerprint(session), f"changing the data of step {step}", hint)
    return batch


def _taker(driver: StepDriver, step: int, evidence: Evidence) -> Taker:
    def take(indices: Any, batch: Any) -> Any:
        indices, batch = driver.take(step, indices, batch)
        evidence.consume_part(indices, batch)
        return indices if batch is None else batch

    return take


def _deliver(
    session: Session,
    driver: LoaderDriver | StepDriver,
    step: int,
    evidence: Evidence,
    callback: StepCallback,
    is_cut: bool,
) -> Delivery:
    empty_epochs = 0
    while True:
        streams = session.streams()
        state: State = {}
        if is_cut:
            state = session.state(streams)
            evidence.cut(state)
        callback.on_boundary(step, state)
        with _blaming(f"loading the batch of step {step}"):
            delivery = driver.next(streams)
        if delivery is not None:
            return delivery
        if driver.position == 0 and driver.epoch >= 0:
            empty_epochs += 1
        if empty_epochs > 1:
            raise ProgramError("the data loader yields no batch", step=step)
        if driver.epoch >= 0:
            epoch = driver.epoch
            with _blaming(f"the end of epoch {epoch}"):
                session.program.end_epoch(epoch)
        with _blaming("iterating the data loader"):
            driver.begin_epoch()


@contextmanager
def _blaming(what: str) -> Iterator[None]:
    """Turn what the user's program raises into one line that says where it was raised."""
    try:
        yield
    except AuditError:
        raise
    except Exception as error:
        raise program_failure(error, what) from error
