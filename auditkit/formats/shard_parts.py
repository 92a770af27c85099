"""What a process contributes to digests of sharded components, and the file of that.

The file is there until the digests are made. It holds the data of every part
(:class:`auditkit.formats.chunk_digests.Part`) as a uint8 tensor, under the key that a snapshot has
for the entry, and as JSON the rest of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from auditkit.errors import FormatError
from auditkit.formats.chunk_digests import Part, parts_of
from auditkit.formats.sharding import read_sharding
from auditkit.formats.snapshot_file import SHARDING, tensor_key
from auditkit.records.tensor import RawTensor, Tensor

T = TypeVar("T", bound=Tensor)

#: What a process contributes, by component and entry.
Parts = Mapping[str, Mapping[str, Part]]

#: Entries and aliases by section, as of `auditkit.formats.snapshot_file.raw_components`.
Sections = Mapping[str, tuple[Mapping[str, T | bytes], Mapping[str, str]]]


def checkpoint_parts(sections: Sections[T]) -> dict[str, dict[str, Part]]:
    """What a process contributes by one of its checkpoints, by component and entry.

    Raises:
        FormatError: When the section on its sharding does not fit the others.
    """
    found = {}
    sharding = read_sharding(sections[SHARDING][0] if SHARDING in sections else None)
    for name, shards in sharding.items():
        if name not in sections:
            raise FormatError("a part of what is not there", where=name)
        entries, aliases = sections[name]
        whole = {**entries, **{alias: entries[other] for alias, other in aliases.items()}}
        found[name] = parts_of(whole, shards, name)
    return found


def parts_to_tensors(parts: Parts) -> tuple[dict[str, RawTensor], object]:
    """The file's tensors and JSON."""
    tensors, meta = {}, {}
    for component, entries in parts.items():
        meta[component] = {
            entry: [part.dtype, list(part.shape), part.start, part.n_bytes]
            for entry, part in entries.items()
        }
        for entry, part in entries.items():
            data = RawTensor("uint8", (len(part.data),), part.data)
            tensors[tensor_key(component, entry)] = data
    return tensors, meta


def parts_from_tensors(
    tensors: Mapping[str, RawTensor], meta: object
) -> dict[str, dict[str, Part]]:
    """Inverse of :func:`parts_to_tensors`.

    Raises:
        FormatError: When the file is none.
    """
    try:
        return {
            component: {
                entry: Part(
                    str(dtype),
                    tuple(map(int, shape)),
                    int(start),
                    int(n_bytes),
                    bytes(tensors[tensor_key(component, entry)].data),
                )
                for entry, (dtype, shape, start, n_bytes) in entries.items()
            }
            for component, entries in meta.items()  # type: ignore[attr-defined]
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FormatError("no file of parts", found=str(error)) from None
