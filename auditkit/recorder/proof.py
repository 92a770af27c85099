"""A resume proves itself: it must give the rows that the killed run left after the checkpoint.

Rules: nothing is written before every one of those rows was given again, so that a resume that goes
wrong leaves the folder as it was; and nothing is computed for it, since a resumed loop must repeat
those steps and cut their rows anyway. So that there are such rows, they are put on disk soon after
a checkpoint (:class:`RowPace`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from auditkit.errors import AuditError, ResumeMismatch, UncapturedState
from auditkit.observe.state.components import State
from auditkit.observe.state.counters import begun_anew
from auditkit.observe.values.digests import digest_leaves
from auditkit.observe.values.stored import Saved, loaded
from auditkit.recorder.running_script import changed_files
from auditkit.records.differences import by_cause, kind_of, resume_reason, resume_remedy
from auditkit.records.digest import EVIDENCE_RECIPE
from auditkit.records.evidence import CONSUMED, Trace, is_consumed
from auditkit.records.journal import KeptCheckpoint, RecordingJournal

_LOG = logging.getLogger("auditkit")

#: Rows after a checkpoint that are enough to go on from it: what a loop does every few steps (an
#: update of accumulated gradients) shows in no single one.
ENOUGH_ROWS = 8

#: Steps, and seconds, after which rows are put on disk.
_ROWS_EVERY, _SECONDS = 64, 1.0

_WAY_OUT = (
    "the folder is as it was: where the loop counts by itself, let it take rec.step and resume "
    "again; what its checkpoints lack they lack: train from the start into another one, or go on "
    "without the proof by Recorder.resume(..., unproven=True)"
)


@dataclass(frozen=True)
class Resumption:
    """From where a recording goes on.

    Attributes:
        journal: As the killed run left it.
        kept: The checkpoint; None for the loop's own start.
        recorded: The rows that prove it; None where nothing is compared.
    """

    journal: RecordingJournal
    kept: KeptCheckpoint | None
    recorded: Trace | None

    @property
    def step(self) -> int:
        """Steps that had been taken there."""
        return 0 if self.kept is None else self.kept.record.step

    @property
    def last(self) -> int:
        """The last step whose whole row is compared."""
        return self.step if self.recorded is None else self.recorded.last_step

    def settle(self, journal: RecordingJournal) -> RecordingJournal:
        """The journal of this process, once the resume is proven or goes on without."""
        return journal.resumed(self.step, self.last, self.last - self.step)


def choose_start(checkpoints: Sequence[int], last: int) -> int:
    """The checkpoint to go on from: the latest with enough rows after it.

    Args:
        checkpoints: Their steps, in order.
        last: The last step whose whole row is on disk.

    Returns:
        Where none has enough, the one with the most; 0, the start, where none has any.
    """
    enough = [step for step in checkpoints if last - step >= ENOUGH_ROWS]
    return max(enough) if enough else min((s for s in checkpoints if s < last), default=0)


class Proof:
    """Compares the rows of a resumed loop with those of the killed one.

    Args:
        resumption: From where it goes on.
        opened_state: The state in a checkpoint, by which a difference there is told to a tensor.
        uncaptured: A generator that is used and that no component holds, where there is one.

    Attributes:
        other_loss: The first step whose logged loss alone is another.
    """

    def __init__(
        self,
        resumption: Resumption,
        opened_state: Callable[[KeptCheckpoint], AbstractContextManager[Mapping[str, Saved]]],
        uncaptured: Callable[[], UncapturedState | None] = lambda: None,
    ) -> None:
        self._resumption, self._opened_state = resumption, opened_state
        self._uncaptured = uncaptured
        self._failure: ResumeMismatch | None = None
        self.start, self.last = resumption.step, resumption.last
        self.other_loss: int | None = None

    @property
    def rows(self) -> int:
        """How many recorded rows are to be given again."""
        return self.last - self.start

    def refuse_failed(self) -> None:
        """Raise again what was raised, where the loop caught it and goes on."""
        if self._failure is not None:
            raise self._failure

    def compare_boundary(self, row: Trace, state: State) -> None:
        """Compare the row of the step that begins: the state before it and its batch.

        Raises:
            ResumeMismatch: When it is another.
        """
        recorded, step = self._resumption.recorded, row.first_step
        if recorded is None:
            return
        consumed = CONSUMED if step <= self.last else ()
        found = recorded.row_difference(step, row)
        names = [n for n in found if n != "loss" and (not is_consumed(n) or n in consumed)]
        if names:
            self._refuse(step, names, state)

    def compare_step(self, row: Trace) -> None:
        """Compare the whole row of a step that is over.

        Raises:
            ResumeMismatch: When it is another, in more than the loss that the loop logged.
        """
        recorded, step = self._resumption.recorded, row.first_step
        if recorded is None or step > self.last:
            return
        names = recorded.row_difference(step, row)
        if names == ["loss"]:  # as of a mean that the loop keeps; the weights do not hang on it
            self.other_loss = self.other_loss or step
        elif names:
            self._refuse(step, names, {})

    def refuse_end(self, steps: int) -> None:
        """The loop is over, and not all rows were given again.

        Raises:
            ResumeMismatch: Always.
        """
        self.refuse_failed()
        raise self._failed(
            f"the loop ended after step {steps}, before all rows of the killed run were given "
            f"again: that one had begun step {self.last + 1}",
            hint="go through the same epochs; what decides how long a loop or an epoch is (a "
            f"counter, a batch sampler, the data set) must be in a checkpoint; {_WAY_OUT}",
        )

    def _refuse(self, step: int, names: Sequence[str], state: State) -> None:
        first, *others = by_cause(step, names)
        tensor = self._differing_tensor(step, first, state)
        shown = f"{first} ({tensor})" if tensor else first
        more = f", also {', '.join(others)}" if others else ""
        uncaptured = self._uncaptured()
        known = f" ({uncaptured})" if uncaptured else ""
        likely = f"likely {resume_reason(first)}{known}; give it to wrap: {resume_remedy(first)}"
        if kind_of(first) == "state drift":
            likely += "; or the training is not deterministic (auditkit doctor -- COMMAND tells)"
        if not self.start:
            likely = "it is not repeatable from its start: auditkit doctor -- COMMAND tells why"
        place = f"goes on after step {self.start}" if self.start else "begins anew"
        raise self._failed(
            f"this loop, which {place}, gives another {shown} than the killed run recorded{more}",
            step=step,
            component=first,
            hint=f"{likely}; {_WAY_OUT}",
        )

    def _failed(self, message: str, *, hint: str, **parts: object) -> ResumeMismatch:
        if changed := changed_files(self._resumption.journal.program):
            is_others = "are other files" if ", " in changed else "is another file"
            hint = (
                f"likely {changed} {is_others} than when the recording began; if not that, {hint}"
            )
        self._failure = ResumeMismatch(message, hint=hint, **parts)  # type: ignore[arg-type]
        return self._failure

    def _differing_tensor(self, step: int, component: str, state: State) -> str | None:
        """The first tensor of a component that is another, where a checkpoint lies at the row."""
        kept = [one for one in self._resumption.journal.kept if one.record.step == step - 1]
        if not kept or component not in state:
            return None
        try:
            with self._opened_state(kept[0]) as saved:
                here, there = state[component], saved.get(component, {})
                names = [name for name in sorted(set(here) | set(there)) if name]
                others = (name for name in names if _leaf(here, name) != _leaf(there, name))
                return next(others, None)
        except AuditError:
            return None


def _leaf(leaves: Saved, name: str) -> bytes | None:
    if name not in leaves:
        return None
    return digest_leaves(EVIDENCE_RECIPE, loaded({name: leaves[name]}))


class RowPace:
    """When the rows after a checkpoint are put on disk, so that a kill loses few of them.

    Soon after it, at doubling distances: a kill may come at any step. Then whenever as many steps
    or seconds have passed as may be lost. Before the first checkpoint nothing is: without one
    there is nothing to resume.

    Attributes:
        written: The step up to which all rows are on disk.
    """

    def __init__(self) -> None:
        self._checkpoint: int | None = None
        self.written, self._at = 0, 0.0

    def checkpoint_taken(self, step: int) -> None:
        """All rows up to there are on disk."""
        self._checkpoint = step
        self.rows_written(step)

    def rows_written(self, step: int) -> None:
        """The rows up to this step are on disk."""
        self.written, self._at = step, time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether to write the rows up to this step, which is over."""
        if self._checkpoint is None or step <= self.written:
            return False
        after = step - self._checkpoint
        soon = after <= _ROWS_EVERY and after.bit_count() == 1
        return soon or step - self.written >= _ROWS_EVERY or time.monotonic() - self._at >= _SECONDS

    def proves(self, step: int) -> bool:
        """Whether enough rows after the latest checkpoint are on disk."""
        return self._checkpoint is not None and step - self._checkpoint >= ENOUGH_ROWS


class BegunCounters:
    """Numbers by which the script counts its steps itself, where a resume goes on.

    Args:
        noted: Where they stood in the killed run.
    """

    def __init__(self, noted: Mapping[str, int]) -> None:
        self._noted = dict(noted)
        self._first: int | None = None

    def look(self, step: int) -> None:
        """Log which of them begin anew; it may be that nothing hangs on them.

        That is told at the second boundary: what a loop sets at the beginning of each step
        (``step = rec.step``) is right only then.

        Args:
            step: After which step this boundary is.
        """
        if self._first is None:
            self._first = step
            self._noted = {name: there for name, (there, _) in begun_anew(self._noted).items()}
        elif step > self._first and self._noted:
            passed = step - self._first
            expected = {name: there + passed for name, there in self._noted.items()}
            if moved := begun_anew(expected):
                shown = (f"{name} is {here}, not {there}" for name, (there, here) in moved.items())
                _LOG.warning(
                    "auditkit: numbers by which the script counts the steps itself began anew "
                    "where this resume went on: after step %d, %s; what looks at them comes later "
                    "than it did: take rec.step, or register them with extras= "
                    "(auditkit explain rec.step)",
                    *(step, ", ".join(shown)),
                )
            self._noted = {}
