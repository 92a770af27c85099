"""How far two runs are apart: snapshots, component by component without torch, and probe tables.

Says nothing of why. Where hardware, threads or libraries differ, small distances are what honest
runs have; an edit can be as small, so a distance never proves that there was none.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from auditkit.errors import JsonError
from auditkit.formats.data_position import position_digests
from auditkit.formats.outcome_names import (
    is_real,
    is_recalibrated,
    is_targets,
    split_measure,
    time_of,
)
from auditkit.formats.recipes import ITEM_BYTES
from auditkit.formats.run_files import Outcome
from auditkit.formats.snapshot_file import LOADER, raw_components
from auditkit.records.report import Distance
from auditkit.records.tensor import RawTensor

_PLAIN: Final = frozenset(
    [
        *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    ]
)


@dataclass(frozen=True)
class Magnitude:
    """How far one component is apart.

    Attributes:
        component: Its name.
        elements: How many elements of its tensors differ.
        absolute: Largest absolute difference; None where none is finite.
        absolute_tensor: The tensor that it is in.
        relative: Largest difference relative to the larger of the two values, 0 to 2.
        relative_tensor: The tensor that it is in.
        not_finite: How many of the elements have no finite difference.
        unmeasured: Entries that differ and have no number: another shape or dtype, missing on
            one side, or no tensor at all.
    """

    component: str
    elements: int
    absolute: float | None
    absolute_tensor: str | None
    relative: float | None
    relative_tensor: str | None
    not_finite: int
    unmeasured: tuple[str, ...]


def measure(
    left: tuple[Mapping[str, RawTensor], object],
    right: tuple[Mapping[str, RawTensor], object],
    idle: Collection[str] = (),
) -> tuple[Magnitude, ...]:
    """Compare two snapshots.

    Args:
        left: Tensors and metadata of one file.
        right: Those of the other.
        idle: Components that are not compared, such as random streams that nothing drew from;
            where these stood is no difference of a data position, either.

    Returns:
        A record for every component that differs, by name.

    Raises:
        FormatError: When one of them is no snapshot.
    """
    here, there = raw_components(*left), raw_components(*right)
    found = []
    for name in sorted((set(here) | set(there)) - set(idle)):
        ours, our_aliases = here.get(name, ({}, {}))
        theirs, their_aliases = there.get(name, ({}, {}))
        magnitude = _compare(
            name, ours, theirs, set(our_aliases.items()) ^ set(their_aliases.items())
        )
        if magnitude is None or (
            name.partition("/")[0] == LOADER
            and (magnitude.elements, magnitude.unmeasured) == (0, ("",))
            and _is_same_position(ours.get(""), theirs.get(""), idle)
        ):
            continue
        found.append(magnitude)
    return tuple(found)


def _is_same_position(left: object, right: object, idle: Collection[str]) -> bool:
    """Whether two data positions differ in nothing but streams that nothing drew from."""
    if not isinstance(left, bytes) or not isinstance(right, bytes):
        return False
    try:
        here, there = (
            position_digests(text, lambda rest: hashlib.sha256(rest).digest())
            for text in (left, right)
        )
    except JsonError:
        return False
    return not {name for name, _ in here.items() ^ there.items()} - set(idle)


def _compare(
    name: str,
    left: Mapping[str, RawTensor | bytes],
    right: Mapping[str, RawTensor | bytes],
    aliases: set[tuple[str, str]],
) -> Magnitude | None:
    unmeasured = {entry for entry, _ in aliases}
    absolute, relative = _Largest(), _Largest()
    elements = not_finite = 0
    for entry in sorted(set(left) | set(right)):
        ours, theirs = left.get(entry), right.get(entry)
        if not isinstance(ours, RawTensor) or not isinstance(theirs, RawTensor):
            if ours != theirs:
                unmeasured.add(entry)
            continue
        if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
            unmeasured.add(entry)
            continue
        mask = _unequal(ours, theirs)
        if not mask.any():
            continue
        elements += int(mask.sum())
        values = _values(ours, mask), _values(theirs, mask)
        if values[0] is None or values[1] is None:
            unmeasured.add(entry)
            continue
        gaps, shares = _gaps(values[0], values[1])
        not_finite += int((~np.isfinite(gaps)).sum())
        absolute.update(gaps, entry)
        relative.update(shares, entry)
    if not elements and not unmeasured:
        return None
    return Magnitude(
        component=name,
        elements=elements,
        absolute=absolute.value,
        absolute_tensor=absolute.entry,
        relative=relative.value,
        relative_tensor=relative.entry,
        not_finite=not_finite,
        unmeasured=tuple(sorted(unmeasured)),
    )


@dataclass
class _Largest:
    """The largest finite value so far, and where it was."""

    value: float | None = None
    entry: str | None = None

    def update(self, values: NDArray[np.float64], entry: str) -> None:
        """Take in the values of one tensor."""
        finite = values[np.isfinite(values)]
        if finite.size and (self.value is None or finite.max() > self.value):
            self.value, self.entry = float(finite.max()), entry


def _unequal(left: RawTensor, right: RawTensor) -> NDArray[np.bool_]:
    width = ITEM_BYTES[left.dtype]
    here, there = (
        np.frombuffer(tensor.data, dtype=np.uint8).reshape(-1, width) for tensor in (left, right)
    )
    return np.asarray((here != there).any(axis=1), dtype=np.bool_)


def _gaps(
    left: NDArray[Any], right: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Absolute differences, and the same relative to the larger of the two values."""
    with np.errstate(all="ignore"):  # values that are not finite are counted, not warned about
        if left.dtype.kind in "iu":
            # Unsigned differences are exact for all integers; float64 would round large ones.
            high, low = np.maximum(left, right), np.minimum(left, right)
            gaps = (high.astype(np.uint64) - low.astype(np.uint64)).astype(np.float64)
        else:
            gaps = np.abs(left - right).astype(np.float64)
        scale = np.maximum(np.abs(left.astype(np.complex128)), np.abs(right.astype(np.complex128)))
        shares = np.where(gaps == 0, 0.0, gaps / scale)
    return gaps, np.asarray(shares, dtype=np.float64)


def _values(tensor: RawTensor, mask: NDArray[np.bool_]) -> NDArray[Any] | None:
    """The chosen elements as numbers; None for a dtype that numpy cannot be taught."""
    dtype = tensor.dtype
    if dtype in _PLAIN:
        kind = np.dtype(dtype).newbyteorder("<")
        found = np.frombuffer(tensor.data, dtype=kind)[mask]
        if found.dtype.kind == "b":
            return found.astype(np.int8)
        wide = {"f": np.float64, "c": np.complex128}.get(found.dtype.kind)
        return found if wide is None else found.astype(wide)
    if dtype == "bfloat16":  # the upper half of a float32
        bits = np.frombuffer(tensor.data, dtype="<u2")[mask].astype(np.uint32)
        return (bits << 16).view(np.float32).astype(np.float64)
    if dtype == "float8_e5m2":  # the upper half of a float16
        bytes_ = np.frombuffer(tensor.data, dtype=np.uint8)[mask].astype(np.uint16)
        return (bytes_ << 8).view(np.float16).astype(np.float64)
    if dtype == "float8_e4m3fn":
        return _E4M3FN[np.frombuffer(tensor.data, dtype=np.uint8)[mask]]
    return None


def _e4m3fn(byte: int) -> float:
    sign, exponent, mantissa = -1.0 if byte & 0x80 else 1.0, byte >> 3 & 0xF, byte & 7
    if (exponent, mantissa) == (15, 7):
        return math.nan
    if exponent == 0:
        return sign * mantissa * 2.0**-9
    return sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


_E4M3FN: Final = np.array([_e4m3fn(byte) for byte in range(256)])


# Record and replay

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
    """The probe tables of one branch whose bits differ; numbers are of whole probabilities only.

    Args:
        where: Seed and branch.
        recorded: The recorded tables.
        replayed: The recomputed ones.
    """
    for name in sorted(set(recorded.tables) | set(replayed.tables)):
        here, there = recorded.tables.get(name), replayed.tables.get(name)
        if here is None or there is None or here.shape != there.shape:
            yield Distance(where, "probe", name, None, None)
        elif here.tobytes() == there.tobytes():
            continue
        elif here.ndim < 2 or is_real(name) or is_targets(name):
            # Of a table by position nothing is kept, and all else holds no probabilities.
            yield Distance(where, "probe", name, None, None)
        else:
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


def describe_distances(distances: Iterable[Distance], branch: str, times: Iterable[str]) -> str:
    """Distances as the end of a sentence; empty where nothing was measured.

    Args:
        distances: Those of one branch and of its seed's snapshot.
        branch: The branch, as messages name it.
        times: Tables to name, in this order; 0 where the bits are equal.
    """
    found = tuple(distances)
    probes = [item for item in found if item.kind == "probe" and not split_measure(item.name)[1]]
    tables = [item for item in probes if not is_recalibrated(item.name)]
    by_time = {time: [item for item in tables if time_of(item.name) == time] for time in times}
    shown = ", ".join(f"{_variation(items)} at {time}" for time, items in by_time.items())
    text = f"; total variation between record and replay of {branch}: {shown}" if shown else ""
    states = sorted((item for item in found if item.kind == "state"), key=lambda item: -_size(item))
    parts = [_state(item) for item in states[:_SHOWN]]
    if len(states) > _SHOWN:
        rest = len(states) - _SHOWN
        parts.append(f"{rest} more component{'s' if rest > 1 else ''}")
    return text + (f"; largest difference of the snapshots: {', '.join(parts)}" if parts else "")


def _variation(items: Sequence[Distance]) -> str:
    """Of several probes the largest."""
    values = [item.total_variation for item in items]
    known = [value for value in values if value is not None]
    return "no number" if len(known) < len(values) else f"{max(known, default=0):.2g}"


def _size(item: Distance) -> float:
    return float("inf") if item.largest_absolute is None else item.largest_absolute


def _state(item: Distance) -> str:
    if item.largest_absolute is None or item.largest_relative is None:
        return f"{item.name} (no number)"
    return f"{item.name} by {item.largest_absolute:.2g} (relatively by {item.largest_relative:.2g})"


def total_variations(recorded: Outcome, replayed: Outcome) -> Mapping[str, float]:
    """Mean total variation between recorded and replayed probe tables, by table."""
    found = {}
    for name, table in recorded.tables.items():
        other = None if is_real(name) or is_targets(name) else replayed.tables.get(name)
        if other is not None and other.shape == table.shape and table.ndim == 2:
            gap = np.abs(table.astype(np.float64) - other.astype(np.float64))
            found[name] = float(gap.sum(axis=1).mean() / 2)
    return {name: value for name, value in found.items() if math.isfinite(value)}
