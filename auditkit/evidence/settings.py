"""Hyper-parameters that two runs have differently, in the words of the field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from auditkit.formats.group_values import GROUPS, group_values
from auditkit.formats.snapshot_file import raw_components
from auditkit.records.tensor import RawTensor

Snapshot = tuple[Mapping[str, RawTensor], object]


@dataclass(frozen=True)
class SettingDifference:
    """A hyper-parameter that two runs have differently.

    Attributes:
        name: As the optimizer calls it: ``lr``, ``betas[0]``.
        place: Its group: ``param_groups[0]``.
        left: What one run has; None where it has no such one.
        right: What the other has.
        step: The first step before which the groups differ.
        seen: When they had these values, where that is not known of that step.
    """

    name: str
    place: str
    left: str | None
    right: str | None
    step: int
    seen: str = ""

    def __str__(self) -> str:
        here, there = ("absent" if side is None else side for side in (self.left, self.right))
        seen = f"; {self.seen}" if self.seen else ""
        return f"{self.name} {here} -> {there} from step {self.step} on ({self.place}{seen})"


def setting_differences(
    left: Mapping[str, object], right: Mapping[str, object], step: int, seen: str = ""
) -> tuple[SettingDifference, ...]:
    """What two sets of values do not share.

    Args:
        left: Values of one run, named as by :mod:`auditkit.formats.group_values`.
        right: Those of the other.
        step: The first step before which they differ.
        seen: See :class:`SettingDifference`.
    """
    found = []
    for full in sorted(set(left) | set(right)):
        if full in left and full in right and repr(left[full]) == repr(right[full]):
            continue  # by their texts: 0.0 and -0.0 are other bits
        place, _, name = full.partition("].")
        here, there = (str(side[full]) if full in side else None for side in (left, right))
        found.append(SettingDifference(name, f"{place}]", here, there, step, seen))
    return tuple(found)


def held_settings(
    left: Snapshot, right: Snapshot, at: int, first_steps: Mapping[str, int]
) -> Iterator[SettingDifference]:
    """What the groups of optimizers that are extras do not share.

    No row has these values, as it has those of the first optimizer, so two snapshots tell them.

    Args:
        left: Tensors and metadata of one file.
        right: Those of the other.
        at: The step before which both were taken.
        first_steps: The first step at which each component differs.

    Raises:
        FormatError: When one of them is no snapshot.
    """
    here, there = raw_components(*left), raw_components(*right)
    for name in sorted(here.keys() & there.keys() & first_steps.keys()):
        if name.startswith("extras/"):
            values = [_held(name, part[name][0]) for part in (here, there)]
            seen = "or earlier" if at > first_steps[name] else ""
            yield from setting_differences(values[0], values[1], at, seen)


def _held(name: str, entries: Mapping[str, RawTensor | bytes]) -> Mapping[str, object]:
    text = entries.get(f"{GROUPS}#")
    return group_values(f"{name}/{GROUPS}", text if isinstance(text, bytes) else None)
