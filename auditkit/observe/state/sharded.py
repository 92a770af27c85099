"""What ``fully_shard`` (FSDP2) does to a model between two batches.

It registers whole parameters while a layer computes, and parts of them (``DTensor``) else: the
parts are what the optimizer trains. The root's stay whole after a pass without gradients, until
the next one with gradients. Gradients that are not synchronised yet are kept whole, where no
parameter leads to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from auditkit.errors import UncapturedState
from auditkit.observe.values.shards import are_possible, is_sharded


def sharded_modules(model: nn.Module) -> Iterator[Any]:
    """The layers to which ``fully_shard`` was applied; none where no parameter is sharded."""
    return (layer for layer in model.modules() if hasattr(layer, "_get_fsdp_state"))


def reshard(model: nn.Module) -> None:
    """Let every parameter be the part of it that is trained."""
    for layer in sharded_modules(model):
        layer.reshard()


def kept_part(before: Tensor | None, now: Tensor) -> Tensor:
    """The part that is trained of a parameter which is registered in whole for the moment."""
    is_whole = is_sharded(before) and not is_sharded(now)
    return before if before is not None and is_whole and before.shape == now.shape else now


def refuse_hidden_gradients(model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Refuse gradients that wait for their synchronisation, which are in no component.

    Raises:
        UncapturedState: When there are any.
    """
    if not are_possible() or not any(map(is_sharded, parameters.values())):
        return
    for layer in sharded_modules(model):
        for group in _groups(layer._get_fsdp_state()):
            for held in getattr(group, "fsdp_params", ()):
                unsharded = getattr(held, "_unsharded_param", None)
                gradients = (
                    getattr(held, "unsharded_accumulated_grad", None),
                    None if unsharded is None else unsharded.grad,
                )
                if any(gradient is not None for gradient in gradients):
                    raise UncapturedState(
                        "gradients wait to be synchronised between two batches, where no "
                        "parameter leads to them",
                        component="grad",
                        hint="let every batch synchronise (set_requires_gradient_sync(True)), or "
                        "give the loader the whole batch and accumulate within it",
                    )


def _groups(state: Any) -> Iterator[Any]:
    """The groups of parameters of a layer: one, or several by their mesh."""
    one = getattr(state, "_fsdp_param_group", None)
    yield from getattr(state, "_fsdp_param_groups", ()) or (() if one is None else (one,))
