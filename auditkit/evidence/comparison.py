"""Compare what a replay gives with what was recorded: the first difference, and its class.

The first difference is classed: *order drift* (other samples or another order), *data drift*
(the same samples, other bytes), *RNG drift* (other random streams), *state drift* (the same
inputs, another state). Names of components and steps are the evidence's own.

Only state drift, and what follows from it, can come of rounding: other hardware adds up the same
numbers in another order. What was consumed, and where the random streams stand, does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from auditkit.formats.run_files import Outcome
from auditkit.records.differences import by_cause, kind_of
from auditkit.records.digest import ABSENT
from auditkit.records.environment import Environment
from auditkit.records.evidence import DELIVERED, Trace, is_consumed
from auditkit.records.manifest import BranchRecord
from auditkit.records.plan import CONFIRMATORY


@dataclass(frozen=True)
class Mismatch:
    """The first difference of two runs of one branch.

    Attributes:
        branch: The branch, ``trunk`` included.
        step: First step whose row differs; None for what is not in a row.
        component: The component that is named first; consumption comes before state.
        others: Further components that differ in the same row.
        kind: ``order drift``, ``data drift``, ``RNG drift``, ``state drift``, ``outcome``,
            ``commitment``, ``length`` or ``description``.
        at_start: Whether it is there in the first row, so that none of these steps made it.
    """

    branch: str
    step: int | None
    component: str
    others: tuple[str, ...]
    kind: str
    at_start: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        also = f"; also {', '.join(self.others)}" if self.others else ""
        told = self._told()
        if told:
            return f"{told} ({self.kind}{also})"
        return f"{self.kind}: {self.component} is another{f' ({also[2:]})' if also else ''}"

    def _told(self) -> str:
        """Which step did what, where a row says so."""
        step, name = self.step, self.component
        if step is None or self.kind in ("outcome", "commitment", "description"):
            return ""
        if self.kind == "length":
            return f"one of the two has no step {step}" if name == "steps" else ""
        if causing_step(self) == step:
            return f"step {step} {self._taken()}"
        if self.at_start or step == 1:
            return f"it begins with another {name}, before step {step}"
        return f"step {step - 1} made another {name}, seen before step {step}"

    def _taken(self) -> str:
        """What a step did that stands in its own row."""
        if self.kind == "order drift":
            return f"took other samples, or in another order{_of_loader(self.component)}"
        if self.kind == "data drift":
            same = "the same samples in the same order, with other bytes"
            return f"took another batch{_of_loader(self.component)}: {same}"
        return f"gave another {self.component}"


def _of_loader(column: str) -> str:
    """Which loader a column is of, where it is not the training loader's."""
    if column == DELIVERED:
        return " from its loader"
    name = column.partition("/")[2]
    return f" of the loader {name}" if name else ""


def mismatch_in_row(
    where: str,
    step: int,
    components: Iterable[str],
    starts: Collection[str] = (),
    *,
    at_start: bool = False,
) -> Mismatch:
    """The mismatch in one row.

    Args:
        where: The branch or process, for people.
        step: Of the row.
        components: What differs in it.
        starts: Random streams in which the processes began differently.
        at_start: Whether it is the first row of both.
    """
    first, *others = by_cause(step, components, starts)
    return Mismatch(where, step, first, tuple(others), kind_of(first), at_start)


def compare_traces(branch: str, recorded: Trace, replayed: Trace) -> Mismatch | None:
    """The first row in which two traces of one branch differ."""
    difference = recorded.first_difference(replayed)
    if difference is None:
        return None
    at_start = difference.step == recorded.first_step
    began = at_start and difference.step == 1
    starts = [name for name in difference.components if began and name.startswith("rng/")]
    return mismatch_in_row(
        branch, difference.step, difference.components, starts, at_start=at_start
    )


def compare_rows(
    where: str, recorded: Trace, row: Trace, starts: Collection[str] = ()
) -> Mismatch | None:
    """How a row differs from the recorded one, or None.

    Args:
        where: The process, for people.
        recorded: A trace that has the row.
        row: The row by itself.
        starts: Random streams in which the processes began differently.
    """
    step = row.first_step
    names = recorded.row_difference(step, row)
    if not names:
        return None
    if (recorded.cell(step, "batch") == ABSENT) != (row.cell(step, "batch") == ABSENT):
        return Mismatch(where, step, "steps", (), "length")  # one of the two has ended here
    return mismatch_in_row(where, step, names, starts)


def compare_inputs(branch: str, recorded: Trace, replayed: Trace) -> Mismatch | None:
    """The first row in which two traces differ in what no rounding changes.

    That is what was consumed, where the random streams stand, which components there are and
    how many steps.
    """
    if set(recorded.columns) != set(replayed.columns):
        name = min(set(recorded.columns) ^ set(replayed.columns))
        return Mismatch(branch, None, name, (), "length")
    return compare_traces(branch, _inputs(recorded), _inputs(replayed))


def _inputs(trace: Trace) -> Trace:
    columns = {
        name: column
        for name, column in trace.columns.items()
        if is_consumed(name) or name.startswith("rng/")
    }
    return Trace(trace.first_step, bytes(len(trace.loss_bits)), columns)


def compare_outcomes(branch: str, recorded: Outcome, replayed: Outcome) -> Mismatch | None:
    """The first probe table whose bits differ."""
    for name in sorted(set(recorded.tables) | set(replayed.tables)):
        here, there = recorded.tables.get(name), replayed.tables.get(name)
        if here is None or there is None or here.tobytes() != there.tobytes():
            return Mismatch(branch, None, name, (), "outcome")
    if recorded.labels.tobytes() != replayed.labels.tobytes():
        return Mismatch(branch, None, "labels", (), "outcome")
    return None


def compare_commitments(
    branch: str, recorded: Mapping[str, str], replayed: Mapping[str, str], step: int | None
) -> Mismatch | None:
    """The first component whose SHA-256 differs."""
    names = sorted(
        name for name in set(recorded) | set(replayed) if recorded.get(name) != replayed.get(name)
    )
    if not names:
        return None
    return Mismatch(branch, step, names[0], tuple(names[1:]), "commitment")


def compare_records(
    recorded: BranchRecord, replayed: BranchRecord, steps: Mapping[str, int]
) -> Mismatch | None:
    """Commitments, order and divergence of one branch.

    Args:
        recorded: From the manifest.
        replayed: From the replay.
        steps: Step of each time at which commitments were made.
    """
    mismatch = _compare_all_commitments(recorded, replayed, steps)
    if mismatch is not None:
        return mismatch
    if recorded.order_sha256 != replayed.order_sha256:
        return Mismatch(recorded.name, None, "order", (), "order drift")
    if recorded.diverged_at != replayed.diverged_at:
        return Mismatch(recorded.name, replayed.diverged_at, "loss", (), "state drift")
    # An older record does not say what its outcomes were computed on.
    here, there = recorded.evaluated_on or {}, replayed.evaluated_on or {}
    changed = [name for name in here if here[name] != there.get(name)]
    if changed:
        return Mismatch(recorded.name, None, f"probe {changed[0]}", (), "data drift")
    return next(compare_resets(recorded, replayed), None)


def compare_resets(recorded: BranchRecord, replayed: BranchRecord) -> Iterator[Mismatch]:
    """What is said to be reset in one branch; an older record does not say it."""
    if recorded.reset is not None and recorded.reset != replayed.reset:
        names = sorted({*recorded.reset} ^ {*(replayed.reset or ())}) or ["reset"]
        yield Mismatch(recorded.name, None, names[0], tuple(names[1:]), "description")


def _compare_all_commitments(
    recorded: BranchRecord, replayed: BranchRecord, steps: Mapping[str, int]
) -> Mismatch | None:
    """Those of every time, and of what a causal break left."""
    pairs = [
        (recorded.digests.get(time, {}), replayed.digests.get(time, {}), steps[time])
        for time in steps
    ]
    here, there = recorded.broken, replayed.broken
    if here is not None and there is not None:
        pairs.append((here.digests, there.digests, steps[CONFIRMATORY[0]]))
    compared = (compare_commitments(recorded.name, *pair) for pair in pairs)
    mismatch = next(filter(None, compared), None)
    if mismatch is None and here != there:
        return Mismatch(recorded.name, None, "causal break", (), "description")
    return mismatch


def first_differing_module(
    left: tuple[tuple[str, str], ...], right: tuple[tuple[str, str], ...]
) -> str | None:
    """The first thing in two module traces that is not the same, or None.

    A module whose input was equal and whose output is not is where two runs begin to differ.
    """
    for here, there in zip(left, right, strict=False):
        if here[0] != there[0]:
            return f"{here[0]} ran here where {there[0]} ran there"
        if here[1] != there[1]:
            return here[0]
    if len(left) != len(right):
        longer = left if len(left) > len(right) else right
        return f"{longer[min(len(left), len(right))][0]}, which ran in only one of the two"
    return None


def environment_differences(recorded: Environment, *replays: Environment) -> tuple[str, ...]:
    """What differs between the environment of a record and those of its replays.

    Only packages that the record names are looked at: a replay may have imported more.
    """
    lines: dict[str, None] = {}
    for here in replays:
        shared = {name: here.packages.get(name, v) for name, v in recorded.packages.items()}
        lines.update(dict.fromkeys(recorded.differences(replace(here, packages=shared))))
    return tuple(lines)


# Of a difference: which step made it, and what would prevent it


def causing_step(mismatch: Mismatch) -> int:
    """The step that made a difference: a row holds the state before its step."""
    step = mismatch.step or 1
    is_own = kind_of(mismatch.component) in ("order drift", "data drift")
    return step if is_own or mismatch.component == "loss" else step - 1


_SEEDING_CALLS = {
    "rng/python": "random.seed(SEED)",
    "rng/numpy": "numpy.random.seed(SEED)",
    "rng/torch": "torch.manual_seed(SEED)",
}


def seeding_calls(streams: Iterable[str]) -> str:
    """The calls that seed these streams."""
    calls = [_SEEDING_CALLS.get(name, "torch.cuda.manual_seed_all(SEED)") for name in streams]
    return ", ".join(dict.fromkeys(calls))
