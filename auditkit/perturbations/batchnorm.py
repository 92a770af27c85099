"""Reset of BatchNorm statistics (the survey's source S2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from auditkit.errors import NothingToPerturb
from auditkit.observe.state.components import TrainingObjects
from auditkit.perturbations.base import Perturbation
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import ParameterValue


class BatchNormReset(Perturbation):
    """Running mean := 0, running variance := 1, batch count := 0, as newly built."""

    declaration = DECLARATIONS["batchnorm-reset"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Call ``reset_running_stats`` of every BatchNorm layer."""
        layers = [
            layer
            for layer in objects.model.modules()
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None
        ]
        if not layers:
            raise NothingToPerturb(
                "the model has no BatchNorm with running statistics", component="batchnorm"
            )
        before = [buffer.clone() for layer in layers for buffer in layer.buffers()]
        for layer in layers:
            layer.reset_running_stats()
        after = [buffer for layer in layers for buffer in layer.buffers()]
        if all(torch.equal(old, new) for old, new in zip(before, after, strict=True)):
            raise NothingToPerturb("BatchNorm is as newly built already", component="batchnorm")
