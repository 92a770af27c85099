"""Training without a DataLoader: a step says what it consumes, by :func:`consume`.

There is no sampler that could be stood before and nothing that could be delivered: environment,
replay buffer or queue are the program's own, and their state is in its extras. What is recorded is
what the step says. The position is a count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from auditkit.errors import ProgramError
from auditkit.formats.ordering import Batch
from auditkit.formats.quote import brief
from auditkit.observe.loader.driver import Delivery
from auditkit.observe.loader.saved_position import position_tree
from auditkit.observe.rng.streams import GlobalStreams
from auditkit.observe.values.codec import Leaves, flatten, unflatten

#: Is told what a step consumes, and gives what it is to use.
Taker = Callable[[Any, Any], Any]

_taker: ContextVar[Taker | None] = ContextVar("auditkit_taker", default=None)


def consume(indices: Any = None, batch: Any = None) -> Any:
    """Say what this step consumes, in a ``step`` of a program with ``loader=None``.

    A step may say it several times; what it does not say is no evidence. Outside a study this
    gives back what it is given::

        batch = auditkit.consume(indices, buffer.take(indices))

    Args:
        indices: Which samples, for the order evidence: a list, an array, a tensor, or any tree of
            plain values. Left out, the batch stands for the order.
        batch: The samples themselves, for the batch evidence: what a ``collate_fn`` may return.

    Returns:
        What the step is to train on: ``batch``, or ``indices`` where there is no batch; of a
        branch with ``yoked=yes`` what the control consumed in its place, on the CPU.

    Raises:
        ProgramError: When ``indices`` are a text, which names samples at best: it would be the
            same order evidence at every step.
    """
    if isinstance(indices, (str, bytes)):
        raise ProgramError(
            "auditkit.consume takes the indices of samples, and not a text",
            found=brief(indices if isinstance(indices, str) else repr(indices)),
            hint="give the indices themselves, as consume(rows, batch), or names in a list, as "
            "consume([name], batch); without any, as consume(batch=batch), the batch stands for "
            "the order",
        )
    taker = _taker.get()
    return (indices if batch is None else batch) if taker is None else taker(indices, batch)


@contextmanager
def taking(taker: Taker) -> Iterator[None]:
    """While a step runs, be told what it consumes."""
    token = _taker.set(taker)
    try:
        yield
    finally:
        _taker.reset(token)


def refuse_consumption(indices: Any, batch: Any) -> Any:
    """The taker of a program with a loader.

    Raises:
        ProgramError: Always.
    """
    raise ProgramError(
        "the step says what it consumes, and the program has a loader that delivers it",
        expected="Program(loader=None) with auditkit.consume(...)",
        hint="what the loader delivers is recorded by itself: leave auditkit.consume(...) out",
    )


@dataclass(frozen=True)
class Said:
    """What a step said at one call of :func:`consume`.

    Attributes:
        indices: As data in memory of its own; None where it said none.
        batch: Likewise.
    """

    indices: Leaves | None
    batch: Leaves | None


def _frozen(value: Any, where: str) -> Leaves | None:
    if value is None:
        return None
    leaves = flatten(value, where=where, data=True)
    return {
        name: leaf if isinstance(leaf, bytes) else leaf.detach().cpu().clone()
        for name, leaf in leaves.items()
    }


def _thawed(leaves: Leaves | None) -> Any:
    """The value again, in memory that the step may write to."""
    if leaves is None:
        return None
    own = {k: leaf if isinstance(leaf, bytes) else leaf.clone() for k, leaf in leaves.items()}
    return unflatten(own)


def _unequal(step: int, n_calls: int, how: str) -> ProgramError:
    return ProgramError(
        f"a branch that is yoked says {how} than the control what it consumes",
        step=step,
        expected=f"{n_calls} calls of auditkit.consume in this step",
        hint="what a step consumes, and when, must follow from the number of the step alone; or "
        "leave yoked=yes out",
    )


class StepDriver:
    """The position of a program without a loader: how many steps of which epoch it has taken.

    Args:
        augmentation_rng: As in the plan; nothing is loaded, so that either promise is kept.
        steps_per_epoch: Steps after which an epoch ends; None for a single one without end.

    Attributes:
        epoch: Number of the epoch that is under way; -1 before the first.
        position: Steps of it.
        consumed: What steps said that they consume, of those that :meth:`keep` names.
        has_said: Whether any step said anything.
    """

    iterable = True

    def __init__(self, augmentation_rng: str, steps_per_epoch: int | None) -> None:
        self.per_sample = augmentation_rng == "per-sample"
        self._steps_per_epoch = steps_per_epoch
        self._kept: range = range(0)
        self._given: Mapping[int, Sequence[Said]] | None = None
        self._n_said = 0
        self.has_said = False
        self.consumed: dict[int, list[Said]] = {}
        self.epoch, self.position = -1, 0

    def begin_epoch(self) -> None:
        """Start the next epoch."""
        self.epoch, self.position = self.epoch + 1, 0

    def next(self, streams: GlobalStreams) -> Delivery | None:
        """Nothing, delivered; None at the end of an epoch, and before the first."""
        if self.epoch < 0 or self.position == self._steps_per_epoch:
            return None
        self.position += 1
        return Delivery(None, None, self.epoch)

    def keep(self, steps: range) -> None:
        """Keep what these steps say that they consume, for branches that are yoked to them."""
        self._kept = steps

    @property
    def keeps(self) -> bool:
        """Whether anything is to be kept."""
        return bool(self._kept)

    def yoke(self, consumed: Mapping[int, Sequence[Said]]) -> None:
        """Give every step what another branch consumed in its place."""
        self._given = consumed

    def take(self, step: int, indices: Any, batch: Any) -> tuple[Any, Any]:
        """What a step consumes that says that it would consume this.

        Raises:
            ProgramError: When the control did not say it as often in that step.
        """
        self._n_said += 1
        self.has_said = True
        if step in self._kept:
            said = Said(_frozen(indices, "indices"), _frozen(batch, "batch"))
            self.consumed.setdefault(step, []).append(said)
        if self._given is None:
            return indices, batch
        given = self._given.get(step, ())
        if self._n_said > len(given):
            raise _unequal(step, len(given), "more often")
        said = given[self._n_said - 1]
        return _thawed(said.indices), _thawed(said.batch)

    def end_step(self, step: int) -> None:
        """The step was taken.

        Raises:
            ProgramError: When the control said more than it did, in a branch that is yoked.
        """
        n_said, self._n_said = self._n_said, 0
        if self._given is not None and n_said < len(self._given.get(step, ())):
            raise _unequal(step, len(self._given[step]), "less often")

    def pin_order(self, control: Sequence[Batch], delivered: Sequence[Batch], step: int) -> None:
        """Nothing: no order is drawn here."""

    def capture(self) -> Leaves:
        """The position, as component ``loader``."""
        return flatten({"epoch": self.epoch, "position": self.position}, where="loader")

    def restore(self, leaves: Leaves) -> None:
        """Go to a captured position.

        Raises:
            RestoreMismatch: When that is none.
        """
        tree = position_tree(leaves, {})
        self.epoch, self.position = tree["epoch"], tree["position"]

    def close(self) -> None:
        """Nothing was taken over."""
