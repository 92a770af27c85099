"""Which branches a verifier replays: all, or some that its own chance picks."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random

from auditkit.records.fork_points import marked, views
from auditkit.records.manifest import StudyManifest

#: A seed, and a branch of it; with its fork behind the name where the study has several.
BranchName = tuple[int, str]

#: Numbers of bad branches for which the odds of catching one are stated.
_BAD = (1, 2, 5, 10)


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
    order = shuffled(manifest, seed)
    n_drawn = amount if isinstance(amount, int) else len(order)
    drawn = order[:n_drawn]
    text = describe_sample(manifest, len(drawn), seed)
    return Sample(by_seed(drawn), len(drawn) == len(order), text)


def shuffled(manifest: StudyManifest, seed: int | None) -> list[BranchName]:
    """Every branch but the controls, in an order that nobody else could foresee.

    Args:
        manifest: The run.
        seed: Repeats an order.
    """
    every = _branches(manifest)
    source = secrets.SystemRandom() if seed is None else Random(seed)  # noqa: S311 # on purpose
    return source.sample(every, len(every))


def describe_sample(manifest: StudyManifest, n_drawn: int, seed: int | None, how: str = "") -> str:
    """What a draw is worth, for people.

    Args:
        manifest: The run.
        n_drawn: How many branches were replayed.
        seed: As in :func:`draw`.
        how: Further words on how many they are.
    """
    n_all, n_trunks = len(_branches(manifest)), sum(len(v.seeds) for v in views(manifest))
    if n_drawn >= n_all:
        trunks = "1 trunk" if n_trunks == 1 else f"{n_trunks} trunks"
        return f"all {n_all} branches and {trunks}"
    chance = "drawn from --replay-seed, so no odds are stated"
    if seed is None:
        odds = [
            f"{chance_of_catching(n_all, n_drawn, n_bad):.3g} for {n_bad}"
            for n_bad in _BAD
            if n_bad <= n_all
        ]
        chance = "chance of catching at least one bad branch, by their number: " + ", ".join(odds)
    return f"{n_drawn} of {n_all} branches with their trunks{how}; {chance}"


def chance_of_catching(n_all: int, n_drawn: int, n_bad: int) -> float:
    """Chance that a simple random sample holds at least one bad branch (hypergeometric).

    Args:
        n_all: Branches.
        n_drawn: Branches that are replayed.
        n_bad: Branches whose replay would not give the record.
    """
    return 1 - math.comb(n_all - n_bad, n_drawn) / math.comb(n_all, n_drawn)


def by_seed(drawn: Iterable[BranchName]) -> dict[int, tuple[str, ...]]:
    """Branch names by seed."""
    choice: dict[int, tuple[str, ...]] = {}
    for seed, name in drawn:
        choice[seed] = (*choice.get(seed, ()), name)
    return choice


def _branches(manifest: StudyManifest) -> list[BranchName]:
    several = bool(manifest.plan.further_forks)
    return [
        (record.seed, marked(branch.name, view.plan.fork_at) if several else branch.name)
        for view in views(manifest)
        for record in view.seeds
        for branch in record.branches[1:]
    ]
