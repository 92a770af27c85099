"""BatchNorm's running statistics recomputed over given batches, for good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from auditkit.errors import AuditError
from auditkit.observe.rng.streams import capture_streams
from auditkit.program.program import Program, program_failure


def recalibrate(program: Program, batches: Sequence[Any]) -> None:
    """Running statistics := the cumulative average over the batches, by the weights now.

    Only BatchNorm is in train mode; flags and streams are put back.

    Raises:
        ProgramFailed: When the program's function raises.
    """
    model, forward = program.model, program.recalibrate or program.loss
    assert forward is not None  # noqa: S101 # there are batches only where there is one
    streams = capture_streams()
    flags = [(layer, layer.training) for layer in model.modules()]
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    model.eval()
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # cumulative average
            layer.train()
        with torch.no_grad():
            for batch in batches:
                forward(model, batch)
    except AuditError:
        raise
    except Exception as error:
        raise program_failure(error, "recalibrating BatchNorm") from error
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, training in flags:
            module.training = training
        streams.restore()
