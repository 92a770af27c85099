"""The layout of a snapshot (fork or checkpoint) inside its safetensors file, without torch.

The file holds tensors by key and one JSON value, here ``meta``::

    {"format": "auditkit-snapshot/1",
     "components": {COMPONENT: {ENTRY: SPEC}}}

where SPEC is one of::

    {"dtype": D, "shape": [...]}                   a tensor, row-major in memory
    {"dtype": D, "shape": [...], "stride": [...]}  a tensor, dense in memory in another order
    {..., "offset": BYTES}                         one that begins behind a multiple of 64 bytes
    {"alias": ENTRY}                               the memory of an earlier tensor
    {"json": VALUE}                                what is no tensor, in tagged encoding
    {"json_bytes": N}                              the same, stored as uint8 of shape (N,)

The key of what is stored as a tensor is the component, with ``~`` as ``~0`` and ``/`` as
``~1``, then ``/``, then the entry as it is. The stored elements are row-major whatever the
strides; dtypes that older safetensors do not know are stored as uint8 of shape (bytes,).

A file may be forged: whatever is read here is checked against all of this, and nothing is
allocated that the file does not contain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from auditkit.errors import FormatError, JsonError
from auditkit.formats.canonical import MAX_BYTES, dumps, loads
from auditkit.formats.recipes import ITEM_BYTES
from auditkit.records.tensor import RawTensor, Tensor

T = TypeVar("T", bound=Tensor)

#: The version of the layout.
FORMAT: Final = "auditkit-snapshot/1"

#: Sections beside the components: the data position, batches for recalibrating BatchNorm and, in
#: a checkpoint, plain attributes, and where in the whole the parts of sharded tensors lie. No trace
#: has a column for them (a study's has for the attributes).
#: Where indices give the batches again, ``recalibration/SHA256`` has these in place of the batches,
#: whose commitment stands in its name.
LOADER: Final = "loader"
RECALIBRATION: Final = "recalibration"
SHARDING: Final = "sharding"
UNTRACED: Final = (LOADER, RECALIBRATION, "attributes", SHARDING)


def recalibrated_on(section: str) -> str | None:
    """The commitment to batches that a section with their indices has in its name."""
    kind, _, sha256 = section.partition("/")
    return sha256 if kind == RECALIBRATION and sha256 else None


#: Dtypes that are stored as themselves; every other one is stored as uint8.
STORED_AS_IS: Final = frozenset(
    [
        "bool",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "uint32",
        "int32",
        "uint64",
        "int64",
        "float8_e4m3fn",
        "float8_e5m2",
        "float16",
        "bfloat16",
        "float32",
        "float64",
    ]
)

#: Most dimensions of a tensor: torch cannot copy more.
MAX_DIMENSIONS: Final = 64

#: Bytes to which memory is aligned.
ALIGNMENT: Final = 64

_EXACT = 2**53  # from here on JSON readers disagree about integers
_ADDRESSABLE = 2**63


@dataclass(frozen=True)
class Component(Generic[T]):
    """One component of a snapshot file.

    Attributes:
        entries: Tensors with their real dtype and shape, and canonical JSON, by entry name.
        aliases: Entries that are the memory of another entry, with that entry's name.
        strides: Strides in elements of every tensor of ``entries``.
        offsets: Bytes behind an alignment to 64, of those that begin there as views do.
    """

    entries: dict[str, T | bytes] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    strides: dict[str, tuple[int, ...]] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)


def tensor_key(component: str, entry: str) -> str:
    """Key, in the file, of what an entry stores as a tensor."""
    return f"{component.replace('~', '~0').replace('/', '~1')}/{entry}"


def as_stored(tensor: RawTensor) -> RawTensor:
    """A tensor in the dtype and shape under which a file holds it."""
    if tensor.dtype in STORED_AS_IS:
        return tensor
    return RawTensor("uint8", (tensor.n_bytes,), tensor.data)


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of the contiguous layout."""
    stride, step = [], 1
    for size in reversed(shape):
        stride.append(step)
        step *= max(size, 1)
    return tuple(reversed(stride))


def is_dense(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether the strides permute a contiguous layout, without gap or overlap."""
    if 0 in shape:
        return stride == contiguous_strides(shape)
    step = 1
    for this, size in sorted(zip(stride, shape, strict=True)):
        if not 0 <= this < _EXACT:
            return False
        if size > 1:
            if this != step:
                return False
            step *= size
    return True


def check_shape(dtype: str, shape: tuple[int, ...], where: str) -> int:
    """Check that a tensor can exist.

    Args:
        dtype: Name of its dtype.
        shape: Its sizes.
        where: Its place, for the message.

    Returns:
        Its length in bytes.

    Raises:
        FormatError: Unknown dtype, or more dimensions or elements than torch can address.
    """
    width = ITEM_BYTES.get(dtype)
    if width is None:
        raise FormatError("unknown dtype", found=ascii(dtype), where=where)
    # a dimension of size 0 makes a tensor empty but does not stop the strides from overflowing
    extent = math.prod(max(size, 1) for size in shape) * width
    if len(shape) > MAX_DIMENSIONS or max(shape, default=0) >= _EXACT or extent >= _ADDRESSABLE:
        raise FormatError("a tensor too large to exist", where=where)
    return math.prod(shape) * width


def read_components(tensors: Mapping[str, T], meta: object) -> dict[str, Component[T]]:
    """Check a snapshot file and take it apart.

    Args:
        tensors: The file's tensors by key.
        meta: The file's JSON, decoded.

    Returns:
        The components by name.

    Raises:
        FormatError: Anything that is not the layout above.
    """
    top = _object(meta, "snapshot")
    if set(top) != {"format", "components"} or top["format"] != FORMAT:
        raise FormatError("no snapshot", expected=FORMAT, found=ascii(top.get("format")))
    unused = dict(tensors)
    found = {}
    for name, specs in _object(top["components"], "snapshot").items():
        component: Component[T] = Component()
        for entry, spec in _object(specs, ascii(name)).items():
            key = tensor_key(name, entry)
            _read_entry(component, entry, _object(spec, ascii(key)), unused.pop(key, None), key)
        for entry, other in component.aliases.items():
            _check_alias(component, entry, other, ascii(tensor_key(name, entry)))
        found[name] = component
    if unused:
        raise FormatError("a tensor that belongs to nothing", found=ascii(min(unused)))
    return found


def raw_components(
    tensors: Mapping[str, T], meta: object
) -> dict[str, tuple[dict[str, T | bytes], dict[str, str]]]:
    """What `auditkit.formats.recipes.digest_raw` needs of each component of a snapshot file.

    Args:
        tensors: The file's tensors by key.
        meta: The file's JSON, decoded.

    Returns:
        Entries and aliases, by component.

    Raises:
        FormatError: The file is no snapshot.
    """
    components = read_components(tensors, meta)
    return {name: (part.entries, part.aliases) for name, part in components.items()}


def _read_entry(
    component: Component[T],
    entry: str,
    spec: dict[str, object],
    stored: T | None,
    key: str,
) -> None:
    where = ascii(key)
    fields = set(spec)
    if fields == {"alias"} and isinstance(spec["alias"], str) and stored is None:
        component.aliases[entry] = spec["alias"]
    elif fields == {"json"} and stored is None:
        component.entries[entry] = _canonical(spec["json"], where)
    elif fields == {"json_bytes"}:
        content = _content(stored, "uint8", _sizes([spec["json_bytes"]], where), where)
        component.entries[entry] = _canonical_text(content, where)
    elif {"dtype", "shape"} <= fields <= {"dtype", "shape", "stride", "offset"}:
        dtype, shape = spec["dtype"], _sizes(spec["shape"], where)
        if not isinstance(dtype, str):
            raise FormatError("a dtype that is no name", where=where)
        component.entries[entry] = _content(stored, dtype, shape, where)
        component.strides[entry] = _strides(spec.get("stride"), shape, where)
        if "offset" in fields:
            component.offsets[entry] = _offset(spec["offset"], dtype, shape, where)
    else:
        raise FormatError("an entry of no known kind", found=ascii(sorted(fields)), where=where)


def _content(stored: T | None, dtype: str, shape: tuple[int, ...], where: str) -> T:
    if stored is None:
        raise FormatError("a tensor is missing", where=where)
    nbytes = check_shape(dtype, shape, where)
    expected = (dtype, shape) if dtype in STORED_AS_IS else ("uint8", (nbytes,))
    if (stored.dtype, tuple(stored.shape)) != expected or stored.n_bytes != nbytes:
        raise FormatError(
            "a tensor is not what its description says",
            expected=f"{expected}, {nbytes} bytes",
            found=f"{stored.dtype!a}, {stored.shape}, {stored.n_bytes} bytes",
            where=where,
        )
    return stored.recast(dtype, shape)


def _strides(value: object, shape: tuple[int, ...], where: str) -> tuple[int, ...]:
    if value is None:
        return contiguous_strides(shape)
    stride = _sizes(value, where)
    if (
        len(stride) != len(shape)
        or not is_dense(shape, stride)
        or stride == contiguous_strides(shape)
    ):
        raise FormatError("strides that are not dense", found=stride, where=where)
    return stride


def _offset(value: object, dtype: str, shape: tuple[int, ...], where: str) -> int:
    n_bytes = check_shape(dtype, shape, where)
    itemsize = n_bytes // max(1, math.prod(shape))
    if type(value) is not int or not 0 < value < ALIGNMENT or not n_bytes or value % itemsize:
        raise FormatError("no place of a tensor in memory", found=value, where=where)
    return value


def _check_alias(component: Component[T], entry: str, other: str, where: str) -> None:
    target = component.entries.get(other)
    if other >= entry or isinstance(target, bytes | None) or not target.n_bytes:
        raise FormatError("alias of what is no earlier tensor", found=ascii(other), where=where)


def _canonical(value: object, where: str) -> bytes:
    try:
        return dumps(value)
    except JsonError as error:
        raise FormatError(error.message, where=where) from None


def _canonical_text(content: Tensor, where: str) -> bytes:
    if content.n_bytes > MAX_BYTES:
        raise FormatError(f"JSON of more than {MAX_BYTES} bytes", where=where)
    data = b"".join(content.pieces())
    try:
        is_canonical = dumps(loads(data, what=where)) == data
    except JsonError as error:
        raise FormatError(error.message, where=where) from None
    if not is_canonical:
        raise FormatError("JSON that is not canonical", where=where)
    return data


def _sizes(value: object, where: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise FormatError("sizes that are no list", where=where)
    sizes = []
    for size in value:
        if type(size) is not int or not 0 <= size < _EXACT:
            raise FormatError("a size that is no natural number", found=ascii(size), where=where)
        sizes.append(size)
    return tuple(sizes)


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise FormatError("something else than a JSON object", where=where)
    return value
