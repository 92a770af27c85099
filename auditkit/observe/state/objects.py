"""The live objects whose state training depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from auditkit.errors import UncapturedState
from auditkit.observe.rng.streams import Generator, has_state


@runtime_checkable
class Stateful(Protocol):
    """Anything with ``state_dict`` and ``load_state_dict``."""

    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...  # noqa: D102


@dataclass(frozen=True)
class TrainingObjects:
    """The live objects whose state training depends on.

    Attributes:
        model: The model that is trained.
        optimizer: Its optimizer.
        scheduler: Learning-rate scheduler, or None.
        scaler: ``torch.amp.GradScaler``, or None.
        averaged: Averaged copies of the model by name (``torch.optim.swa_utils.AveragedModel``
            or any module).
        extras: Anything else that is stateful, by name: modules, objects with ``state_dict``
            and ``load_state_dict``, or random generators.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Stateful | None = None
    scaler: Stateful | None = None
    averaged: Mapping[str, nn.Module] = field(default_factory=dict)
    extras: Mapping[str, Stateful | Generator] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, extra in self.extras.items():
            if isinstance(extra, Generator) and not has_state(extra):
                raise UncapturedState(
                    f"{type(extra).__name__} draws from the operating system: nothing that reads "
                    "it can be replayed",
                    component=f"extras/{name}",
                )
            if not isinstance(extra, (Generator, Stateful)):
                raise UncapturedState(
                    f"{type(extra).__name__} has no state_dict and load_state_dict",
                    component=f"extras/{name}",
                )
