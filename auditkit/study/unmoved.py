"""What is said at a study's end of parts that training is to move, and did not."""

from __future__ import annotations

from collections.abc import Sequence

from auditkit.records.manifest import SeedRecord

_WHY = {
    "params": "no weight was trained: the optimizer takes no steps, or holds other parameters",
    "scheduler": "scheduler_interval='epoch' steps it where an epoch ends, and a step= of the "
    "program's own steps it itself",
    "averaged": "a step= of the program's own updates averages itself",
}


def unmoved_notes(records: Sequence[SeedRecord], horizon: int) -> list[str]:
    """What of the weights, schedule and averages is at the end as at the start, a line each.

    Args:
        records: The seeds.
        horizon: The step of the end.
    """
    still = set.intersection(*map(_unmoved, records))
    weights = {name for name in records[0].initial if _kind(name) == "params"}
    if not weights <= still:  # what is left of them is frozen
        still -= weights
    if "param_groups" not in still:  # moved by a schedule that keeps no state
        still.discard("scheduler")
    found = {kind: sorted(name for name in still if _kind(name) == kind) for kind in _WHY}
    return [
        f"{', '.join(names)}: at step {horizon} as at the start, in every seed; {_WHY[kind]}"
        for kind, names in found.items()
        if names
    ]


def _kind(component: str) -> str:
    return component.partition("/")[0]


def _unmoved(record: SeedRecord) -> set[str]:
    (end,) = (b.digests.get("T", {}) for b in record.branches if b.role == "control")
    return {name for name, digest in record.initial.items() if end.get(name) == digest}
