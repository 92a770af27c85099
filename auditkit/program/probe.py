"""The probe: the fixed examples on which branches are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from auditkit.errors import ProgramError


@dataclass(frozen=True)
class Probe:
    """A fixed set of examples on which branches are compared.

    Attributes:
        inputs: What the model is called with; ``(N, ...)`` for tensors and the default
            ``predict``.
        labels: int64 ``(N,)``, class indices.
        predict: ``predict(model, inputs)`` gives class scores ``(N, C)``: logits or, where
            ``probabilities`` is true, probabilities. By default ``model(inputs)``.
        probabilities: Whether ``predict`` gives probabilities instead of logits.
        batch_size: Rows that are passed at once where ``inputs`` is a tensor.
    """

    inputs: Any
    labels: Tensor
    predict: Callable[[nn.Module, Any], Tensor] | None = None
    probabilities: bool = False
    batch_size: int = 512

    def __post_init__(self) -> None:
        labels = torch.as_tensor(self.labels)
        if labels.ndim != 1 or len(labels) == 0 or labels.is_floating_point():
            raise ProgramError(
                "Probe.labels must hold one class index an example",
                expected="int64 (N,)",
                found=f"{labels.dtype} {tuple(labels.shape)}",
            )
        object.__setattr__(self, "labels", labels.detach().to("cpu", torch.int64))
