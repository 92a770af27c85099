"""How far a replay is from the record: snapshots at t0, and the probe tables of every branch.

Says nothing of why. Where hardware, threads or libraries differ, small distances are what honest
runs have; an edit can be as small, so a distance never proves that there was none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from auditkit.evidence.magnitudes import measure
from auditkit.formats.run_files import Outcome
from auditkit.records.report import Distance
from auditkit.records.tensor import RawTensor

Snapshot = tuple[Mapping[str, RawTensor], object]

#: Components that a message names; the record of distances holds all.
_SHOWN = 3


def state_distances(where: str, recorded: Snapshot, replayed: Snapshot) -> Iterator[Distance]:
    """The components in which two snapshots differ.

    Args:
        where: Seed and ``fork``.
        recorded: Tensors and metadata of the recorded file.
        replayed: Those of the replay's own.

    Raises:
        FormatError: When one of them is no snapshot.
    """
    for found in measure(recorded, replayed):
        whole = not found.unmeasured and not found.not_finite
        yield Distance(
            where,
            "state",
            found.component,
            found.absolute if whole else None,
            found.relative if whole else None,
        )


def probe_distances(where: str, recorded: Outcome, replayed: Outcome) -> Iterator[Distance]:
    """The probe tables of one branch whose bits differ.

    Args:
        where: Seed and branch.
        recorded: The recorded tables.
        replayed: The recomputed ones.
    """
    for name in sorted(set(recorded.tables) | set(replayed.tables)):
        here, there = recorded.tables.get(name), replayed.tables.get(name)
        if here is None or there is None or here.shape != there.shape:
            yield Distance(where, "probe", name, None, None)
        elif here.tobytes() != there.tobytes():
            yield _probe_distance(where, name, here.astype(float), there.astype(float))


def _probe_distance(
    where: str, name: str, here: NDArray[np.float64], there: NDArray[np.float64]
) -> Distance:
    gaps = np.abs(here - there)
    if not np.isfinite(gaps).all():
        return Distance(where, "probe", name, None, None)
    scale = np.maximum(np.abs(here), np.abs(there))
    shares = np.divide(gaps, scale, out=np.zeros_like(gaps), where=gaps > 0)
    variation = float(gaps.sum(axis=1).mean() / 2)
    return Distance(where, "probe", name, float(gaps.max()), float(shares.max()), variation)


def within(distances: Iterable[Distance], tolerance: float) -> bool:
    """Whether no probe table is further away than a tolerance.

    Args:
        distances: Of every replayed branch; tables with equal bits are not among them.
        tolerance: The largest mean total variation that still counts as close. The mean
            probability of any set of answers moves by no more than that, and the difference of
            two branches by no more than twice that. What has no number is never within it.
    """
    return all(
        found.total_variation is not None and found.total_variation <= tolerance
        for found in distances
        if found.kind == "probe"
    )


def told(distances: Iterable[Distance], branch: str, times: Iterable[str]) -> str:
    """Distances as the end of a sentence; empty where nothing was measured.

    Args:
        distances: Those of one branch and of its seed's snapshot.
        branch: The branch, as messages name it.
        times: Tables to name, in this order; 0 where the bits are equal.
    """
    found = tuple(distances)
    tables = {item.name: item for item in found if item.kind == "probe"}
    shown = ", ".join(f"{_variation(tables.get(time))} at {time}" for time in times)
    text = f"; total variation between record and replay of {branch}: {shown}" if shown else ""
    states = sorted((item for item in found if item.kind == "state"), key=lambda item: -_size(item))
    parts = [_state(item) for item in states[:_SHOWN]]
    if len(states) > _SHOWN:
        rest = len(states) - _SHOWN
        parts.append(f"{rest} more component{'s' if rest > 1 else ''}")
    return text + (f"; largest difference of the snapshots: {', '.join(parts)}" if parts else "")


def _variation(item: Distance | None) -> str:
    if item is None:
        return "0"
    return "no number" if item.total_variation is None else f"{item.total_variation:.2g}"


def _size(item: Distance) -> float:
    return float("inf") if item.largest_absolute is None else item.largest_absolute


def _state(item: Distance) -> str:
    if item.largest_absolute is None or item.largest_relative is None:
        return f"{item.name} (no number)"
    return f"{item.name} by {item.largest_absolute:.2g} (relatively by {item.largest_relative:.2g})"
