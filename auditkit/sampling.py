"""Which branches a verifier replays: all, or some that its own chance picks."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from auditkit.records.manifest import StudyManifest


@dataclass(frozen=True)
class Sample:
    """The branches to replay.

    Attributes:
        choice: Branch names (the control excluded) by seed; each with its seed's trunk.
        is_everything: Whether no branch was left out.
        text: How they were chosen and what that is worth, for people.
    """

    choice: Mapping[int, tuple[str, ...]]
    is_everything: bool
    text: str


def draw(manifest: StudyManifest, amount: str | int, seed: int | None) -> Sample:
    """Choose the branches to replay.

    Args:
        manifest: The run.
        amount: How many branches to draw, or ``all``.
        seed: Repeats a draw; an author may know it, so then no odds are stated.
    """
    every = [
        (record.seed, branch.name) for record in manifest.seeds for branch in record.branches[1:]
    ]
    n_trunks = len(manifest.seeds)
    if not isinstance(amount, int) or amount >= len(every):
        text = f"all {len(every)} branches and {n_trunks} trunks"
        return Sample(_by_seed(every), True, text)
    source = secrets.SystemRandom() if seed is None else Random(seed)  # noqa: S311 # on purpose
    drawn = sorted(source.sample(every, amount), key=every.index)
    odds = (
        f"a single bad branch would have been caught with probability {amount / len(every):.3g}"
        if seed is None
        else "drawn from --replay-seed, so no odds are stated"
    )
    return Sample(
        _by_seed(drawn), False, f"{amount} of {len(every)} branches with their trunks; {odds}"
    )


def _by_seed(drawn: list[tuple[int, str]]) -> dict[int, tuple[str, ...]]:
    choice: dict[int, tuple[str, ...]] = {}
    for seed, name in drawn:
        choice[seed] = (*choice.get(seed, ()), name)
    return choice
