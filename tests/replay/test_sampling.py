from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_examples import MANIFEST, SEED
from scipy import stats
from studies import Run

from auditkit.evidence.reader import RunEvidence
from auditkit.records.report import Finding
from auditkit.replay.sampling import (
    by_seed,
    chance_of_catching,
    describe_sample,
    draw,
    replay_within,
    shuffled,
)
from auditkit.replay.study_replay import ReplayOutcome, ReplayRequest


@given(st.integers(1, 30), st.data())
def test_the_odds_are_those_of_a_simple_random_sample(n_all: int, data: st.DataObject) -> None:
    n_drawn = data.draw(st.integers(0, n_all))
    n_bad = data.draw(st.integers(0, n_all))
    expected = stats.hypergeom(n_all, n_bad, n_drawn).sf(0)
    assert chance_of_catching(n_all, n_drawn, n_bad) == pytest.approx(expected, abs=1e-12)


def test_the_odds_are_those_of_counting() -> None:
    draws = list(itertools.combinations(range(7), 3))
    hits = sum(bool({0, 1} & set(drawn)) for drawn in draws)
    assert chance_of_catching(7, 3, 2) == pytest.approx(hits / len(draws))


def test_a_draw_holds_so_many_branches_and_no_control() -> None:
    sample = draw(MANIFEST, 1, None)
    assert sum(map(len, sample.choice.values())) == 1
    assert "control" not in {name for names in sample.choice.values() for name in names}


def test_a_seed_repeats_an_order() -> None:
    manifest = replace(MANIFEST, seeds=(SEED, replace(SEED, seed=9)))
    assert shuffled(manifest, 5) == shuffled(manifest, 5)


def test_everything_is_said_to_be_everything() -> None:
    n_all = len(shuffled(MANIFEST, 0))
    assert describe_sample(MANIFEST, n_all, None).startswith(f"all {n_all} branches")


# A time to spend


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
    monkeypatch.setattr("auditkit.replay.sampling.time", clock)
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
        monkeypatch.setattr("auditkit.replay.sampling.time", clock)
        run = RunEvidence(small.folder, small.manifest)
        order = shuffled(small.manifest, 3)
        rounds = replay_within(seconds, order, clock.replay, run, ReplayRequest({}, {}))
        counts.append(len(rounds.done))
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
