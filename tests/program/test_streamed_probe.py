from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from auditkit.program.probe import Probe
from auditkit.program.reference import Reference
from auditkit.program.streamed_probe import Beside, look_by_position


class Counting(nn.Module):
    """Counts, whenever it is asked, how many of its answers are still there."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 6)
        self.answers: list[weakref.ref[Any]] = []
        self.there: list[int] = []

    def forward(self, ids: Tensor) -> Tensor:
        self.there.append(sum(answer() is not None for answer in self.answers))
        found: Tensor = self.words(ids)
        self.answers.append(weakref.ref(found.untyped_storage()))
        return found


@pytest.mark.parametrize("recipe", [1, 2])
def test_scores_are_given_back_before_the_next_rows_are_asked_for(recipe: int) -> None:
    model, ids = Counting().eval(), torch.arange(5).repeat(3, 1)
    probe, reference = Probe(ids, ids, batch_size=1), Reference()
    with torch.no_grad():
        look_by_position(model, probe, "T", Beside(0, reference, recipe))
        assert model.there == [0, 0, 0]
        reference.complete, model.there = True, []
        model.words.weight += 1e-3 * torch.arange(6)
        look_by_position(model, probe, "T", Beside(0, reference, recipe))
    assert model.there == [0, 1, 0, 1, 0, 1]  # its own, then with the control's weights
