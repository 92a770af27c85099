"""The section ``sharding`` of a checkpoint: where in the whole lies what a process holds.

It is canonical JSON: ``{COMPONENT: {ENTRY: {"first": ROW, "shape": [...]}}}``, one entry for every
tensor of which the process holds rows; ``shape`` is that of the whole tensor, and the first of the
rows in the file is number ``first`` of it. Any other entry is held in whole by every process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auditkit.errors import FormatError, JsonError
from auditkit.formats.canonical import dumps, loads
from auditkit.formats.snapshot_file import SHARDING, check_shape
from auditkit.records.sharding import Shard, Sharding


def sharding_leaves(sharding: Sharding) -> dict[str, dict[str, bytes]]:
    """The section by its name; nothing where no tensor is sharded."""
    tree = {
        name: {
            entry: {"first": shard.first, "shape": list(shard.shape)}
            for entry, shard in shards.items()
        }
        for name, shards in sharding.items()
    }
    return {SHARDING: {"": dumps(tree)}} if tree else {}


def read_sharding(section: Mapping[str, Any] | None) -> Sharding:
    """Inverse of :func:`sharding_leaves`; of no section, nothing.

    Raises:
        FormatError: When it is none.
    """
    if section is None:
        return {}
    text = section.get("")
    if not isinstance(text, bytes) or len(section) != 1:
        raise FormatError("a section of another form", where=SHARDING)
    try:
        tree = loads(text, what=SHARDING)
    except JsonError as error:
        raise FormatError(error.message, where=SHARDING) from None
    return {
        name: {entry: _shard(shard) for entry, shard in _object(shards).items()}
        for name, shards in _object(tree).items()
    }


def _shard(node: object) -> Shard:
    fields = _object(node)
    shape, first = fields.get("shape"), fields.get("first")
    if (
        fields.keys() != {"first", "shape"}
        or not isinstance(shape, list)
        or not all(type(size) is int and size >= 0 for size in shape)
        or type(first) is not int
        or not 0 <= first <= (shape or [0])[0]
    ):
        raise FormatError("a part of a tensor that lies nowhere in it", where=SHARDING)
    check_shape("uint8", tuple(shape), SHARDING)
    return Shard(tuple(shape), first)


def _object(node: object) -> dict[str, Any]:
    if not isinstance(node, dict):
        raise FormatError("something else than a JSON object", where=SHARDING)
    return node
