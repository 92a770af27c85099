"""Tensors of a live program, written over by those of a snapshot where they lie."""

from __future__ import annotations

import torch
from torch import Tensor

from auditkit.observe.values.stored import StoredTensor, copied, offset_of, write
from auditkit.observe.values.tensors import dense_stride, memory_offset


def copy_over(live: Tensor, value: Tensor | StoredTensor) -> None:
    """Write a value of the same form into a tensor, which other objects may share.

    Args:
        live: Of the program.
        value: As it was captured.
    """
    with torch.no_grad():
        # A view that a program put here begins behind an alignment; else it is known by its place.
        is_placed = offset_of(value) in (0, memory_offset(live)) or not live.is_cpu
        if dense_stride(live) == value.stride() and is_placed and not _is_expanded(live):
            write(value, live)
        else:  # the memory layout changes bits, so it is part of the state
            live.data = copied(value, live.device)


def same_form(live: Tensor, value: Tensor | StoredTensor) -> bool:
    """Whether shape and dtype are the same."""
    return live.shape == value.shape and live.dtype == value.dtype


def same_memory_form(live: Tensor, value: Tensor | StoredTensor) -> bool:
    """Whether it may be written over as it lies: it is neither sparse nor expanded, say."""
    is_strided = live.layout is torch.strided and same_form(live, value)
    return is_strided and live.stride() == value.stride()


def _is_expanded(live: Tensor) -> bool:
    """Whether several elements are one place in memory, so that it cannot be written over."""
    sizes = zip(live.shape, live.stride(), strict=True)
    return any(size > 1 and step == 0 for size, step in sizes)
