"""BatchNorm's running statistics recomputed over given batches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from auditkit.errors import AuditError, ProgramError
from auditkit.observe.rng.streams import capture_streams
from auditkit.program.program import Program, program_failure


def recalibrate(program: Program, batches: Sequence[Any]) -> None:
    """The model's running statistics := those over the batches, for good.

    Flags and streams are put back.

    Raises:
        ProgramError: When the program's function raises.
    """
    streams = capture_streams()
    flags = [(layer, layer.training) for layer in program.model.modules()]
    program.model.eval()
    try:
        with torch.no_grad():
            recompute(program, [program.model], batches)
    finally:
        for module, training in flags:
            module.training = training
        streams.restore()


def recompute(program: Program, modules: Sequence[nn.Module], batches: Sequence[Any]) -> None:
    """Running statistics := the cumulative average over the batches, by the weights now.

    Args:
        program: The program, whose function calls a module on a batch.
        modules: In evaluation mode, in which all but BatchNorm stays.
        batches: The batches.

    Raises:
        ProgramError: When the program's function raises.
    """
    layers = [layer for module in modules for layer in batchnorm_layers(module)]
    held = [(layer, layer.momentum, layer.training) for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # cumulative average
            layer.train()
        for module, batch in itertools.product(modules, batches):
            _forward(program, module, batch)
    finally:
        for layer, momentum, training in held:
            layer.momentum, layer.training = momentum, training


def batchnorm_layers(module: nn.Module) -> list[_BatchNorm]:
    """Every BatchNorm layer in a module."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


def _forward(program: Program, module: nn.Module, batch: Any) -> None:
    given = "recalibrate" if program.recalibrate else "loss"
    forward = program.recalibrate or program.loss
    assert forward is not None  # noqa: S101 # there are batches only where there is one
    try:
        forward(module, batch)
    except AuditError:
        raise
    except Exception as error:
        failure = program_failure(error, f"{given}(model, batch)")
        raise ProgramError(
            f"BatchNorm cannot be recalibrated: {failure.message}",
            where=failure.where,
            hint="it is given the model and a batch as the loader yields it; give a function that "
            "calls the model on it as Program(recalibrate=...), or leave loss= out",
        ) from error
