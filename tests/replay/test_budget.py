from __future__ import annotations

from collections.abc import Mapping

import pytest
from studies import Run

from auditkit.evidence.reader import RunEvidence
from auditkit.records.report import Finding
from auditkit.replay.budget import replay_within
from auditkit.replay.sampling import by_seed, shuffled
from auditkit.replay.study_replay import ReplayOutcome, ReplayRequest


class Clock:
    """A clock that goes on as replays do."""

    def __init__(self, step_seconds: float) -> None:
        self.now = 0.0
        self.step_seconds = step_seconds
        self.choices: list[Mapping[int, tuple[str, ...]]] = []

    def monotonic(self) -> float:
        return self.now

    def replay(self, run: RunEvidence, request: ReplayRequest) -> ReplayOutcome:
        plan = run.manifest.plan
        branch_steps = plan.horizon - plan.fork_at
        self.choices.append(request.choice)
        for names in request.choice.values():
            self.now += self.step_seconds * (plan.horizon + branch_steps * len(names))
        found = [Finding("differs", name) for names in request.choice.values() for name in names]
        return ReplayOutcome(tuple(found), {}, (run.manifest.environment,), close=True)


@pytest.mark.parametrize("seconds", [1.0, 40.0, 80.0, 160.0, 1e6])
def test_replays_as_much_as_fits(
    small: Run, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    clock = Clock(1.0)
    monkeypatch.setattr("auditkit.replay.budget.time", clock)
    run = RunEvidence(small.folder, small.manifest)
    order = shuffled(small.manifest, 3)
    request = ReplayRequest({}, {})
    rounds = replay_within(seconds, order, clock.replay, run, request)
    assert rounds.done == tuple(order[: len(rounds.done)])
    assert len(rounds.done) >= 1  # one branch, however long it takes
    assert rounds.seconds == clock.now
    first = small.manifest.plan.horizon * 2 - small.manifest.plan.fork_at
    assert clock.now <= max(seconds, first)
    if seconds > 1e5:
        assert len(rounds.done) == len(order)
    replayed = [
        (seed, name) for choice in clock.choices for seed, names in choice.items() for name in names
    ]
    assert by_seed(replayed) == by_seed(rounds.done)
    assert {finding.where for finding in rounds.outcome.findings} == {n for _, n in rounds.done}
    assert rounds.outcome.close


def test_a_longer_time_replays_no_less(small: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for seconds in (1.0, 50.0, 100.0, 200.0, 1000.0):
        clock = Clock(1.0)
        monkeypatch.setattr("auditkit.replay.budget.time", clock)
        run = RunEvidence(small.folder, small.manifest)
        order = shuffled(small.manifest, 3)
        rounds = replay_within(seconds, order, clock.replay, run, ReplayRequest({}, {}))
        counts.append(len(rounds.done))
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
