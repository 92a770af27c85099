"""What a recording can see by itself of a loop that it does not hold whole.

A row says what a step began with; a checkpoint that is written there is worth something only if
the loop does what the rows say: it trains on the batch that was delivered last, with the objects
that were registered, and keeps nothing else. Where the rows, the optimizers' steps or the loop's
surroundings show otherwise, that is said: at once where no checkpoint can be of use any more,
else at the end. What is compared are digests that the evidence needs anyway, and counts;
the surroundings are looked at a few times only.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from auditkit.errors import UncapturedState
from auditkit.observe.loader.driver import Delivery
from auditkit.observe.loader.recorded_loader import RecordedLoader
from auditkit.observe.state.components import State, TrainingObjects
from auditkit.observe.state.surroundings import Surroundings
from auditkit.observe.values.codec import Leaves
from auditkit.recorder.optimizer_steps import OptimizerSteps
from auditkit.recorder.writer import RecordingWriter
from auditkit.records.evidence import is_consumed

#: For how many batches a checkpoint waits for the loop to train.
_MAX_WAIT = 32
#: A last batch followed by that many times as many steps as any before, and that many more.
_OUTLIER = 4

_ENDLESS = (
    "let every batch come from the loader that wrap was given: a function of your own with `while "
    "True: yield from loader` takes the place of itertools.cycle(loader), a loop over loader that "
    "of one over list(loader), and rec.step counts; record training on another loader with a "
    "Recorder of its own"
)
_AHEAD = (
    "the loop asks for a batch before it has trained on the one before, which a checkpoint would "
    "lose: train on each batch before the next one is asked for; len(loader) tells which one is "
    "the last"
)
_OTHER_THREAD = (
    "the loader is iterated in another thread than the one that trains, so that no state belongs "
    "to a batch: iterate it where you train, with num_workers to load ahead"
)
_OTHER_OBJECTS = (
    "batches are delivered, but what wrap was given does not change, while an optimizer that wrap "
    "was not given takes steps: give wrap the model and the optimizer that are trained"
)
_OPTIMIZER = ("optimizer/", "param_groups", "extras/optimizer")


@dataclass
class _Iteration:
    """What was seen of one iteration over the loader.

    Attributes:
        epoch: Its number.
        idle: Batches that were delivered and changed nothing, before one that did.
        trained: Batches in a row since then after which something had changed.
        is_held: Whether an idle batch was still there when the first step after it was taken.
        has_lagged: Whether there were idle batches.
        steps_always: Whether an optimizer stepped whenever anything changed.
    """

    epoch: int
    idle: list[Callable[[], object]] = field(default_factory=list)
    trained: int = 0
    is_held: bool = False
    has_lagged: bool = False
    steps_always: bool = True

    @property
    def is_in_hand(self) -> bool:
        """Whether a batch may have been delivered on which the loop has yet to train."""
        return bool(self.idle) and (not self.trained or (self.is_held and self.trained == 1))

    @property
    def lags(self) -> bool:
        """Whether a step after the last batch is one that an idle batch had not had."""
        return self.has_lagged and self.steps_always and self.trained > 1

    def add_idle(self, batch: Callable[[], object]) -> None:
        """A batch was delivered, and nothing changed."""
        if self.trained:  # all that had been fetched was used, as of a group
            self.idle, self.trained, self.is_held = [], 0, False
        if len(self.idle) < _MAX_WAIT:
            self.idle.append(batch)
        self.has_lagged = True

    def note_step(self) -> None:
        """An optimizer steps."""
        if self.idle and not self.trained and not self.is_held:
            self.is_held = any(batch() is not None for batch in self.idle)

    def add_trained(self, *, has_stepped: bool) -> bool:
        """A batch was delivered, and something changed; returns whether it was another's doing.

        A loop that passes over a batch has let go of it when it trains on the next one; one that
        fetches a group trains once a group, and is idle again.
        """
        self.trained += 1
        self.steps_always &= has_stepped
        return self.trained == 2 and self.is_held


class Watch:
    """Looks at a loop while it is recorded; passes everything on to the writer.

    Args:
        objects: What is registered.
        loaders: The loaders that are.
        writer: Writes what is recorded.
        digests: The digests of the state that was cut last, by component.
        uncaptured: A generator that is used and that no component holds, where there is one.
        warn: Says something.
        on_error: Called with what went wrong where the user's code must not hear of it.
    """

    def __init__(
        self,
        objects: TrainingObjects,
        loaders: Mapping[str, RecordedLoader],
        writer: RecordingWriter,
        digests: Callable[[], Mapping[str, bytes]],
        uncaptured: Callable[[], UncapturedState | None],
        warn: Callable[[str], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._writer, self._digests, self._warn, self._on_error = writer, digests, warn, on_error
        held = [item for loader in loaders.values() for item in (loader.loader, loader.base)]
        self._surroundings, self._uncaptured = Surroundings(objects, held), uncaptured
        self._first_look, self._next_look = writer.steps + 1, 0
        self._iteration = _Iteration(-1)
        #: Components, and those that training changes.
        self._names: list[str] = []
        self._trained_names: list[str] = []
        self._row: dict[str, bytes] | None = None
        #: The same of the boundary that was looked at last; None where it was not.
        self._cut: dict[str, bytes] | None = None
        self._batch: Callable[[], object] = _nothing
        self._is_requested = False
        self._waited = self._strange = 0
        #: Most steps that followed a batch, and steps since the loader ended, by optimizer.
        self._most: dict[int, int] = {}
        self._late: dict[int, int] = {}
        self._n_unrecorded = 0
        #: The thread that asked for a batch last.
        self._asker: int | None = None
        #: Batches after which parameters had moved, and those where an optimizer had worked.
        self._n_moved = self._n_worked = 0
        self._steps = OptimizerSteps(objects, self._on_step)

    def close(self) -> None:
        """Look no more."""
        self._steps.close()

    def cannot_resume(self, reason: str) -> None:
        """Say, and write down, that no checkpoint is of use."""
        if self._writer.journal.unresumable is None:
            self._writer.mark_unresumable(reason)
            self._warn(f"this recording cannot be resumed: {reason}")

    def finish(self) -> None:
        """The loop is over: say what is in no row."""
        last = {} if self._is_requested else self._steps.counts
        most = max(self._most.values(), default=0)
        if most and max(last.values(), default=0) > _OUTLIER * (most + 1):
            self._n_unrecorded += max(last.values()) - most
        if self._n_unrecorded:
            self._warn(
                f"{self._n_unrecorded} optimizer steps were taken for which no batch was "
                f"recorded, and are in no evidence: {_ENDLESS}"
            )
        if self._n_moved > 1 and not self._n_worked:
            self._warn(
                "the parameters moved, and no optimizer that wrap was given took a step: what "
                "moves them may keep state that no checkpoint holds; give wrap the optimizer that "
                f"trains, or register what moves them: {self._writer.call}(..., extras={{'name': "
                "object})"
            )

    # As a callback of the steps

    def on_boundary(self, step: int, state: State) -> None:
        """A batch is asked for: what has become of the last one?"""
        cut, self._asker = None, threading.get_ident()
        if self._row is not None:
            if self._steps.thread not in (None, self._asker):
                self.cannot_resume(_OTHER_THREAD)
            if not self._is_requested:
                cut = self._end_interval(self._row)
        self._cut = cut
        self._is_requested = True
        if step >= self._next_look or self._writer.is_due(step):
            self._look(step)
        is_waiting = self._iteration.is_in_hand and self._waited < _MAX_WAIT
        self._waited = self._waited + 1 if is_waiting else 0
        self._writer.batch_in_hand = is_waiting
        self._writer.on_boundary(step, state)

    def on_batch(self, step: int, delivery: Delivery, leaves: Leaves) -> None:
        """The boundary counted: a row begins, with this batch."""
        if delivery.epoch != self._iteration.epoch:
            self._iteration = _Iteration(delivery.epoch)
        # Between the boundary and its batch nothing else is cut.
        self._row = self._trained(self._digests()) if self._cut is None else self._cut
        self._batch = _reference(delivery.batch)
        self._is_requested, self._late = False, {}
        self._steps.reset()
        self._writer.on_batch(step, delivery, leaves)

    def on_step_end(self, step: int, loss: float | None) -> None:
        """The writer's own business."""
        self._writer.on_step_end(step, loss)

    def _end_interval(self, before: dict[str, bytes]) -> dict[str, bytes]:
        """The batch that was delivered last is done with, by what the rows say; returns the row."""
        after, counts = self._trained(self._digests()), self._steps.counts
        for key, n_steps in counts.items():
            if n_steps > self._most.get(key, 0):
                self._most[key] = n_steps
        if after == before:
            self._iteration.add_idle(self._batch)
            self._strange = self._strange + 1 if self._steps.others else 0
            if self._strange > 1:
                self.cannot_resume(_OTHER_OBJECTS)
            return after
        self._strange = 0
        moved = after.get("params") != before.get("params")
        worked = bool(counts) or any(
            after.get(name) != before.get(name)
            for name in after.keys() | before.keys()
            if name.startswith(_OPTIMIZER)
        )
        self._n_moved += moved
        self._n_worked += worked
        if self._iteration.add_trained(has_stepped=bool(counts)):
            self.cannot_resume(_AHEAD)
        return after

    def _on_step(self, key: int) -> None:
        """An optimizer has stepped; called in the midst of the user's code."""
        if self._row is None:
            return
        try:
            if self._steps.unregistered is not None:
                self.cannot_resume(self._steps.unregistered)
            self._iteration.note_step()
            if self._is_requested:
                self._step_late(key)
        except Exception as error:
            self._on_error(error)

    def _step_late(self, key: int) -> None:
        """A step since the loader ended: one is the last accumulation's, more are not."""
        if threading.get_ident() != self._asker:  # it has not ended: who asked is elsewhere
            self.cannot_resume(_OTHER_THREAD)
            return
        late = self._late[key] = self._late.get(key, 0) + 1
        allowed = max(1, self._most.get(key, 0))
        if late == 1 and self._iteration.lags:
            self.cannot_resume(_AHEAD)
        elif late > allowed:
            self._n_unrecorded += 1 if late > allowed + 1 else late
            self.cannot_resume(
                f"training went on after the loader's last batch, for {late} optimizer steps and "
                f"more, without another batch of it: {_ENDLESS}"
            )

    def _trained(self, digests: Mapping[str, bytes]) -> dict[str, bytes]:
        """What training changes: all but the random streams, which a loader draws from, too."""
        if [*digests] != self._names:
            self._names = [*digests]
            self._trained_names = [name for name in self._names if _is_trained(name)]
        return {name: digests[name] for name in self._trained_names}

    def _look(self, step: int) -> None:
        """Look around: at the first steps, ever more rarely, and before each checkpoint."""
        if self._writer.journal.unresumable is not None:
            return
        uncaptured, found = self._uncaptured(), self._surroundings.look(step)
        is_waiting = self._surroundings.is_waiting
        self._next_look = step + (1 if is_waiting else max(1, step - self._first_look))
        if uncaptured is not None:
            self.cannot_resume(str(uncaptured))
        elif found:
            call = self._writer.call
            self.cannot_resume("; ".join(candidate.describe(call) for candidate in found))


def _is_trained(name: str) -> bool:
    return not name.startswith("rng/") and not is_consumed(name)


def _reference(batch: Any) -> Callable[[], object]:
    """Tells whether a batch is still there, by the first thing in it that can be asked about."""
    if type(batch) is list and batch and type(batch[0]) is Tensor:  # what nearly all are
        return weakref.ref(batch[0])
    if isinstance(batch, (list, tuple, dict)):
        items = batch.values() if isinstance(batch, dict) else batch
        return next(
            (found for item in items if (found := _reference(item)) is not _nothing), _nothing
        )
    try:
        return weakref.ref(batch)
    except TypeError:  # a number, a text
        return _nothing


def _nothing() -> None:
    return None
