from __future__ import annotations

from dataclasses import replace

from checklist_example import example_manifest

from auditkit.records.manifest import SeedRecord
from auditkit.study.divergence import divergence_note


def seeds_where(**steps: int) -> list[SeedRecord]:
    """Two seeds; in the second one some branches diverged."""
    first = example_manifest().seeds[0]
    whole = replace(first, branches=tuple(replace(b, diverged_at=None) for b in first.branches))
    branches = tuple(
        replace(b, diverged_at=steps.get(b.role.replace("-", "_"))) for b in whole.branches
    )
    return [whole, replace(whole, branches=branches)]


def test_nothing_is_said_where_nothing_diverged() -> None:
    assert divergence_note(seeds_where()) is None


def test_what_diverged_is_counted_by_branch() -> None:
    note = divergence_note(seeds_where(control=120, treatment=107))
    assert note is not None
    assert note.startswith("NaN or infinite loss or outcomes, and left out as diverged: ")
    assert "control in 1 of 2 seeds (first at step 120)" in note
    assert "momentum-reset in 1 of 2 seeds (first at step 107)" in note
    assert "no pair is left" not in note


def test_without_any_pair_that_is_said() -> None:
    for steps in ({"control": 5}, {"treatment": 5}):
        only = seeds_where(**steps)[1:]
        assert "no pair is left, so verify will give no estimates" in str(divergence_note(only))
