"""BatchNorm statistics reset or recomputed (the survey's source S2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from auditkit.errors import NothingToPerturb
from auditkit.observe.state.components import TrainingObjects
from auditkit.perturbations.base import Material, Perturbation
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import ParameterValue


class BatchNormReset(Perturbation):
    """Running mean := 0, running variance := 1, batch count := 0, as newly built."""

    declaration = DECLARATIONS["batchnorm-reset"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Call ``reset_running_stats`` of every BatchNorm layer."""
        layers = _layers(objects)
        before = [buffer.clone() for layer in layers for buffer in layer.buffers()]
        for layer in layers:
            layer.reset_running_stats()
        after = [buffer for layer in layers for buffer in layer.buffers()]
        if all(torch.equal(old, new) for old, new in zip(before, after, strict=True)):
            raise NothingToPerturb("BatchNorm is as newly built already", component="batchnorm")


class BatchNormRecalibrate(Perturbation):
    """Running statistics := the cumulative average over the control's first batches."""

    declaration = DECLARATIONS["batchnorm-recalibrate"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """As below, with no batches."""
        self.apply_with(objects, parameters, seed, Material())

    def apply_with(
        self,
        objects: TrainingObjects,
        parameters: Mapping[str, ParameterValue],
        seed: int,
        material: Material,
    ) -> None:
        """Recompute them by the weights now."""
        _layers(objects)
        if material.recalibrate is None:
            raise NothingToPerturb(
                "there are no batches to recalibrate BatchNorm on",
                component="batchnorm",
                hint="give the program a loss=, or recalibrate=",
            )
        material.recalibrate()


def _layers(objects: TrainingObjects) -> list[_BatchNorm]:
    layers = [
        layer
        for layer in objects.model.modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    ]
    if not layers:
        raise NothingToPerturb(
            "the model has no BatchNorm with running statistics", component="batchnorm"
        )
    return layers
