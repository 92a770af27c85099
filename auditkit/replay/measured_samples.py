"""Samples that a replay measured and the record does not have: what is moved keeps its looks.

Of measured records check 6 says it. One without them, as earlier builds made it, promises the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from auditkit.evidence.reader import SeedEvidence
from auditkit.formats.ordering import delivered_window
from auditkit.formats.sample_digests import Window, augmentation_drift
from auditkit.records.report import Finding
from auditkit.replay.attempts import Attempt


def moved_samples(seed: SeedEvidence, trunk: Attempt, branches: Attempt) -> Iterator[Finding]:
    """Findings about samples that do not look in a branch as in the control.

    Args:
        seed: The recorded evidence, whose order the branches were given.
        trunk: The replay of trunk and control.
        branches: That of branches.
    """
    plan, control = seed.run.manifest.plan, trunk.samples.get("control")
    if plan.augmentation_rng != "per-sample" or control is None or seed.order.content is not None:
        return
    window = seed.order.flat.part(plan.fork_at, plan.window_end)
    for name, samples in branches.samples.items():
        recorded = seed.record.branch(name)
        if recorded.samples is not None or recorded.perturbation is None:
            continue
        number, difficulty = seed.record.seed, seed.order.difficulty
        try:
            moved = delivered_window(window, recorded.perturbation, number, difficulty)
        except ValueError:
            continue  # check 6 says that the order file does not fit
        here, there = Window(window.batches(), control), Window(moved.batches(), samples)
        drift = augmentation_drift(here, there)
        if drift is not None:
            step = plan.fork_at + 1 + drift.offset
            yield Finding(f"{drift}; the record measured none", seed.place(recorded), step, "batch")
