"""What a process contributes to digests of a state that several hold together, as it trains."""

from __future__ import annotations

from collections.abc import Mapping

from auditkit.files.shard_parts import ShardParts
from auditkit.formats.chunk_digests import parts_of
from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.tensors import DTYPE_NAMES, host_bytes
from auditkit.records.sharding import Sharding
from auditkit.records.tensor import RawTensor


def leave_parts(
    parts: ShardParts, step: int, state: Mapping[str, Leaves], sharding: Sharding
) -> None:
    """Leave what this process holds of a live state; nothing where nothing is sharded."""
    found = {}
    for name, shards in sharding.items():
        entries = {
            entry: leaf
            if isinstance(leaf, bytes)
            else RawTensor(DTYPE_NAMES[leaf.dtype], tuple(leaf.shape), host_bytes(leaf))
            for entry, leaf in state[name].items()
        }
        found[name] = parts_of(entries, shards, name)
    if found:
        parts.write(step, found)
