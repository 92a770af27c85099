"""The snapshot codec: live state to entries, entries to the content of a file, and back.

``flatten`` turns a tree of Python values into `Leaves` and ``unflatten`` undoes it; ``pack``
turns all components into what a safetensors file holds (:mod:`auditkit.formats.snapshot_file`) and
``unpack`` undoes that. Equal state gives equal bytes in every process, and there is no pickle.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from auditkit.errors import FormatError, JsonError, UncapturedState
from auditkit.formats.canonical import dumps, loads
from auditkit.formats.snapshot_file import (
    FORMAT,
    Component,
    as_stored,
    check_shape,
    contiguous_strides,
    read_components,
    tensor_key,
)
from auditkit.observe.values.flatten import flatten
from auditkit.observe.values.stored import Check, Saved, StoredLeaves, StoredTensor
from auditkit.observe.values.tensors import (
    DTYPE_NAMES,
    DTYPES,
    Leaves,
    alias_names,
    dense_stride,
    filled,
    host_bytes,
    memory_offset,
    refuse_unknown,
)
from auditkit.observe.values.unflatten import unflatten
from auditkit.records.tensor import FileTensor, RawTensor, Tensor

S = TypeVar("S")
T = TypeVar("T", bound=Tensor)

__all__ = ["Leaves", "flatten", "pack", "unflatten", "unpack", "unpack_in_place"]

# Longer or deeper JSON is stored as a tensor: metadata stay readable and within the depth that
# readers allow.
_INLINE_BYTES = 4096
_INLINE_DEPTH = 24
# What is longer is checked anew each time.
_KEPT_BYTES = 2**16


def pack(
    state: Mapping[str, Leaves], *, live: bool = False
) -> tuple[dict[str, RawTensor], dict[str, object]]:
    """Freeze a training state.

    Args:
        state: Components by name. Tensors on other devices are copied to the host.
        live: Whether the tensors may be views of live memory, for whoever is done with them before
            training goes on.

    Returns:
        Tensors by key, in copies that no live memory backs, and the JSON value that describes
        them.

    Raises:
        UncapturedState: A tensor that is not plain strided memory, bytes that are no canonical
            JSON, or a name that is no Unicode text; ``where`` names the place.
    """
    tensors: dict[str, RawTensor] = {}
    components: dict[str, object] = {}
    for name in sorted(state):
        specs: dict[str, object] = {}
        leaves = state[name]
        for entry, leaf in leaves.items():
            _check_leaf(leaf, tensor_key(name, entry))
        aliases = alias_names(leaves)
        for entry in sorted(leaves):
            if entry in aliases:
                specs[entry] = {"alias": aliases[entry]}
                continue
            key = tensor_key(name, entry)
            specs[entry], stored = _pack_leaf(leaves[entry], key, live=live)
            if stored is not None:
                tensors[key] = stored
        components[name] = specs
    return tensors, {"format": FORMAT, "components": components}


def unpack(tensors: Mapping[str, T], meta: object) -> dict[str, dict[str, torch.Tensor | bytes]]:
    """Thaw a training state.

    Args:
        tensors: A file's tensors by key, in memory or still in the file.
        meta: The file's JSON, decoded.

    Returns:
        The components: tensors on the host, in aligned memory of their own and with their
        recorded strides; an alias is the very tensor that it is an alias of.

    Raises:
        FormatError: The file is no snapshot, or has a dtype that this torch lacks.
    """
    components = read_components(tensors, meta)
    return {name: _unpack_component(name, part) for name, part in components.items()}


def unpack_in_place(
    tensors: Mapping[str, FileTensor], meta: object, check: Check | None = None
) -> dict[str, Saved]:
    """Thaw a training state whose tensors stay in the file until they are written where they go.

    Args:
        tensors: As of :func:`unpack`.
        meta: As of :func:`unpack`.
        check: Called with the name and the content of each component once that is in memory.

    Raises:
        FormatError: As :func:`unpack`.
    """
    return {
        name: StoredLeaves(name, _component(name, part, StoredTensor), check)
        for name, part in read_components(tensors, meta).items()
    }


def _check_leaf(leaf: torch.Tensor | bytes, key: str) -> None:
    where = key.encode("utf-8", "backslashreplace").decode()
    if where != key:
        raise UncapturedState("a name that is no Unicode text cannot be captured", where=where)
    if not isinstance(leaf, torch.Tensor):
        return
    refuse_unknown(leaf, where)
    try:
        check_shape(DTYPE_NAMES[leaf.dtype], tuple(leaf.shape), where)
    except FormatError as error:
        raise UncapturedState(error.message, where=where) from None


def _pack_leaf(
    leaf: torch.Tensor | bytes, key: str, *, live: bool
) -> tuple[dict[str, object], RawTensor | None]:
    if not isinstance(leaf, torch.Tensor):
        return _pack_json(bytes(leaf), key)
    shape, stride = tuple(leaf.shape), dense_stride(leaf)
    content = host_bytes(leaf)
    raw = RawTensor(DTYPE_NAMES[leaf.dtype], shape, content if live else bytes(content))
    spec: dict[str, object] = {"dtype": raw.dtype, "shape": list(shape)}
    if stride != contiguous_strides(shape):
        spec["stride"] = list(stride)
    if leaf.nbytes and (offset := memory_offset(leaf)):
        spec["offset"] = offset
    return spec, as_stored(raw)


def _pack_json(leaf: bytes, key: str) -> tuple[dict[str, object], RawTensor | None]:
    try:
        inline = (_inline if len(leaf) <= _KEPT_BYTES else _inline.__wrapped__)(leaf)
    except JsonError as error:
        raise UncapturedState(error.message, where=key) from None
    if inline is None:
        return {"json_bytes": len(leaf)}, RawTensor("uint8", (len(leaf),), leaf)
    return {"json": inline[0]}, None


@functools.lru_cache(maxsize=256)  # hyper-parameters and most streams are those of the last time
def _inline(leaf: bytes) -> tuple[object] | None:
    """The value of canonical JSON that is stored among the metadata; None where it is not.

    Raises:
        JsonError: When it is no canonical JSON.
    """
    value = loads(leaf, what="")
    if dumps(value) != leaf:
        raise JsonError("bytes that are no canonical JSON cannot be captured")
    is_short = len(leaf) <= _INLINE_BYTES and _depth(value) <= _INLINE_DEPTH
    return (value,) if is_short else None


def _depth(value: object) -> int:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((_depth(item) for item in items), default=0)


def _unpack_component(name: str, part: Component[T]) -> dict[str, torch.Tensor | bytes]:
    return _component(
        name,
        part,
        lambda raw, dtype, strides, offset: filled(
            raw.fill, raw.n_bytes, dtype, raw.shape, strides, offset
        ),
    )


def _component(
    name: str, part: Component[T], make: Callable[[T, torch.dtype, tuple[int, ...], int], S]
) -> dict[str, S | bytes]:
    leaves: dict[str, S | bytes] = {}
    for entry in sorted(part.entries):
        raw = part.entries[entry]
        if isinstance(raw, bytes):
            leaves[entry] = raw
            continue
        dtype = DTYPES.get(raw.dtype)
        if dtype is None:
            where = ascii(tensor_key(name, entry))
            raise FormatError("a dtype that this torch lacks", found=raw.dtype, where=where)
        leaves[entry] = make(raw, dtype, part.strides[entry], part.offsets.get(entry, 0))
    for entry, other in part.aliases.items():
        leaves[entry] = leaves[other]
    return dict(sorted(leaves.items()))
