"""What differs in a row that comes from a running loop, and what it is called.

The first name of a difference is chosen by what can have caused what: the order before the
batches, these before the settings (``modules``, ``param_groups``, ``scheduler``, ``scaler``),
then the random streams, then the weights and all that follows from them, the loss last. Two
exceptions, since a row holds the state from which its order and batch were then drawn: where a
process began with other random streams, that is what differs; and where a later row has other
streams, settings and streams come before order and batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from auditkit.comparison import Parting
from auditkit.records.digest import ABSENT
from auditkit.records.evidence import CONSUMED, Trace

_SETTINGS = ("modules", "param_groups", "scheduler", "scaler")

_KINDS = {"order": "order drift", "batch": "data drift", "rng": "RNG drift", "steps": "length"}

_SEEDING = {
    "rng/python": "random.seed(SEED)",
    "rng/numpy": "numpy.random.seed(SEED)",
    "rng/torch": "torch.manual_seed(SEED)",
}


def precedence(component: str, *, drawn: bool = False) -> tuple[int, str]:
    """Sorts the components of one row: the likely cause first.

    Args:
        component: The component.
        drawn: Whether the row's random streams differ, so that what it consumed can be due to
            them.
    """
    kind = component.partition("/")[0]
    if kind in CONSUMED:
        return CONSUMED.index(kind) + 4 * drawn, component
    if kind in _SETTINGS:
        return 2, component
    return {"rng": 3, "loss": 9}.get(kind, 8), component


def kind_of(component: str) -> str:
    """The class of a difference."""
    return _KINDS.get(component.partition("/")[0], "state drift")


def name_parting(
    where: str, step: int, components: Iterable[str], starts: Collection[str] = ()
) -> Parting:
    """Name a difference.

    Args:
        where: The process, for people.
        step: Of the row.
        components: What differs in it.
        starts: Random streams in which the processes began differently.
    """
    names = list(components)
    drawn = step > 1 and any(name.startswith("rng/") for name in names)
    first, *others = sorted(
        names, key=lambda name: (name not in starts, *precedence(name, drawn=drawn))
    )
    return Parting(where, step, first, tuple(others), kind_of(first))


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
