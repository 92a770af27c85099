"""Batches as leaves, fast: most are a list or tuple of plain tensors, every step the same kind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from auditkit.observe.values.codec import Leaves, flatten

#: Structure by kind of container and number of tensors, and the names of these.
_KNOWN: dict[tuple[type, int], tuple[bytes, tuple[str, ...]]] = {}


def batch_leaves(batch: Any) -> Leaves:
    """``flatten(batch)`` word for word; what the structure says of plain tensors is kept.

    Raises:
        UncapturedState: The batch holds something that has no digest.
    """
    if not _is_plain(batch):
        return flatten(batch, where="batch")
    key = (type(batch), len(batch))
    if key not in _KNOWN:
        leaves = flatten(batch, where="batch")
        names = tuple(name for item in batch for name, leaf in leaves.items() if leaf is item)
        text = leaves[""]
        if len(names) < len(batch) or not isinstance(text, bytes):
            return leaves
        _KNOWN[key] = (text, names)
        return leaves
    text, names = _KNOWN[key]
    return {"": text, **dict(zip(names, batch, strict=True))}


def _is_plain(batch: Any) -> bool:
    if type(batch) not in (list, tuple) or not batch:
        return False
    for item in batch:
        if type(item) is not Tensor or item.requires_grad or item.layout is not torch.strided:
            return False
    return len(set(map(id, batch))) == len(batch)
