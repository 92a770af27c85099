"""All attacks."""

from __future__ import annotations

from attacks import artifacts, envelope, forgeries, imports, paths, proof_of_learning, recordings

ATTACKS = (
    *envelope.ATTACKS,
    *paths.ATTACKS,
    *artifacts.ATTACKS,
    *forgeries.ATTACKS,
    *imports.ATTACKS,
    *recordings.ATTACKS,
    *proof_of_learning.ATTACKS,
)
