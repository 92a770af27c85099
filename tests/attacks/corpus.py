"""All attacks."""

from __future__ import annotations

from attacks import (
    artifacts,
    envelope,
    forgeries,
    own_word,
    paths,
    proof_of_learning,
    recordings,
)

ATTACKS = (
    *envelope.ATTACKS,
    *paths.ATTACKS,
    *artifacts.ATTACKS,
    *forgeries.ATTACKS,
    *recordings.ATTACKS,
    *own_word.ATTACKS,
    *proof_of_learning.ATTACKS,
)
