"""A study file that declares perturbations of its own, on what ``memory_study.py`` trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import memory_study
import torch

import auditkit as ak

make_program = memory_study.make_program


def blur(objects: ak.TrainingObjects, parameters: Mapping[str, Any], seed: int) -> None:
    """Add noise to the queue."""
    drawn = torch.Generator().manual_seed(seed)
    queue: Any = objects.model.queue
    queue.add_(torch.randn(queue.shape, generator=drawn), alpha=int(parameters["tenths"]) / 10)


BLUR = ak.perturb(
    "queue-blur",
    touches="buffers/queue",
    fn=blur,
    parameters={"tenths": ak.Parameter(default=1, minimum=1)},
    summary="noise is added to the queue",
)

NAMED_ONLY = ak.perturb(
    "group-zero",
    touches="params/{name}",
    parameters={"name": ak.Parameter(default="teacher", text=True)},
    fn=lambda objects, parameters, seed: [
        weight.data.zero_()
        for weight in objects.model.get_submodule(str(parameters["name"])).parameters()
    ],
)


class ZeroBias(ak.Perturbation):
    """Every bias of the head := 0."""

    declaration = ak.Declaration(
        "zero-bias", 3, "state", "biases := 0", "nowhere", touched=lambda parameters: ("params",)
    )

    def apply(self, objects: ak.TrainingObjects, parameters: Mapping[str, Any], seed: int) -> None:
        head: Any = objects.model.head
        head[1].bias.data.zero_()


STUDY = ak.StudyPlan(
    fork_at=6,
    window=3,
    horizon=12,
    seeds=[0],
    perturbations=["momentum-reset", BLUR, "queue-blur:tenths=20", ZeroBias],
    placebos=1,
)
