"""Which branches a verifier replays: all, some that its own chance picks, or what fits a time."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from auditkit.evidence.reader import RunEvidence
from auditkit.records.manifest import StudyManifest
from auditkit.records.plan import StudyPlan
from auditkit.replay.study_replay import ReplayOutcome, ReplayRequest

#: A seed, and a branch of it.
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
    return Sample(by_seed(_as_recorded(manifest, drawn)), len(drawn) == len(order), text)


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
    n_all, n_trunks = len(_branches(manifest)), len(manifest.seeds)
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
    return [
        (record.seed, branch.name) for record in manifest.seeds for branch in record.branches[1:]
    ]


def _as_recorded(manifest: StudyManifest, drawn: list[BranchName]) -> list[BranchName]:
    chosen = set(drawn)
    return [name for name in _branches(manifest) if name in chosen]


# As many as fit a time

#: Share of the time that is left that a further round may be expected to take.
_CAUTION = 0.8


@dataclass(frozen=True)
class BudgetedReplay:
    """What was replayed.

    Attributes:
        outcome: All rounds as one.
        done: The branches, in the order in which they were drawn.
        seconds: How long it took.
    """

    outcome: ReplayOutcome
    done: tuple[BranchName, ...]
    seconds: float


def replay_within(
    seconds: float,
    order: Sequence[BranchName],
    replayer: Callable[[RunEvidence, ReplayRequest], ReplayOutcome],
    run: RunEvidence,
    request: ReplayRequest,
) -> BudgetedReplay:
    """Replay branches, in rounds, until no further one is expected to end in time.

    The first round is one branch with its trunk, however long that takes: it tells what a step
    costs here. Every later round takes as many branches as should fit.

    Args:
        seconds: The time.
        order: Every branch, in an order that nobody else could foresee.
        replayer: Replays; see :func:`auditkit.replay.study_replay.replay`.
        run: The study.
        request: How; its choice is replaced.
    """
    began = time.monotonic()
    outcomes: list[ReplayOutcome] = []
    pending, batch = list(order), list(order[:1])
    while batch:
        started = time.monotonic()
        outcomes.append(replayer(run, replace(request, choice=by_seed(batch))))
        now = time.monotonic()
        step = (now - started) / _steps(run.manifest.plan, batch)
        del pending[: len(batch)]
        left = (seconds - (now - began)) * _CAUTION
        batch = _fitting(run.manifest.plan, pending, left / step)
    done = tuple(order[: len(order) - len(pending)])
    return BudgetedReplay(_merged(outcomes), done, time.monotonic() - began)


def _fitting(plan: StudyPlan, pending: Sequence[BranchName], steps: float) -> list[BranchName]:
    """The longest beginning of what waits that takes at most so many steps."""
    batch: list[BranchName] = []
    for name in pending:
        if _steps(plan, [*batch, name]) > steps:
            break
        batch.append(name)
    return batch


def _steps(plan: StudyPlan, batch: Sequence[BranchName]) -> int:
    """Training steps of some branches with the trunks and controls of their seeds."""
    seeds = {seed for seed, _ in batch}
    return len(seeds) * plan.horizon + len(batch) * (plan.horizon - plan.fork_at)


def _merged(outcomes: Sequence[ReplayOutcome]) -> ReplayOutcome:
    differing = [outcome for outcome in outcomes if outcome.findings]
    return ReplayOutcome(
        findings=tuple(dict.fromkeys(item for each in outcomes for item in each.findings)),
        outcomes={key: table for each in outcomes for key, table in each.outcomes.items()},
        environments=tuple(item for each in outcomes for item in each.environments),
        undecided=any(each.undecided for each in outcomes),
        distances=tuple(dict.fromkeys(item for each in outcomes for item in each.distances)),
        close=bool(differing) and all(outcome.close for outcome in differing),
    )
