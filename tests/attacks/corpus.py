"""All attacks."""

from __future__ import annotations

from attacks import (
    artifacts,
    bystander,
    envelope,
    equal_states,
    forgeries,
    imports,
    one_seed,
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
    *imports.ATTACKS,
    *recordings.ATTACKS,
    *own_word.ATTACKS,
    *proof_of_learning.ATTACKS,
    *equal_states.ATTACKS,
    *one_seed.ATTACKS,
    *bystander.ATTACKS,
)
