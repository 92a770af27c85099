"""Branches of one seed at a time: never more processes than were asked for, and no order lost."""

from __future__ import annotations

import threading

import pytest

from auditkit.errors import ProgramFailed
from auditkit.processes.side_by_side import SeveralProgress, Slots, n_ready, side_by_side
from auditkit.records.job import Progress

#: Long enough for a thread of a busy machine.
_SECONDS = 30.0


@pytest.mark.parametrize(
    ("jobs", "n_seeds", "free"), [(1, 1, 0), (4, 1, 3), (4, 4, 0), (2, 8, 0), (8, 3, 5)]
)
def test_a_seed_that_is_to_run_keeps_its_process(jobs: int, n_seeds: int, free: int) -> None:
    slots = Slots(jobs, n_seeds)
    assert slots.adjust(0, 100) == free
    assert slots.adjust(0, 1) == 0


def test_a_process_goes_to_the_next_seed_and_to_branches_only_where_none_waits() -> None:
    slots, found = Slots(jobs=2, n_seeds=4), []
    for _ in range(4):
        slots.end_seed()
        found.append(slots.adjust(0, 100))
    assert found == [0, 0, 1, 1]  # the last two seeds have ended


def test_what_is_given_back_can_be_taken_again() -> None:
    slots = Slots(jobs=4, n_seeds=1)
    held = slots.adjust(0, 2)
    held = slots.adjust(held, 9)
    assert (held, slots.adjust(0, 1)) == (3, 0)
    assert slots.adjust(held, 1) == 1
    assert slots.adjust(0, 9) == 2


@pytest.mark.parametrize(
    ("waiting", "n_running", "n"),
    [
        ([], 0, 0),
        (["carry", "placebo-0", "replica"], 0, 2),
        (["carry", "placebo-0", "replica"], 5, 2),
        (["replica"], 1, 0),
        (["replica"], 0, 1),
        (["replica", "carry"], 1, 2),  # of a replay, whose order is drawn
    ],
)
def test_a_replica_at_the_end_waits_for_all_others(
    waiting: list[str], n_running: int, n: int
) -> None:
    assert n_ready(waiting, n_running) == n


def test_branches_run_at_once_as_far_as_there_are_processes_and_the_replica_after_them() -> None:
    slots, names = Slots(jobs=3, n_seeds=1), [f"placebo-{n}" for n in range(6)]
    together, lock = threading.Barrier(3), threading.Lock()
    running: set[str] = set()
    seen: list[tuple[str, int]] = []

    def run(name: str) -> None:
        with lock:
            running.add(name)
            seen.append((name, len(running)))
        if name != "replica":
            together.wait(_SECONDS)  # breaks where fewer than three run at once
        with lock:
            running.discard(name)

    side_by_side([*names, "replica"], run, slots)
    assert sorted(name for name, _ in seen[:-1]) == names
    assert seen[-1] == ("replica", 1)
    assert max(n for _, n in seen) == 3
    assert slots.adjust(0, 100) == 2


def test_without_a_free_process_branches_come_one_after_the_other() -> None:
    seen: list[tuple[str, threading.Thread]] = []
    side_by_side(
        ["replica", "b", "a"], lambda name: seen.append((name, threading.current_thread())), Slots()
    )
    assert [name for name, _ in seen] == ["replica", "b", "a"]
    assert {thread for _, thread in seen} == {threading.current_thread()}


@pytest.mark.parametrize("n_beside", [0, 2])
def test_nothing_more_is_begun_when_a_branch_has_failed(n_beside: int) -> None:
    slots, begun = Slots(1 + n_beside), []

    def run(name: str) -> None:
        begun.append(name)
        raise ProgramFailed(f"{name} fails")

    with pytest.raises(ProgramFailed, match="fails"):
        side_by_side([*map(str, range(50)), "replica"], run, slots)
    assert len(begun) <= 1 + n_beside
    assert slots.adjust(0, 100) == n_beside


def test_progress_of_branches_that_run_at_once_is_that_of_the_whole() -> None:
    seen: list[Progress] = []
    report = SeveralProgress(seen.append, ["a", "b", "c"])
    told = [("trunk", 5, 9), ("a", 1, 4), ("b", 3, 4), ("a", 4, 4), ("b", 1, 4), ("c", 4, 4)]
    for name, done, total in told:
        report(Progress(0, name, 100 + done, done, total))
    assert [(p.branch, p.done, p.total) for p in seen] == [
        ("trunk", 5, 9),
        ("a", 1, 12),
        ("b", 4, 12),
        ("a", 7, 12),
        ("b", 7, 12),  # it was begun again: what was done stays done
        ("c", 11, 12),
    ]
