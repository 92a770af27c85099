"""The placebo: rounding noise on every trainable weight.

Training is chaotic: after enough steps any nudge has grown. A placebo is as small a nudge as
the number format allows, on every weight, so that its distance from the control at T is the
noise floor that a treatment must exceed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from auditkit.errors import NothingToPerturb
from auditkit.formats.seeds import derive_seed
from auditkit.observe.state.components import TrainingObjects
from auditkit.perturbations.base import Perturbation
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import ParameterValue

_DRAWS = 64
#: From the largest float64 on, no longer move fits an int64; no shorter one is cut.
_MAX_STEPS = 2**51
_INTEGER_OF_SIZE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Ulp(Perturbation):
    """Each trainable element moves by -1, 0 or +1 times ``scale`` units in the last place."""

    declaration = DECLARATIONS["ulp"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Nudge every trainable weight; draws from (seed, ``draw``) alone."""
        generator = torch.Generator()
        generator.manual_seed(derive_seed(seed, "ulp", int(parameters["draw"])))
        weights = [weight for weight in objects.model.parameters() if weight.requires_grad]
        if not weights:
            raise NothingToPerturb("the model has no trainable weight", component="params")
        scale = min(int(parameters["scale"]), _MAX_STEPS)
        with torch.no_grad():
            for weight, moved in _moved(weights, generator, scale):
                weight.copy_(moved)


def _moved(
    weights: Sequence[Tensor], generator: torch.Generator, scale: int
) -> list[tuple[Tensor, Tensor]]:
    for _ in range(_DRAWS):  # a handful of weights may all draw 0
        pairs = []
        for weight in weights:
            drawn = torch.randint(-1, 2, weight.shape, generator=generator)
            pairs.append((weight, nudge(weight.detach(), drawn * scale)))
        if not all(torch.equal(_as_bytes(old), _as_bytes(new)) for old, new in pairs):
            return pairs
    raise NothingToPerturb("no weight is finite and can move", component="params")


def _as_bytes(values: Tensor) -> Tensor:
    return values.detach().contiguous().reshape(-1).view(torch.uint8)


def nudge(values: Tensor, steps: Tensor) -> Tensor:
    """Move floating-point values by whole numbers of units in the last place.

    Args:
        values: Real floating-point (or complex: both parts move alike), any shape.
        steps: int64, same shape, on the host.

    Returns:
        A new tensor. The move counts representable values, so that zero's neighbours are the
        smallest denormals; a value that would leave the finite range, and any that is not
        finite, stays as it is.
    """
    if values.is_complex():
        parts = torch.view_as_real(values.resolve_conj())
        return torch.view_as_complex(nudge(parts, steps.unsqueeze(-1).expand(parts.shape)))
    integer = _INTEGER_OF_SIZE[values.element_size()]
    stored = values.contiguous().view(integer)
    bits, moves = stored.to(torch.int64), steps.to(values.device)
    # Map sign-magnitude to one ascending line of integers: negative floats below zero.
    minimum = torch.iinfo(integer).min
    ordered = torch.where(bits < 0, minimum - bits, bits)
    largest = torch.tensor(torch.finfo(values.dtype).max, dtype=values.dtype)
    limit = int(largest.view(integer))
    target = ordered + moves.clamp(-_MAX_STEPS, _MAX_STEPS)
    # Without the last term a move of 0 would turn -0.0 into 0.0.
    keep = (ordered.abs() > limit) | (target.abs() > limit) | (moves == 0)
    moved = torch.where(target < 0, minimum - target, target)
    return torch.where(keep, bits, moved).to(integer).view(values.dtype)
