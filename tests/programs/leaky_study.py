"""The tiny study with a module-level counter: every program that is built trains differently."""

from __future__ import annotations

from dataclasses import replace

import tiny_study

import auditkit as ak

BUILT = [0]

STUDY = tiny_study.STUDY


def make_program(seed: int) -> ak.Program:
    """From the second build in a process on, the loss is scaled otherwise."""
    BUILT[0] += 1
    scale = 1 + 0.01 * (BUILT[0] - 1)
    program = tiny_study.make_program(seed)
    loss = program.loss
    if loss is None:
        return program
    return replace(program, loss=lambda model, batch: loss(model, batch) * scale)
