"""Perturbations of kind ``data``: the same samples inside the window, with other bytes.

A perturbation of this kind says what the step is given in place of a batch of the window; outside
the window nothing is touched. What the loader delivered is evidence as well (column
``batch/delivered``), so that it is seen to be the control's, and a replay makes the change again.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from auditkit.errors import NothingToPerturb
from auditkit.formats.seeds import derive_seed
from auditkit.observe.state.components import TrainingObjects
from auditkit.perturbations.base import Perturbation
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import ParameterValue

#: Changes a batch at a step, with a generator for what it draws.
Change = Callable[[Any, int, torch.Generator], Any]

#: Names that labels go by in a batch that is a mapping.
_LABELS = ("labels", "label", "targets", "target", "y")


@dataclass(frozen=True)
class WindowBatch:
    """A batch of the window, and what can be made of it.

    Attributes:
        delivered: As the loader gave it, in memory of its own.
        step: The step that it is for.
        seed: The study seed.
        augment: The program's augmentation of a batch as it is at a step; None where it has none.
        changes: The program's own changes by name, with the generator filled in.
        n_classes: Classes of the probe's labels.
        drawing: Calls a function of a batch, the step and a generator on a batch; what it draws
            follows from the seed, the step and the name that it is given.
    """

    delivered: Any
    step: int
    seed: int
    augment: Callable[[Any, int], Any] | None
    changes: Mapping[str, Callable[[Any], Any]]
    n_classes: int
    drawing: Callable[[Change, str, Any], Any]

    def usual(self) -> Any:
        """What the step would consume without a perturbation."""
        return self.delivered if self.augment is None else self.augment(self.delivered, self.step)


class DataPerturbation(Perturbation):
    """The same samples inside the window, with other bytes."""

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Return at once: at t0 nothing is changed."""

    @abstractmethod
    def change(self, batch: WindowBatch, parameters: Mapping[str, ParameterValue]) -> Any:
        """What the step consumes in place of this batch.

        Its random numbers must come from the seed, the step and the parameters alone.

        Raises:
            NothingToPerturb: When the program has nothing that it could change.
        """


class LabelNoise(DataPerturbation):
    """A drawn part of the window's labels := other classes."""

    declaration = DECLARATIONS["label-noise"]

    def change(self, batch: WindowBatch, parameters: Mapping[str, ParameterValue]) -> Any:
        """Draws from (seed, ``draw``, step) alone."""
        usual = batch.usual()
        labels = labels_of(usual)
        drawn = derive_seed(batch.seed, "label-noise", int(parameters["draw"]), batch.step)
        stream = np.random.RandomState(drawn & 0xFFFFFFFF)  # whose numbers are frozen (NEP 19)
        n_classes = max(batch.n_classes, 2)
        chosen = stream.random_sample(labels.numel()) < float(parameters["fraction"])
        shifts = stream.randint(1, n_classes, labels.numel())
        moves = torch.from_numpy(np.where(chosen, shifts, 0)).reshape(labels.shape)
        moves = moves.to(labels.device, labels.dtype)
        noisy = torch.where(moves == 0, labels, (labels + moves) % n_classes)
        return _with_labels(usual, noisy)


class AugmentationOff(DataPerturbation):
    """Inside the window batches are as the loader delivers them."""

    declaration = DECLARATIONS["augmentation-off"]

    def change(self, batch: WindowBatch, parameters: Mapping[str, ParameterValue]) -> Any:
        """What was delivered."""
        _require_augment(batch)
        return batch.delivered


class StageShift(DataPerturbation):
    """Inside the window the augmentation is what it will be so many steps later."""

    declaration = DECLARATIONS["stage-shift"]

    def change(self, batch: WindowBatch, parameters: Mapping[str, ParameterValue]) -> Any:
        """Augment as at a later step."""
        augment = _require_augment(batch)
        return augment(batch.delivered, batch.step + int(parameters["steps"]))


class DataChange(DataPerturbation):
    """A function of the program's own, by its name in ``Program(data_changes=...)``."""

    declaration = DECLARATIONS["data-change"]

    def change(self, batch: WindowBatch, parameters: Mapping[str, ParameterValue]) -> Any:
        """Apply it to what the step would consume."""
        name = str(parameters["name"])
        if name not in batch.changes:
            raise NothingToPerturb(
                f"the program has no data change {name!r}",
                component="batch",
                hint=f"it has {', '.join(sorted(batch.changes)) or 'none'}: "
                "Program(data_changes={name: function(batch, step, generator)})",
            )
        return batch.changes[name](batch.usual())


def _require_augment(batch: WindowBatch) -> Callable[[Any, int], Any]:
    if batch.augment is None:
        raise NothingToPerturb(
            "the program augments no batches that this could change",
            component="batch",
            hint="give the augmentation as Program(augment=function(batch, step, generator))",
        )
    return batch.augment


def labels_of(batch: Any) -> Tensor:
    """The whole-number labels of a batch.

    Raises:
        NothingToPerturb: When it has none where they are looked for.
    """
    found = None
    if isinstance(batch, Mapping):
        found = next((batch[name] for name in _LABELS if name in batch), None)
    elif isinstance(batch, (tuple, list)) and batch:
        found = batch[-1]
    is_whole = isinstance(found, Tensor) and not (found.is_floating_point() or found.is_complex())
    if not isinstance(found, Tensor) or not is_whole or found.dtype == torch.bool:
        raise NothingToPerturb(
            "a batch has no whole-number labels where they are looked for",
            component="batch",
            hint=f"at the end of a tuple, or in a mapping under {', '.join(_LABELS)}; or change "
            "them by a function of your own: Program(data_changes=...)",
        )
    return found


def _with_labels(batch: Any, labels: Tensor) -> Any:
    if isinstance(batch, Mapping):
        name = next(name for name in _LABELS if name in batch)
        batch[name] = labels  # type: ignore[index] # a copy of its own
        return batch
    if hasattr(batch, "_make"):
        return batch._make([*batch[:-1], labels])
    return type(batch)([*batch[:-1], labels])
