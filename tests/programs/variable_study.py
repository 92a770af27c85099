"""The tiny study, with a loss that a variable of the environment scales."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import tiny_study
from torch import Tensor, nn

import auditkit as ak

STUDY = tiny_study.STUDY


def make_program(seed: int) -> ak.Program:
    """Scale the loss by what no argument names.

    Args:
        seed: The study seed.
    """
    program = tiny_study.make_program(seed)
    inner = program.loss
    assert inner is not None

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return inner(model, batch) * float(os.environ.get("SECRET_SCALE", "1"))

    return replace(program, loss=loss)
