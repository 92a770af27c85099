from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, SequentialSampler

from auditkit.errors import ProgramError
from auditkit.program.segments import Segments

LABELS = [n % 4 for n in range(100)]
TRUNK = BatchSampler(SequentialSampler(range(100)), 30, drop_last=True)
GIVEN: dict[str, Any] = {"fork_at": 5, "steps": 3, "batch_size": 16, "seed": 7}


def segments(**changes: Any) -> Segments:
    return Segments(TRUNK, LABELS, **{**GIVEN, **changes})


def test_the_trunk_comes_first_then_each_segment_again_and_again() -> None:
    sampler = segments()
    batches = list(sampler)
    trunk = list(TRUNK)
    assert batches[:5] == [*trunk, *trunk[:2]]
    assert batches[5:] == [sampler.first] * 3 + [sampler.second] * 3
    assert len(batches) == len(sampler) == 11


def test_a_segment_of_several_batches_goes_through_them_in_turn() -> None:
    batches = list(segments(batches=2, batch_size=8))[5:]
    assert batches[0] == batches[2] != batches[1]
    assert batches[3] == batches[5] != batches[4]
    assert len({*batches[0], *batches[1]}) == 16


@pytest.mark.parametrize("same_classes", [True, False])
@pytest.mark.parametrize(("overlap", "shared"), [(0, 0), (0.5, 8), (0.7, 11), (0.99, 15), (1, 16)])
def test_b_has_the_stated_share_of_a(overlap: float, shared: int, same_classes: bool) -> None:
    for seed in range(5):
        found = segments(overlap=overlap, same_classes=same_classes, seed=seed)
        first, second = set(found.first), set(found.second)
        assert len(first) == len(second) == 16
        assert len(first & second) == shared
        if same_classes:
            assert Counter(n % 4 for n in first) == Counter(n % 4 for n in second)


def test_without_it_the_classes_are_drawn_like_all_else() -> None:
    found = [segments(seed=seed) for seed in range(5)]
    pairs = [[Counter(n % 4 for n in each) for each in (one.first, one.second)] for one in found]
    assert any(here != there for here, there in pairs)


def test_what_is_drawn_follows_from_the_seed_alone() -> None:
    before = torch.get_rng_state()
    assert segments().first == segments().first != segments(seed=8).first
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"overlap": 1.5}, "overlap is 1.5, not 0 to 1"),
        ({"overlap": float("nan")}, "overlap is nan"),
        ({"seed": None}, "seed is None, not a whole number"),
        ({"overlap": "half"}, "overlap is .half."),
        ({"steps": 0}, "steps is 0, not 1 or more"),
        ({"batch_size": 2.0}, "batch_size is 2.0"),
        ({"fork_at": True}, "fork_at is True"),
        ({"steps": 2, "batches": 3}, "batches is 3, and a segment of 2 steps has no more"),
        ({"batch_size": 101}, "a segment has 101 indices, and there are 100 samples"),
        ({"batch_size": 60}, "B needs 60 samples that A does not have, and there are 40"),
        ({"batch_size": 60, "same_classes": True}, "samples of class [0-3] that A does not have"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ProgramError, match=said):
        segments(**changes)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["cat", "dog"], "labels are no numbers"),
        ([0.5] * 100, "one whole number a sample"),
        (np.zeros((100, 2), dtype=np.int64), "one whole number a sample"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels: Any, said: str) -> None:
    with pytest.raises(ProgramError, match=said):
        Segments(TRUNK, labels, **GIVEN)


def test_a_trunk_without_a_batch_does_not_hang() -> None:
    with pytest.raises(ProgramError, match="the trunk has no batch"):
        list(Segments([], LABELS, **GIVEN))
    once = iter(list(TRUNK))
    with pytest.raises(ProgramError, match="the trunk has no batch"):
        list(Segments(once, LABELS, **GIVEN))
