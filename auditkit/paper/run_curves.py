"""What a page draws of the files of a study themselves: losses step by step, and calibration.

Read one branch at a time, so that a long study is never in memory as a whole. Nothing here is an
estimate: seeds and examples are laid together to be looked at, not to be tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.evidence.reader import RunEvidence, SeedEvidence
from auditkit.formats.outcome_names import column_name, table_name
from auditkit.formats.run_files import Outcome
from auditkit.records.evidence import Trace
from auditkit.records.manifest import BranchRecord
from auditkit.records.plan import as_typed
from auditkit.statistics.metrics import reliability, top_label

Floats = NDArray[np.float64]

#: How curves name all placebos together, and the control.
PLACEBOS, CONTROL = "placebos", "control"


@dataclass(frozen=True)
class Course:
    """How far the losses of branches are from their controls', step by step.

    Attributes:
        steps: Steps t0+1 .. T.
        differences: By treatment, and of all placebos together: the mean over seeds of the
            absolute difference; NaN at a step at which no seed has one.
    """

    steps: NDArray[np.int64]
    differences: Mapping[str, Floats]


def loss_courses(run: RunEvidence) -> Course:
    """How the losses of a study's branches part from their controls'.

    Raises:
        ArtifactError: When a trace is missing, or not what was signed.
        FormatError: When it is no trace.
    """
    plan = run.manifest.plan
    n_steps = plan.horizon - plan.fork_at
    sums: dict[str, Floats] = {}
    counts: dict[str, NDArray[np.int64]] = {}
    for record in run.manifest.seeds:
        seed = run.seed(record)
        control = _losses(seed.control)
        for name, branch in _compared(seed):
            with np.errstate(invalid="ignore", over="ignore"):  # of branches that diverged
                difference = np.abs(_losses(run.trace(branch.trace)) - control)
            is_there = np.isfinite(difference)
            total = sums.setdefault(name, np.zeros(n_steps))
            total += np.where(is_there, difference, 0.0)
            counts.setdefault(name, np.zeros(n_steps, np.int64))[is_there] += 1
    with np.errstate(invalid="ignore"):
        means = {name: total / counts[name] for name, total in sums.items()}
    return Course(np.arange(plan.fork_at + 1, plan.horizon + 1), means)


def reliability_curves(run: RunEvidence, probe: str) -> dict[str, tuple[Floats, Floats]]:
    """Mean confidence and accuracy of bins at T, by treatment and of the control; of all seeds.

    Args:
        run: The study.
        probe: A probe's name; empty for one without.

    Returns:
        Nothing where the probe has no labels.

    Raises:
        ArtifactError: When an outcome is missing, or not what was signed.
        FormatError: When it holds no probabilities.
    """
    rows: dict[str, list[tuple[Floats, NDArray[np.bool_]]]] = {}
    for record in run.manifest.seeds:
        seed = run.seed(record)
        branches = [(CONTROL, record.branches[0]), *_compared(seed)]
        for name, branch in branches:
            if name == PLACEBOS or branch.diverged_at is not None:
                continue
            found = _top_label(run.outcome(branch), probe)
            if found is not None:
                rows.setdefault(name, []).append(found)
    return {
        name: reliability(*(np.concatenate(part) for part in zip(*found, strict=True)))
        for name, found in rows.items()
    }


def _compared(seed: SeedEvidence) -> Iterator[tuple[str, BranchRecord]]:
    """Treatments and placebos of a seed, as curves name them."""
    for branch in seed.record.branches:
        if branch.role == "placebo":
            yield PLACEBOS, branch
        elif branch.role == "treatment":
            yield as_typed(branch.name), branch


def _losses(trace: Trace) -> Floats:
    """The loss of every step; the last row took none."""
    return np.frombuffer(trace.loss_bits[:], dtype="<f8")[:-1]


def _top_label(outcome: Outcome, probe: str) -> tuple[Floats, NDArray[np.bool_]] | None:
    labels = outcome.labels_of(probe)
    table = table_name("T", probe)
    if not labels.size:
        return None
    if table in outcome.tables:
        return top_label(outcome.tables[table], labels)
    confidence: Any = outcome.tables.get(column_name(table, "confidence"))
    predicted: Any = outcome.tables.get(column_name(table, "predicted"))
    if confidence is None or predicted is None:
        return None
    return confidence.astype(np.float64), predicted == labels
