from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_programs import make_program
from torch import nn

import auditkit as ak
from auditkit.errors import ProgramError
from auditkit.observe.loader.consumption import refuse_consumption, taking


def program(**changes: Any) -> ak.Program:
    model = nn.Linear(2, 2)
    given: dict[str, Any] = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loader": None,
        "probe": ak.Probe(torch.zeros(2, 2), torch.tensor([0, 1])),
        "step": lambda program, batch, t: None,
    }
    return ak.Program(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step": None}, r"Program\(loader=None\) needs step="),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be a whole number of at least 1, not 0"),
        ({"steps_per_epoch": True}, "steps_per_epoch must be a whole number"),
        ({"on_epoch_end": print}, "without a loader no epoch ends by itself"),
        ({"data_from": "nobody"}, "data_from is 'loader' or 'model', not 'nobody'"),
        ({"loader": [torch.zeros(2)], "steps_per_epoch": 3}, "is for programs with loader=None"),
    ],
)
def test_what_makes_no_sense_together_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ProgramError, match=said):
        program(**changes)


def test_epochs_end_where_the_program_says_so() -> None:
    assert program(on_epoch_end=lambda program, epoch: None, steps_per_epoch=3).steps_per_epoch == 3


def test_outside_a_study_what_is_consumed_is_given_back() -> None:
    assert ak.consume([1, 2], "batch") == "batch"
    assert ak.consume(indices=[1, 2]) == [1, 2]
    assert ak.consume(batch="batch") == "batch"


def test_a_step_that_is_delivered_its_batch_must_not_say_what_it_consumes() -> None:
    assert make_program(0).loader is not None
    with (
        taking(refuse_consumption),
        pytest.raises(ProgramError, match="has a loader that delivers it"),
    ):
        ak.consume([1], "batch")
    assert ak.consume([1], "batch") == "batch"
