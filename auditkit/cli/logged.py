"""What a recorded loop logged, from the file beside its manifest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from auditkit.errors import AuditError
from auditkit.files import artifacts, store
from auditkit.formats.group_values import is_groups
from auditkit.formats.scalar_file import Scalars, Series, scalars_from_tensors
from auditkit.records.recording import RecordingManifest


@dataclass(frozen=True)
class Logged:
    """What one process logged.

    Attributes:
        rank: The process.
        scalars: Numbers by name; empty where they cannot be read.
        problem: Why they cannot.
    """

    rank: int
    scalars: Scalars
    problem: str = ""


def read_logged(folder: Path, manifest: RecordingManifest) -> Iterator[Logged]:
    """What each process logged, where the file of it lies beside the manifest."""
    for rank in manifest.ranks:
        if rank.scalars is None:
            continue
        try:
            listed = manifest.file(rank.scalars)
            data = artifacts.safe_read(folder, listed.name, expected_sha256=listed.sha256)
            tensors, _ = store.read_tensors(data, what=rank.scalars)
            yield Logged(rank.rank, scalars_from_tensors(tensors, what=rank.scalars))
        except AuditError as error:
            problem = f"Not shown: what rank {rank.rank} logged: {error}"
            yield Logged(rank.rank, {}, problem)


def logged_rows(found: Logged) -> Iterator[tuple[str, ...]]:
    """A row for each name: the numbers of the loop, and the optimizer's that change."""
    for name, series in sorted(found.scalars.items()):
        # of what an optimizer is set to, what changes, and the learning rate
        if not is_groups(name) or len(series.steps) > 1 or name.endswith(".lr"):
            yield (str(found.rank), name, *_told(series))


def loss_curves(found: Logged) -> Iterator[tuple[str, tuple[list[float], list[float]]]]:
    """Steps and finite numbers of what is called a loss."""
    for name, series in sorted(found.scalars.items()):
        if "loss" in name.lower() and not is_groups(name):
            pairs = zip(series.steps.tolist(), series.values.tolist(), strict=True)
            kept = [(step, value) for step, value in pairs if math.isfinite(value)]
            yield f"{name}, rank {found.rank}", ([s for s, _ in kept], [v for _, v in kept])


def _told(series: Series) -> tuple[str, ...]:
    """How many numbers, the first and the last with their steps, and the extremes."""
    steps, values = series.steps.tolist(), series.values.tolist()
    finite = [value for value in values if math.isfinite(value)]
    ends = (min(finite), max(finite)) if finite else (None, None)
    return (
        str(len(values)),
        f"{values[0]:.6g} at {steps[0]}",
        f"{values[-1]:.6g} at {steps[-1]}",
        *("-" if value is None else f"{value:.6g}" for value in ends),
    )
