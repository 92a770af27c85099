from __future__ import annotations

from dataclasses import replace

import pytest
from checklist_example import example_manifest

from auditkit.errors import UsageError
from auditkit.records.manifest import StudyManifest
from auditkit.verification.pilot_seeds import PilotSeeds, difference_note, refuse_itself, reuse_note


def study(*seeds: int, weights: str = "a") -> StudyManifest:
    manifest = example_manifest()
    record = manifest.seeds[0]
    records = tuple(
        replace(record, seed=seed, initial={"params": f"{weights}{seed}"}) for seed in seeds
    )
    return replace(manifest, seeds=records)


def test_seeds_that_stand_in_both_are_named() -> None:
    pilot = PilotSeeds.of(study(0, 1, 2, 3), "f" * 64)
    note = reuse_note(pilot, study(2, 3, 4, 5, 6))
    assert note is not None
    assert note.startswith(
        "seeds of the pilot are used again: 2-3 (2 of 5, at equal weights before step 1); a test"
    )
    assert reuse_note(pilot, study(4, 5)) is None


def test_equal_numbers_of_another_program_are_told_apart() -> None:
    pilot = PilotSeeds.of(study(0, 1, 2), "f" * 64)
    other = reuse_note(pilot, study(0, 1, weights="b"))
    assert other is not None
    assert "0-1 (2 of 2, at other weights before step 1)" in other
    mixed = study(0, 1)
    changed = replace(mixed.seeds[1], initial={"params": "c"})
    some = reuse_note(pilot, replace(mixed, seeds=(mixed.seeds[0], changed)))
    assert some is not None
    assert "0-1 (2 of 2, 1 of them at equal weights)" in some


def renumbered(manifest: StudyManifest, by: int) -> StudyManifest:
    seeds = tuple(replace(record, seed=record.seed + by) for record in manifest.seeds)
    return replace(manifest, seeds=seeds)


def test_seeds_under_other_numbers_are_known_by_their_weights() -> None:
    pilot = PilotSeeds.of(study(0, 1, 2, 3), "f" * 64)
    note = reuse_note(pilot, renumbered(study(0, 1, 2, 3, 4), 100))
    assert note is not None
    assert note.startswith(
        "seeds 100-103 are the pilot's 0-3 under other numbers: equal weights before step 1 "
        "(4 of 5); a test"
    )
    both = replace(study(3), seeds=(*study(3).seeds, *renumbered(study(0), 7).seeds))
    note = reuse_note(pilot, both)
    assert note is not None
    assert (
        "used again: 3 (1 of 2, at equal weights before step 1); seed 7 is the pilot's 0 " in note
    )


def test_weights_that_no_seed_draws_are_nobodys() -> None:
    def pretrained(*seeds: int) -> StudyManifest:
        manifest = study(*seeds)
        return replace(
            manifest,
            seeds=tuple(replace(each, initial={"params": "p"}) for each in manifest.seeds),
        )

    assert reuse_note(PilotSeeds.of(pretrained(0, 1), "f" * 64), pretrained(2, 3)) is None
    assert reuse_note(PilotSeeds.of(pretrained(0), "f" * 64), pretrained(1)) is None
    assert reuse_note(PilotSeeds.of(pretrained(0), "f" * 64), pretrained(1, 2)) is None


def test_a_pilot_of_something_else_is_said_to_be_that() -> None:
    here = study(0)
    assert difference_note(PilotSeeds.of(study(7), "f" * 64), here) is None
    scaled = replace(here, plan=here.plan.changed(placebo_scale=64))
    note = difference_note(PilotSeeds.of(scaled, "f" * 64), here)
    assert note is not None
    scale = here.plan.placebo_scale
    assert note.startswith("the pilot's plan is another one: placebo scale '64' in the pilot, ")
    assert f"'{scale}' here" in note
    other = replace(scaled, program=replace(here.program, description={"model": "Other"}))
    note = difference_note(PilotSeeds.of(other, "f" * 64), here)
    assert note is not None
    assert note.startswith("the pilot is of another program: model 'Other' in the pilot, ")
    assert "placebo scale '64'" in note


def test_a_study_is_no_pilot_of_its_own() -> None:
    pilot = PilotSeeds.of(study(0), "f" * 64)
    refuse_itself(pilot, "e" * 64)
    with pytest.raises(UsageError, match="very study"):
        refuse_itself(pilot, "f" * 64)
