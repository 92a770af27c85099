"""Sparse tensors in batches, as the dense ones that they consist of.

Only of data: what training keeps, gradients and moments, is restored into memory that is there, and
no sparse tensor has any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

#: What the tensors are called of which each layout consists; the values come last.
_PARTS: Final[Mapping[torch.layout, tuple[str, ...]]] = {
    torch.sparse_coo: ("_indices", "_values"),
    **dict.fromkeys(
        (torch.sparse_csr, torch.sparse_bsr), ("crow_indices", "col_indices", "values")
    ),
    **dict.fromkeys(
        (torch.sparse_csc, torch.sparse_bsc), ("ccol_indices", "row_indices", "values")
    ),
}
_LAYOUTS: Final = {str(layout).removeprefix("torch."): layout for layout in _PARTS}


def is_sparse(tensor: Tensor) -> bool:
    """Whether a tensor consists of indices and values."""
    return type(tensor) is Tensor and tensor.layout in _PARTS


def sparse_parts(tensor: Tensor) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a sparse tensor is, and the tensors that it consists of, by name."""
    fields = {
        "layout": str(tensor.layout).removeprefix("torch."),
        "size": list(tensor.size()),
        "coalesced": tensor.layout is torch.sparse_coo and tensor.is_coalesced(),
    }
    return fields, {name: getattr(tensor, name)() for name in _PARTS[tensor.layout]}


def sparse_of(layout: Any, size: Any, coalesced: Any, names: Any, parts: Any) -> Tensor:
    """A sparse tensor of its parts.

    Raises:
        ValueError: When they are those of none.
        RuntimeError: When they do not fit.
    """
    kind = _LAYOUTS.get(layout) if isinstance(layout, str) else None
    if kind is None or list(names) != list(_PARTS[kind]) or not isinstance(coalesced, bool):
        raise ValueError("it does not say what it is")
    make: Any = torch.sparse_compressed_tensor
    more: dict[str, Any] = {"layout": kind}
    if kind is torch.sparse_coo:
        make, more = torch.sparse_coo_tensor, {"is_coalesced": coalesced}
    made: Tensor = make(*parts, size, **more, check_invariants=True)
    return made
