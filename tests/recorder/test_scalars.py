"""Numbers that somebody logs: taken as they are, or refused by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from auditkit.errors import RecorderMisuse
from auditkit.recorder.scalars import as_number


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1.0), (True, 1.0), (torch.tensor([0.5]), 0.5), (np.float32(0.25), 0.25), ("2", 2.0)],
)
def test_whatever_is_one_number_is_taken(value: Any, number: float) -> None:
    assert as_number("acc", value) == number
    assert math.isnan(as_number("acc", float("nan")))


@pytest.mark.parametrize(
    "value", [10**400, None, [1, 2], "much", 1j], ids=["too large", "None", "list", "text", "1j"]
)
def test_what_is_no_number_is_refused_by_name(value: Any) -> None:
    with pytest.raises(RecorderMisuse, match="the acc is no number"):
        as_number("acc", value)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201, 7])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(RecorderMisuse, match="is no name for a number"):
        as_number(name, 1.0)
