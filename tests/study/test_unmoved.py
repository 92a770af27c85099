"""What training was to move and did not is told at a study's end."""

from __future__ import annotations

from dataclasses import replace

from checklist_example import example_manifest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.records.manifest import SeedRecord
from auditkit.study.unmoved import unmoved_notes

NAMES = ("params/a", "params/b", "param_groups", "scheduler", "averaged/ema", "buffers")


def seed_with(moved: set[str]) -> SeedRecord:
    """A seed in whose control these components moved."""
    start = dict.fromkeys(NAMES, "0" * 64)
    end = {name: ("1" if name in moved else "0") * 64 for name in NAMES}
    record = example_manifest().seeds[0]
    branches = tuple(
        replace(b, digests={**b.digests, "T": end if b.role == "control" else start})
        for b in record.branches
    )
    return replace(record, initial=start, branches=branches)


def told(*moved: set[str]) -> list[str]:
    return [note.partition(":")[0] for note in unmoved_notes([seed_with(m) for m in moved], 60)]


def test_what_never_moved_is_named_with_the_reason() -> None:
    weights, schedule, average = unmoved_notes([seed_with(set())], 60)
    assert weights.startswith("params/a, params/b: at step 60 as at the start, in every seed; no ")
    assert "step= of the program's own steps it itself" in schedule
    assert average.startswith("averaged/ema: ")


def test_a_part_that_is_frozen_and_what_moved_in_one_seed_are_not_told() -> None:
    assert told({"params/b"}) == ["scheduler", "averaged/ema"]
    assert told({"params/a", "scheduler"}, {"params/a", "averaged/ema"}) == []


def test_a_schedule_without_state_moves_the_groups() -> None:
    assert told({"params/a", "averaged/ema", "param_groups"}) == []


@given(st.lists(st.sets(st.sampled_from(NAMES)), min_size=1, max_size=3))
def test_nothing_is_told_that_moved_in_any_seed(moved: list[set[str]]) -> None:
    named = {name for note in told(*moved) for name in note.split(", ")}
    assert all(named.isdisjoint(each) for each in moved)
