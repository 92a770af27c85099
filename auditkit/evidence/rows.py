"""What differs in a row that comes from a running loop, and which step made it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from auditkit.evidence.comparison import Parting, kind_of, name_parting
from auditkit.records.digest import ABSENT
from auditkit.records.evidence import Trace

_SEEDING = {
    "rng/python": "random.seed(SEED)",
    "rng/numpy": "numpy.random.seed(SEED)",
    "rng/torch": "torch.manual_seed(SEED)",
}


def part_rows(
    where: str, recorded: Trace, row: Trace, starts: Collection[str] = ()
) -> Parting | None:
    """Where a row parts from the recorded one, or None.

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
        return Parting(where, step, "steps", (), "length")  # one of the two has ended here
    return name_parting(where, step, names, starts)


def own_step(parting: Parting) -> int:
    """The step that made a difference: a row holds the state before its step."""
    step = parting.step or 1
    is_own = kind_of(parting.component) in ("order drift", "data drift")
    return step if is_own or parting.component == "loss" else step - 1


def seeding(streams: Iterable[str]) -> str:
    """The calls that seed these streams."""
    calls = [_SEEDING.get(name, "torch.cuda.manual_seed_all(SEED)") for name in streams]
    return ", ".join(dict.fromkeys(calls))
