"""Tensors of which each process holds a part: torch's ``DTensor``, as ``fully_shard`` makes them.

What this process holds is a plain tensor, and that is what is digested and kept. Where it lies in
the whole is a :class:`auditkit.records.sharding.Shard`. Only rows are told apart: tensors that are
split along another dimension, or hold sums that are not carried out, are refused by name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from auditkit.errors import RestoreMismatch
from auditkit.observe.values.stored import TENSORS, Saved, StoredTensor, copied
from auditkit.observe.values.tensors import Leaves
from auditkit.records.sharding import Shard, Sharding

_MODULE = "torch.distributed.tensor"

#: Of what nearly all components consist.
_PLAIN = frozenset({bytes, Tensor, torch.nn.Parameter})


def are_possible() -> bool:
    """Whether this process can hold any: whoever does has imported their module."""
    return _MODULE in sys.modules


def is_sharded(value: object) -> bool:
    """Whether it is a DTensor."""
    return are_possible() and isinstance(value, sys.modules[_MODULE].DTensor)


def is_any_sharded(state: Mapping[str, Leaves]) -> bool:
    """Whether a component holds a DTensor."""
    return are_possible() and any(
        is_sharded(leaf) for leaves in state.values() for leaf in leaves.values()
    )


def why_unknown(tensor: Tensor) -> str | None:
    """What of a DTensor's placements is not known here, for people; None where all is."""
    placements = sys.modules[f"{_MODULE}.placement_types"]
    for placement in cast(Any, tensor).placements:
        if type(placement) is placements.Replicate:
            continue
        if type(placement) is not placements.Shard:
            return f"its placement is {type(placement).__name__.lstrip('_')}"
        if placement.dim:
            return f"it is split along dimension {placement.dim}"
    sharded = [one for one in cast(Any, tensor).placements if one.is_shard()]
    return "it is split along two dimensions of the mesh" if len(sharded) > 1 else None


def local_state(
    state: Mapping[str, Leaves], among: Iterable[str] | None = None
) -> dict[str, Leaves]:
    """The components as this process holds them.

    Args:
        state: Components by name.
        among: Those that may hold sharded tensors; all by default.
    """
    found = dict(state)
    if not are_possible():
        return found
    for name in found if among is None else among:
        leaves = found.get(name)
        if not leaves or _PLAIN.issuperset(map(type, leaves.values())):
            continue
        if any(map(is_sharded, leaves.values())):
            found[name] = {entry: local_part(leaf) for entry, leaf in leaves.items()}
    return found


def local_part(leaf: Any) -> Any:
    """What this process holds of a tensor: its memory, not a copy."""
    if not is_sharded(leaf):
        return leaf
    with torch.no_grad():
        return leaf.to_local()


def sharding_of(state: Mapping[str, Leaves]) -> Sharding:
    """Where in the whole lies what this process holds, of every DTensor, by component and entry."""
    found: Sharding = {}
    for name, leaves in state.items():
        shards = {entry: _shard(leaf) for entry, leaf in leaves.items() if is_sharded(leaf)}
        if shards:
            found[name] = shards
    return found


def whole_state(
    state: Mapping[str, Saved], sharding: Sharding, parameters: Mapping[str, Tensor]
) -> dict[str, Saved]:
    """Inverse of :func:`local_state`.

    Args:
        state: What a snapshot holds.
        sharding: What it says of where that lies.
        parameters: The live parameters by name, on whose mesh it is put.

    Raises:
        RestoreMismatch: When this process does not hold the same part of the whole.
    """
    found = dict(state)
    for name, shards in sharding.items():
        leaves = dict(state.get(name, {}))
        for entry, shard in shards.items():
            leaves[entry] = _placed(name, entry, leaves.get(entry), shard, parameters.get(entry))
        found[name] = leaves
    return found


def _shard(tensor: Any) -> Shard:
    """Where the part of this process begins, along the first dimension, as ``torch.chunk`` cuts."""
    shape, first = tuple(tensor.shape), 0
    mesh, coordinate = tensor.device_mesh, tensor.device_mesh.get_coordinate()
    for number, placement in enumerate(tensor.placements):
        if placement.is_shard():
            per_process = -(-shape[0] // mesh.size(number))
            first = min(per_process * coordinate[number], shape[0])
    return Shard(shape, first)


def _placed(
    name: str, entry: str, leaf: Any, shard: Shard, parameter: Any
) -> Tensor | StoredTensor:
    if not is_sharded(parameter) or not isinstance(leaf, TENSORS):
        raise RestoreMismatch(
            f"{entry} is a part of a sharded tensor, and here it is none",
            component=name,
            hint="shard the same layers by fully_shard as when it was recorded",
        )
    here = _shard(parameter)
    local = local_part(parameter)
    if here != shard or tuple(local.shape) != tuple(leaf.shape):
        raise RestoreMismatch(
            f"{entry} is sharded in another way than when it was recorded",
            component=name,
            expected=f"rows {shard.first}.. of {shard.shape}, in a part {tuple(leaf.shape)}",
            found=f"rows {here.first}.. of {here.shape}, in a part {tuple(local.shape)}",
        )
    if isinstance(leaf, StoredTensor):
        return StoredPart(leaf, parameter)
    return _on_mesh(copied(leaf, local.device), parameter)


def _on_mesh(local: Tensor, parameter: Any) -> Tensor:
    """The tensor of which this process holds a part, sharded as a parameter is."""
    whole: Tensor = type(parameter).from_local(
        local,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
    return whole


class StoredPart(StoredTensor):
    """A sharded tensor of which a file has the part of this process.

    Args:
        part: The part.
        parameter: The live parameter that is sharded as it is.
    """

    def __init__(self, part: StoredTensor, parameter: Any) -> None:
        self.dtype, self.shape = part.dtype, parameter.shape
        self.offset = 0  # the part's own is kept where a new one is made
        self.is_checked, self.written = False, None
        self._part, self._parameter = part, parameter

    def stride(self) -> tuple[int, ...]:
        """Strides in elements of the whole."""
        return tuple(self._parameter.stride())

    def new(self) -> Tensor:
        """See :meth:`StoredTensor.new`."""
        return _on_mesh(self._part.new(), self._parameter)

    def on(self, device: torch.device | None) -> Tensor:
        """See :meth:`StoredTensor.on`."""
        return _on_mesh(self._part.on(device), self._parameter)

    def write(self, live: Tensor) -> None:
        """See :meth:`StoredTensor.write`."""
        self._part.write(local_part(live))
