"""What a step may say that it consumes."""

from __future__ import annotations

import pytest
import torch

import auditkit
from auditkit.errors import ProgramError
from auditkit.observe.loader.consumption import taking


@pytest.mark.parametrize("text", ["rows", b"rows", ""])
def test_a_text_is_no_indices_in_a_study_or_outside(text: str | bytes) -> None:
    told: list[object] = []
    batch = torch.ones(2)
    with pytest.raises(ProgramError, match="the indices of samples, and not a text") as outside:
        auditkit.consume(text, batch)
    assert "consume(batch=batch)" in str(outside.value.hint)
    with (
        taking(lambda *said: told.append(said)),
        pytest.raises(ProgramError, match="not a text"),
    ):
        auditkit.consume(text, batch)
    assert told == []


@pytest.mark.parametrize("indices", [[0, 1], ["a", "b"], {"row": 3}, 5, torch.arange(2)])
def test_outside_a_study_what_is_given_comes_back(indices: object) -> None:
    batch = torch.ones(2)
    assert auditkit.consume(indices, batch) is batch
    assert auditkit.consume(indices) is indices
    assert auditkit.consume(batch=batch) is batch
