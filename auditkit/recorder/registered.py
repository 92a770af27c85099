"""A loop's objects with their loaders' classes swapped, and what they are held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditkit.errors import RestoreMismatch, UncapturedState
from auditkit.formats.ordering import Batch
from auditkit.formats.recipes import order_digest
from auditkit.observe.loader.boundary import RecordedLoader
from auditkit.observe.state.components import restore
from auditkit.observe.state.uncaptured import plain_attributes, refuse_unregistered_generators
from auditkit.observe.values.batches import batch_leaves
from auditkit.observe.values.digests import digest_leaves
from auditkit.program.session import Observed
from auditkit.recorder.loop import Loop, SideBoundary
from auditkit.recorder.wrapping import Wrapped, base_loader
from auditkit.records.digest import EVIDENCE_RECIPE
from auditkit.records.evidence import Trace
from auditkit.study.stages.describer import describe_loader
from auditkit.study.stages.forker import Fork


@dataclass(frozen=True)
class Watched:
    """A loop's objects with their loaders' classes swapped.

    Attributes:
        observed: What can be read and written.
        loaders: By name; the training loader's is empty.
        unregistered: Random generators that no component holds, for people.
    """

    observed: Observed
    loaders: dict[str, RecordedLoader]
    unregistered: str | None

    def report_to(
        self,
        loop: Loop,
        boundary: Any,
        evidence: Any,
        give_up: Callable[[Exception], None] | None = None,
    ) -> None:
        """Let the loaders report to a loop; what goes wrong at further loaders is told."""
        for name, loader in self.loaders.items():
            loader.boundary = SideBoundary(name, loop, evidence, give_up) if name else boundary

    def restore(self, fork: Fork) -> None:
        """Write a snapshot's state, further loaders included."""
        for name, leaves in fork.sides.items():
            if name in self.loaders:
                self.loaders[name].place(leaves)
        restore(self.observed.objects, fork.state)

    def describe_loaders(self) -> dict[str, dict[str, str]]:
        """What the loaders are, by name."""
        return {name: describe_loader(loader.base) for name, loader in self.loaders.items()}

    def close(self) -> None:
        """Give the loaders their classes back."""
        for loader in self.loaders.values():
            loader.close()


def watch(wrapped: Wrapped) -> Watched:
    """Swap the classes of a loop's loaders.

    Raises:
        UnsupportedLoader: When one cannot be recorded; then none is swapped.
    """
    loaders: dict[str, RecordedLoader] = {}
    try:
        for name, loader in {"": wrapped.loader, **wrapped.sides}.items():
            base = base_loader(loader)
            loaders[name] = RecordedLoader(loader, base=base, generators=wrapped.generators)
    except BaseException:
        for recorded in loaders.values():
            recorded.close()
        raise
    unregistered = None
    try:
        refuse_unregistered_generators(wrapped.objects, loaders[""].base, {})
    except UncapturedState as error:
        unregistered = str(error)
    sides = {name: recorded for name, recorded in loaders.items() if name}
    attributes = plain_attributes(wrapped.objects)
    return Watched(Observed(wrapped.objects, loaders[""], attributes, sides), loaders, unregistered)


class Course:
    """What a Recorder does with the loop that it was given; the base of all kinds.

    Attributes:
        manifest: Path of the manifest, once there is one.
        failure: What ended the recording before its time, or None.
    """

    manifest: Path | None = None
    failure: BaseException | None = None
    _loop: Loop
    _watched: Watched

    @property
    def step(self) -> int:
        """Steps that were taken; the one that is under way is not."""
        return self._loop.step - 1

    @property
    def position(self) -> int:
        """Batches of this epoch that were delivered."""
        return self._watched.loaders[""].position

    def log(self, loss: float) -> None:
        """The loss of the step that is under way."""
        self._loop.log(loss)

    def checkpoint(self) -> None:
        """Take a checkpoint at the next boundary; only a recording has any."""

    def begin_round(self, number: int) -> bool:
        """Whether to go through the loop's own epoch ``number``."""
        return self._watched.loaders[""].begin_round(number)

    def close(self, error: BaseException | None) -> None:
        """The loop is over, well or not."""


class RecordedRows:
    """Holds batches that are loaded again against the rows that were recorded.

    Args:
        trace: The rows.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def __call__(self, step: int, order: Batch | None, batch: Any) -> None:
        """Refuse a batch that is not the recorded one.

        Raises:
            RestoreMismatch: Naming the step.
        """
        if not self._trace.first_step <= step <= self._trace.last_step:
            return
        if order is None:
            found = digest_leaves(EVIDENCE_RECIPE, batch_leaves(batch))
        else:
            found = order_digest(EVIDENCE_RECIPE, order)
        if found != self._trace.cell(step, "order"):
            raise RestoreMismatch(
                "the loader yields other samples than were recorded",
                step=step,
                component="order",
                hint="go on with the same data, batch size and sampler; what a sampler or data "
                "set keeps must be registered (extras=)",
            )
