"""Weights and buffers of one module copied into another of the same names and shapes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from auditkit.perturbations.base import nothing_yet

Tensors = Mapping[str, Tensor]


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def inner(module: nn.Module) -> nn.Module:
    """The copy of the model that a wrapper such as ``AveragedModel`` holds."""
    children = dict(module.named_children())
    only = children.get("module") if len(children) == 1 else None
    return module if only is None else only


def same_form(target: Tensors, source: Tensors) -> bool:
    """Whether both have the same names, shapes and dtypes."""
    return target.keys() == source.keys() and all(map(_fits, target.values(), _in(target, source)))


def _in(names: Tensors, tensors: Tensors) -> list[Tensor]:
    return [tensors[name] for name in names]


def _fits(target: Tensor, source: Tensor) -> bool:
    return target.shape == source.shape and target.dtype == source.dtype


def copy_weights(target: Tensors, source: Tensors, component: str, already: str) -> None:
    """Copy what the target names.

    Raises:
        NothingToPerturb: When all of it is the same already.
    """
    changed = [name for name in target if not torch.equal(target[name], source[name])]
    if not changed:
        raise nothing_yet(f"{component} holds {already}", component)
    with torch.no_grad():
        for name in target:
            target[name].copy_(source[name])
