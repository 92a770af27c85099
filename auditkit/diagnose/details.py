"""What is on disk of a difference beside its digests: hyper-parameters, and single samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from auditkit.diagnose.runs import ComparedRun, TraceSource
from auditkit.evidence.settings import SettingDifference, held_settings, setting_differences
from auditkit.formats.group_values import (
    GROUPS,
    group_values,
    hyper_parameters,
    is_groups,
)
from auditkit.formats.ordering import delivered_order, order_spec
from auditkit.formats.run_files import order_from_tensors
from auditkit.formats.sample_digests import Window, samples_from_tensors
from auditkit.formats.scalar_file import Scalars, Series, groups_at
from auditkit.formats.snapshot_file import raw_components
from auditkit.records.declaration import DECLARATIONS

Side = tuple[ComparedRun, TraceSource]

_AT_END = "both as the runs ended"


def settings_of(
    left: Side, right: Side, first_steps: Mapping[str, int]
) -> tuple[SettingDifference, ...]:
    """Hyper-parameters of which two traces differ, as far as their values are on disk.

    Args:
        left: A run and its trace.
        right: The other.
        first_steps: The first step at which each column differs.
    """
    found: list[SettingDifference] = []
    for column in filter(is_groups, first_steps):
        step = first_steps[column]
        values, seen = _values(left, right, column, step)
        found += setting_differences(*values, step, seen)
    common = set(left[1].snapshots) & set(right[1].snapshots)
    for at in sorted(at for at in common if at >= min(first_steps.values(), default=0)):
        here, there = (run.tensors(source.snapshots[at]) for run, source in (left, right))
        columns = {name: step for name, step in first_steps.items() if step <= at}
        found += held_settings(here, there, at, columns)
        break
    return tuple(found)


def _values(
    left: Side, right: Side, column: str, step: int
) -> tuple[tuple[Mapping[str, object], Mapping[str, object]], str]:
    """Both sides' values of a column of groups, and when they were so."""
    sides = (left, right)
    noted = [_groups_at(run, source, step) for run, source in sides]
    if all(noted):
        return (noted[0], noted[1]), ""
    common = set(left[1].snapshots) & set(right[1].snapshots)
    at = min((taken for taken in common if taken >= step), default=None)
    if at is not None:
        here, there = (_in_snapshot(run, source.snapshots[at], column) for run, source in sides)
        return (here, there), "" if at == step else f"both as before step {at}"
    here, there = (_in_description(run, column) for run, _ in sides)
    return (here, there), _AT_END


def _groups_at(run: ComparedRun, source: TraceSource, step: int) -> Mapping[str, float]:
    """What a recording noted of its groups before a step; empty where it noted nothing."""
    return groups_at(run.scalars(source), step)


def _in_snapshot(run: ComparedRun, name: str, column: str) -> Mapping[str, object]:
    entries, _ = raw_components(*run.tensors(name)).get(column, ({}, {}))
    text = entries.get("")
    return group_values(column, text if isinstance(text, bytes) else None)


def _in_description(run: ComparedRun, column: str) -> Mapping[str, object]:
    if run.manifest is None or column != GROUPS:
        return {}
    return hyper_parameters(run.manifest.program.description)


def first_unequal(left: Scalars, right: Scalars) -> list[tuple[str, int, str | None, str | None]]:
    """Of each number that was logged differently: its name, the first such step, both values."""
    found = []
    for name in sorted(set(left) | set(right)):
        if is_groups(name):
            continue  # the trace says it
        here, there = (dict(_pairs(side.get(name))) for side in (left, right))
        steps = sorted(set(here) | set(there))
        step = next((t for t in steps if here.get(t) != there.get(t)), None)
        if step is not None:
            found.append((name, step, here.get(step), there.get(step)))
    return found


def _pairs(series: Series | None) -> Iterator[tuple[int, str]]:
    """Steps and numbers as texts, so that NaN equals NaN."""
    if series is not None:
        yield from zip(series.steps.tolist(), map(repr, series.values.tolist()), strict=True)


@dataclass(frozen=True)
class SampleDifference:
    """A sample that has other bytes.

    Attributes:
        step: The step that took it.
        epoch: Its epoch, from 0.
        index: Its index.
    """

    step: int
    epoch: int
    index: int


def first_sample(left: Side, right: Side) -> SampleDifference | None:
    """The first sample with other bytes in the window of a study; None where none is known."""
    try:
        here, there = (dict(_samples(*side)) for side in (left, right))
    except (KeyError, ValueError):  # a forged perturbation: nothing says what was delivered
        return None
    for place, digest in here.items():
        if there.get(place, digest) != digest:
            return SampleDifference(*place)
    return None


def _samples(run: ComparedRun, source: TraceSource) -> Iterator[tuple[tuple[int, int, int], bytes]]:
    """Step, epoch and index of each sample that was digested, and its digest."""
    where = source.samples
    if where is None:
        return
    order = order_from_tensors(run.tensors(where.order)[0], what=where.order)
    tail = order.batches[where.fork_at :]
    kinds = {name: declared.kind for name, declared in DECLARATIONS.items()}
    spec = order_spec(where.spec, kinds)
    delivered = delivered_order(tail, spec, where.window, where.seed, order.difficulty)
    digests = samples_from_tensors(run.tensors(where.file)[0], what=where.file)
    for (epoch, index), digest, offset in Window(delivered[: where.window], digests).measured():
        yield (where.fork_at + 1 + offset, epoch, index), digest
