"""Whether two workers are of one kind: a study is one environment's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from auditkit.errors import PlanError
from auditkit.records.environment import Environment


def refuse_other(first: Environment, here: Environment, host: str | None = None) -> None:
    """Refuse a worker whose software or hardware is not that of the workers before.

    Args:
        first: Where the study ran so far.
        here: Where the worker runs.
        host: The machine, for the message.

    Raises:
        PlanError: Naming what differs.
    """
    lines = list(other(first, here))
    if lines:
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        place = "a worker" if host is None else f"the worker on {host}"
        raise PlanError(
            f"{place} has another environment than the workers before: {lines[0]}{more}",
            hint="a study runs in one: give the engine workers of one kind, then --resume",
        )


def other(first: Environment, here: Environment) -> Iterator[str]:
    """What differs, a line each; of packages, the versions of those that both imported."""
    both = first.packages.keys() & here.packages.keys()
    pair = (
        replace(each, packages={name: each.packages[name] for name in both})
        for each in (first, here)
    )
    one, two = pair
    yield from one.differences(two)
