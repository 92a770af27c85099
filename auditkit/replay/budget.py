"""Replay as much of a study as fits into a time: branches in an order that the verifier draws."""

from __future__ import annotations

import functools
import operator
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from auditkit.evidence.reader import RunEvidence
from auditkit.records.fork_points import fork_of
from auditkit.records.plan import StudyPlan
from auditkit.replay.opened import OpenedHere
from auditkit.replay.request import Replayer, ReplayOutcome, ReplayRequest
from auditkit.replay.sampling import BranchName, by_seed

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
    replayer: Replayer,
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
        step = (now - started) / steps_of(run.manifest.plan, batch)
        del pending[: len(batch)]
        left = (seconds - (now - began)) * _CAUTION
        batch = _fitting(run.manifest.plan, pending, left / step)
    done = tuple(order[: len(order) - len(pending)])
    return BudgetedReplay(merged(outcomes), done, time.monotonic() - began)


def _fitting(plan: StudyPlan, pending: Sequence[BranchName], steps: float) -> list[BranchName]:
    """The longest beginning of what waits that takes at most so many steps."""
    batch: list[BranchName] = []
    for name in pending:
        if steps_of(plan, [*batch, name]) > steps:
            break
        batch.append(name)
    return batch


def steps_of(plan: StudyPlan, batch: Sequence[BranchName]) -> int:
    """Training steps of some branches with the trunks and controls of their seeds and forks."""
    forks = [fork_of(name, plan) for _, name in batch]
    trunks = {(seed, fork) for (seed, _), fork in zip(batch, forks, strict=True)}
    return len(trunks) * plan.horizon + sum(plan.horizon - fork for fork in forks)


def merged(outcomes: Sequence[ReplayOutcome]) -> ReplayOutcome:
    """What several replays found, as one."""
    differing = [outcome for outcome in outcomes if outcome.findings]
    return ReplayOutcome(
        findings=tuple(dict.fromkeys(item for each in outcomes for item in each.findings)),
        outcomes={key: table for each in outcomes for key, table in each.outcomes.items()},
        environments=tuple(item for each in outcomes for item in each.environments),
        undecided=any(each.undecided for each in outcomes),
        distances=tuple(dict.fromkeys(item for each in outcomes for item in each.distances)),
        close=bool(differing) and all(outcome.close for outcome in differing),
        warnings=tuple(dict.fromkeys(item for each in outcomes for item in each.warnings)),
        opened=functools.reduce(operator.or_, (each.opened for each in outcomes), OpenedHere()),
        lacking=tuple(dict.fromkeys(item for each in outcomes for item in each.lacking)),
    )
