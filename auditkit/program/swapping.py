"""Ask a module with the weights of another one, at no cost in memory but that of these weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from auditkit.errors import RestoreMismatch

Weights = dict[str, Tensor]


def weights_of(module: nn.Module) -> Weights:
    """Parameters and buffers by name, as live tensors; tied ones once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def fitted(module: nn.Module, weights: Mapping[str, Tensor]) -> Weights:
    """Copies of weights in the memory layout and on the device of a module's own.

    The layout is part of it: kernels may give other bits for another one.

    Raises:
        RestoreMismatch: When they are of another module.
    """
    live, found = weights_of(module), {}
    for name in sorted(live.keys() | weights.keys()):
        own, other = live.get(name), weights.get(name)
        if own is None or other is None or (own.shape, own.dtype) != (other.shape, other.dtype):
            raise RestoreMismatch(
                "the branch's model has other weights than the control's", component=name
            )
        found[name] = torch.empty_like(own.detach()).copy_(other)
    return found


@contextmanager
def swapped(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The module with other weights, which :func:`fitted` has made; afterwards with its own.

    No parameter or buffer becomes another object, so that whatever refers to them still does.
    """
    live = weights_of(module)
    own = {name: tensor.data for name, tensor in live.items()}
    try:
        for name, tensor in live.items():
            tensor.data = weights[name]
        yield
    finally:
        for name, tensor in live.items():
            tensor.data = own[name]
