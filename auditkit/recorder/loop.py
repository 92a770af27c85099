"""Evidence of a loop that runs by itself: the passive counterpart of the holder.

Nothing is driven here. The recorded loader says when the loop requests a batch and which one
it gets; in between lies everything that the loop does. A step ends where the next batch is
requested, or where the recording ends. What is done with the rows is a :class:`RecorderBackend`.
What further loaders deliver in between belongs to the step (:class:`AuxiliaryBoundary`).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from auditkit.errors import AuditError, CaptureError, RestoreMismatch
from auditkit.formats.packed_batch import Drawn
from auditkit.observe.loader.blame import is_foreign
from auditkit.observe.loader.driver import Delivery
from auditkit.observe.loader.iteration import Boundary
from auditkit.observe.machine.code import is_user_file
from auditkit.observe.machine.distributed import always_synchronised
from auditkit.observe.rng.streams import GlobalStreams, capture_streams
from auditkit.program.session import TrainingSession
from auditkit.recorder.wrapping import InstrumentedLoop
from auditkit.study.stages.holder import Evidence, StepCallback


class AuxiliaryEvidence(Evidence, Protocol):
    """Evidence that also takes what a step draws from other loaders."""

    def consume_auxiliary(self, name: str, batch: Any, order: Drawn | None) -> None:
        """A batch of another loader."""


class Loop:
    """Cuts the rows of a loop at its batch boundaries.

    Args:
        session: The live objects.
        evidence: Takes the rows.
        callback: Called at every boundary, batch and end of a step.
        first_step: Step of the first batch that is delivered.
        restore: Writes the state that the loop resumes from, and what is changed in it; None
            where it starts at its own beginning.
        needs_warmup: See :class:`auditkit.observe.loader.iteration.Boundary`.

    Attributes:
        step: Step of the next batch that is delivered.
    """

    def __init__(
        self,
        session: TrainingSession,
        evidence: AuxiliaryEvidence,
        callback: StepCallback,
        *,
        first_step: int = 1,
        restore: Callable[[], None] | None = None,
        needs_warmup: bool = False,
    ) -> None:
        self.needs_warmup = needs_warmup
        self.step = first_step
        self._session = session
        self._evidence = evidence
        self._callback = callback
        self._restore = restore
        trained = (session.objects.model, *session.objects.extras.values())
        self._undo = always_synchronised(trained) if restore and needs_warmup else None
        self._live = restore is None
        self._half_restored: BaseException | None = None
        self._step_open = False
        self._disabled = False
        self._loss: float | None = None

    @property
    def live(self) -> bool:
        """Whether what the loop does counts: it has arrived where it was to resume."""
        return self._live

    @property
    def is_recording(self) -> bool:
        """Whether rows are cut: it is live, and nothing went wrong."""
        return self._live and not self._disabled

    def disable(self) -> None:
        """From now on only count: a loop may go by the number of its steps."""
        self._disabled = True

    def streams(self) -> GlobalStreams:
        """The global streams as they stand."""
        return self._session.streams()

    def position_reached(self) -> None:
        """Write the state that the loop resumes from.

        Raises:
            AuditError: When it cannot be written to its end; every later boundary raises, too.
        """
        if self._undo is not None:
            self._undo()
        if self._restore is not None:
            try:
                self._restore()
            except BaseException as error:
                self._half_restored = error
                raise
        self._live = True
        self._step_open = False

    def refuse_half_restored(self) -> None:
        """Nothing trains with a part of a state, and nothing that did is a recording.

        Raises:
            RestoreMismatch: Where the state to go on from may be there in part, and the loop caught
                what was raised then.
        """
        if self._half_restored is not None:
            cause = str(self._half_restored) or type(self._half_restored).__name__
            raise RestoreMismatch(
                f"the state to go on from was not written to its end: {cause}",
                hint="start the process again: its model and optimizer may hold a part of it",
            ) from self._half_restored

    def batch_requested(self) -> GlobalStreams:
        """End the step before; cut a row; raises as :meth:`refuse_half_restored`."""
        self.refuse_half_restored()
        self.end_step()
        streams = self._session.streams()
        if self._disabled:
            return streams
        state = self._session.state(streams)
        self._evidence.cut(state)
        self._callback.on_boundary(self.step, state)
        return streams

    def batch_delivered(self, batch: Any, order: Drawn | None, epoch: int) -> None:
        """Note what the step consumes."""
        self._step_open, self._loss = True, None
        if self._disabled:
            return
        leaves = self._evidence.consume(batch, order)
        self._callback.on_batch(self.step, Delivery(batch, order, epoch), leaves)

    def log(self, numbers: Mapping[str, float]) -> int | None:
        """Note the loss of the step that is under way.

        Returns:
            The step of what is logged now: the one under way, or the last; None if it counts not.
        """
        if self._live and self._step_open and "loss" in numbers:
            self._loss = numbers["loss"]
        return self.step - (not self._step_open) if self.is_recording else None

    def end_step(self) -> None:
        """The step that is under way, if any, is over."""
        if not self._step_open:
            return
        self._step_open = False
        step, self.step = self.step, self.step + 1
        if self._disabled:
            return
        self._evidence.finish_step(self._loss)
        self._callback.on_step_end(step, self._loss)

    def interrupt(self) -> None:
        """The loop was interrupted: cut the state as it stands, for a last row."""
        self.end_step()
        if not self._disabled:
            self._evidence.cut(self._session.state())

    def finish(self) -> None:
        """The loop is over: the last row is the state as it stands."""
        self.end_step()
        self._evidence.close(self._session.state())


class AuxiliaryBoundary:
    """The boundary of a loader that is not the training loader.

    Args:
        name: Of the loader.
        loop: The loop, to whose steps its batches belong.
        evidence: Takes them.
        on_error: Called with what went wrong; None raises it.
    """

    needs_warmup = False

    def __init__(
        self,
        name: str,
        loop: Loop,
        evidence: AuxiliaryEvidence,
        on_error: Callable[[Exception], None] | None,
    ) -> None:
        self._name, self._loop, self._evidence = name, loop, evidence
        self._on_error = on_error

    def position_reached(self) -> None:
        """The training loader's boundary restores."""

    def batch_requested(self) -> GlobalStreams:
        """Draws nothing, cuts nothing."""
        return self._loop.streams()

    def batch_delivered(self, batch: Any, order: Drawn | None, epoch: int) -> None:
        """Add it to the step that is under way, or to the one that comes first."""
        if not self._loop.is_recording:
            return
        try:
            self._evidence.consume_auxiliary(self._name, batch, order)
        except Exception as error:
            if self._on_error is None:
                raise
            self._on_error(error)


class GuardedBoundary:
    """A boundary that never costs anybody a training run.

    Args:
        inner: The loop.
        on_error: Called with what went wrong after the first step.
    """

    def __init__(self, inner: Loop, on_error: Callable[[Exception], None]) -> None:
        self._inner, self._on_error = inner, on_error
        self.needs_warmup = inner.needs_warmup

    def position_reached(self) -> None:
        """Raises: a loop that was to resume from a checkpoint must not start anew unnoticed."""
        self._inner.position_reached()

    def batch_requested(self) -> GlobalStreams:
        """See :class:`auditkit.recorder.loop.Loop`."""
        try:
            return self._inner.batch_requested()
        except Exception as error:
            if self._inner.step == 1 or raised_by_user_code(error):
                raise
            self._on_error(error)
            return capture_streams()

    def batch_delivered(self, batch: Any, order: Drawn | None, epoch: int) -> None:
        """See :class:`auditkit.recorder.loop.Loop`."""
        try:
            self._inner.batch_delivered(batch, order, epoch)
        except Exception as error:
            if self._inner.step == 1 or raised_by_user_code(error):
                raise
            self._on_error(error)


def raised_by_user_code(error: BaseException) -> bool:
    """Whether the user's own code raised it, as a signal handler that runs in the midst of this."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and not isinstance(error, AuditError) and is_user_file(frames[-1].filename)


class _OwnErrors:
    """See :func:`own_errors`; it is entered several times a step, so nothing is made for that."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Warnings are raised where the user turns them into errors.
        if not isinstance(error, Exception) or isinstance(error, (AuditError, Warning)):
            return
        if is_foreign(error) or raised_by_user_code(error):
            return
        raise CaptureError(
            f"auditkit could not observe the loop: {type(error).__name__}: {error}",
            hint="this is a fault of auditkit's; train without the Recorder, and please report it",
        ) from error


_OWN_ERRORS = _OwnErrors()


def own_errors() -> AbstractContextManager[None]:
    """Whatever goes wrong in here and is neither the user's doing nor said well, is said as ours.

    Raises:
        CaptureError: In place of an error that auditkit made without meaning to.
    """
    return _OWN_ERRORS


class RecorderBackend:
    """What a Recorder does with the loop that it was given; the base of all kinds.

    Attributes:
        manifest: Path of the manifest, once there is one.
        failure: What ended the recording before its time, or None.
        never_closed: Whether the script came to its end without closing its Recorder.
    """

    manifest: Path | None = None
    failure: BaseException | None = None
    never_closed = False
    _loop: Loop
    _instrumented: InstrumentedLoop

    @property
    def step(self) -> int:
        """Steps that were taken; the one that is under way is not."""
        return self._loop.step - 1

    @property
    def position(self) -> int:
        """Batches of this epoch that were delivered."""
        return self._instrumented.loaders[""].position

    def log(self, numbers: Mapping[str, float]) -> None:
        """Numbers by name; the loss is that of the step that is under way."""
        self._loop.log(numbers)

    def checkpoint(self) -> None:
        """Take a checkpoint at the next boundary; only a recording has any."""

    def begin_loop_epoch(self, number: int) -> bool:
        """Whether to go through the loop's own epoch ``number``."""
        return self._instrumented.loaders[""].begin_loop_epoch(number)

    def close(self, error: BaseException | None) -> None:
        """The loop is over, well or not."""

    def _attach(
        self,
        boundary: Boundary,
        evidence: AuxiliaryEvidence,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        """Let the training loader report to ``boundary``, and further loaders to the loop."""
        for name, loader in self._instrumented.loaders.items():
            auxiliary = AuxiliaryBoundary(name, self._loop, evidence, on_error) if name else None
            loader.boundary = auxiliary or boundary
            loader.guard = own_errors  # which the loader also asks the boundary in
