"""Named tensors to and from the bytes of a safetensors file, without torch and without files.

What is written is a standard safetensors file that any reader opens. Rules that it keeps:

* equal tensors and metadata give equal bytes: tensors are laid out by element size, then name,
  and all metadata is canonical JSON under the single key ``auditkit`` (the safetensors library
  writes two or more keys in a random order);
* every tensor starts at a multiple of its element size, so it can be used without a copy;
* a dtype that safetensors 0.5 has no code for is stored as bytes (``U8``) and its true dtype and
  shape stand in the metadata; readers of this module never see that;
* reading trusts nothing: names are unique, the tensors fill the file without gap, overlap or
  rest, and each has exactly the bytes that its dtype and shape ask for.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from auditkit.errors import FormatError, JsonError
from auditkit.formats import canonical
from auditkit.formats.quote import brief
from auditkit.records.tensor import FileTensor, RawTensor, Tensor

T = TypeVar("T", bound=Tensor)

#: Reads at a place so many bytes.
Read = Callable[[int, int], bytes | memoryview]

#: Fills memory from a place.
ReadInto = Callable[[int, memoryview], None]

#: safetensors code and bytes per element, by torch's dtype name. Only what version 0.5 reads.
CODES: Mapping[str, tuple[str, int]] = {
    "bool": ("BOOL", 1),
    "uint8": ("U8", 1),
    "int8": ("I8", 1),
    "float8_e4m3fn": ("F8_E4M3", 1),
    "float8_e5m2": ("F8_E5M2", 1),
    "uint16": ("U16", 2),
    "int16": ("I16", 2),
    "float16": ("F16", 2),
    "bfloat16": ("BF16", 2),
    "uint32": ("U32", 4),
    "int32": ("I32", 4),
    "float32": ("F32", 4),
    "uint64": ("U64", 8),
    "int64": ("I64", 8),
    "float64": ("F64", 8),
}

#: Bytes per element of the dtypes that are stored as bytes.
STORED_AS_BYTES: Mapping[str, int] = {
    "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "complex32": 4,
    "complex64": 8,
    "complex128": 16,
}

#: The one metadata key, as safetensors' ``__metadata__`` maps strings to strings.
METADATA_KEY = "auditkit"

#: Largest header, in bytes (the safetensors library takes 100 MB).
MAX_HEADER_BYTES = canonical.MAX_BYTES

#: Most dimensions of a tensor; torch's own limit.
MAX_DIMENSIONS = 64

#: Bytes of a header that may be remembered.
_SHORT = 2**14

_BY_CODE = {code: name for name, (code, _) in CODES.items()} | {
    "C64": "complex64",  # written by newer safetensors
    "F8_E8M0": "float8_e8m0fnu",
}
_SIZES = {name: size for name, (_, size) in CODES.items()} | dict(STORED_AS_BYTES)


@dataclass(frozen=True)
class _Entry:
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    n_bytes: int


#: Metadata, the true forms of tensors that are stored as bytes, and all tensors.
_Layout = tuple[object, Mapping[str, object], Sequence[_Entry]]


def to_chunks(tensors: Mapping[str, RawTensor], metadata: object = None) -> list[memoryview]:
    """Lay out a safetensors file; the tensors' bytes are not copied.

    Args:
        tensors: By name; see :class:`RawTensor`.
        metadata: Any value with a canonical JSON form, or None.

    Returns:
        The file's bytes, in pieces to be written one after the other.

    Raises:
        FormatError: When a name or dtype cannot be stored, or a tensor's bytes do not fit its
            dtype and shape.
        JsonError: When the metadata has no JSON form.
    """
    for name, tensor in tensors.items():
        _check_tensor(name, tensor)
    order = sorted(tensors, key=lambda name: (-_SIZES[tensors[name].dtype], name))
    header: dict[str, object] = {}
    position = 0
    for name in order:
        tensor = tensors[name]
        code, shape = CODES.get(tensor.dtype, ("U8", 1))[0], list(tensor.shape)
        if tensor.dtype in STORED_AS_BYTES:
            shape = [tensor.n_bytes]
        end = position + tensor.n_bytes
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [position, end]}
        position = end
    header |= _metadata_header(tensors, metadata)
    text = canonical.dumps(header)
    text += b" " * (-len(text) % 8)  # so that the tensors start aligned
    head = memoryview(len(text).to_bytes(8, "little") + text)
    return [head, *(_flat(tensors[name].data) for name in order)]


def to_bytes(tensors: Mapping[str, RawTensor], metadata: object = None) -> bytes:
    """The file of :func:`to_chunks` in one piece; raises what that raises."""
    return b"".join(to_chunks(tensors, metadata))


def from_bytes(
    data: bytes | bytearray | memoryview, *, what: str
) -> tuple[dict[str, RawTensor], object]:
    """Read a safetensors file.

    Args:
        data: The whole file. The tensors are views of it, not copies.
        what: What is being read, for the error message.

    Returns:
        The tensors, in the order of their names, and the metadata that was given when the file
        was written; None for a file that something else wrote.

    Raises:
        FormatError: When the bytes are no such file.
    """
    view = _flat(data)
    return _read(
        lambda start, n: view[start : start + n],
        len(view),
        lambda e, start: RawTensor(e.dtype, e.shape, view[start : start + e.n_bytes]),
        what,
    )


def from_file(
    read: Read, n_bytes: int, *, what: str, read_into: ReadInto | None = None
) -> tuple[dict[str, FileTensor], object]:
    """Read the header of a safetensors file; the tensors stay in the file.

    Args:
        read: Reads from the file: at a place, so many bytes.
        n_bytes: Length of the file.
        what: What is being read, for the error message.
        read_into: Fills memory from the file, where there is something better than ``read``.

    Returns:
        As :func:`from_bytes`.

    Raises:
        FormatError: When the header is not that of such a file; also what ``read`` raises.
    """
    return _read(
        read,
        n_bytes,
        lambda e, start: FileTensor(e.dtype, e.shape, e.n_bytes, start, read, read_into),
        what,
    )


def _read(
    read: Read, n_bytes: int, make: Callable[[_Entry, int], T], what: str
) -> tuple[dict[str, T], object]:
    try:
        text = _header(read, n_bytes)
        start = 8 + len(text)
        metadata, true_forms, entries = _layout(bytes(text), n_bytes - start)
        tensors = {entry.name: make(entry, start + entry.begin) for entry in entries}
        for name, form in true_forms.items():
            tensors[name] = _restored(name, form, tensors.get(name))
    except (FormatError, JsonError) as error:
        raise FormatError(f"not a safetensors file: {error.message}", where=what) from None
    return tensors, metadata


def _flat(data: bytes | bytearray | memoryview) -> memoryview:
    view = memoryview(data)
    if view.nbytes == 0:
        return memoryview(b"")  # memoryview cannot cast a shape with a zero in it
    return view.cast("B")


def _check_tensor(name: str, tensor: RawTensor) -> None:
    if name == "__metadata__":
        raise FormatError("a tensor cannot be named '__metadata__' in a safetensors file")
    if tensor.dtype not in _SIZES:
        raise FormatError(f"tensor {brief(name)}: no way to store the dtype {brief(tensor.dtype)}")
    wanted = _n_bytes(tensor.dtype, _sizes(list(tensor.shape)))
    if wanted != tensor.n_bytes:
        raise FormatError(
            f"tensor {brief(name)}: the data do not fit {tensor.dtype} of shape {tensor.shape}",
            expected=f"{wanted} bytes",
            found=tensor.n_bytes,
        )


def _n_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * _SIZES[dtype]


def _metadata_header(tensors: Mapping[str, RawTensor], metadata: object) -> dict[str, object]:
    as_bytes = {
        name: {"dtype": tensor.dtype, "shape": list(tensor.shape)}
        for name, tensor in tensors.items()
        if tensor.dtype in STORED_AS_BYTES
    }
    if metadata is None and not as_bytes:
        return {}
    content = {"metadata": metadata, "stored_as_bytes": as_bytes}
    return {"__metadata__": {METADATA_KEY: canonical.dumps(content).decode("ascii")}}


def _layout(text: bytes, n_bytes: int) -> _Layout:
    """What a header says of so many bytes; the tensors in the order of their names."""
    if len(text) <= _SHORT and b"metadata" not in text and b"\\" not in text:
        return _known_layout(text, n_bytes)
    return _new_layout(text, n_bytes)


def _new_layout(text: bytes, n_bytes: int) -> _Layout:
    header = canonical.loads(text, what="header", max_bytes=MAX_HEADER_BYTES)
    if not isinstance(header, dict) or text[:1] != b"{":
        raise FormatError("the header is no JSON object")
    metadata, true_forms = _metadata(header)
    entries = [_entry(name, item) for name, item in header.items()]
    _check_layout(entries, n_bytes)
    return metadata, true_forms, sorted(entries, key=lambda entry: entry.name)


#: The traces of a study have one header, as its outcomes have.
_known_layout = functools.lru_cache(maxsize=8)(_new_layout)


def _header(read: Read, n_bytes: int) -> bytes | memoryview:
    if n_bytes < 8:
        raise FormatError(f"{n_bytes} bytes are too few")
    length = int.from_bytes(read(0, 8), "little")
    if length > min(MAX_HEADER_BYTES, n_bytes - 8):
        raise FormatError("the header is longer than the file or than the limit")
    return read(8, length)


def _metadata(header: dict[str, object]) -> tuple[object, Mapping[str, object]]:
    """Take the metadata out of the header: the caller's, and the true forms of byte tensors."""
    strings = header.pop("__metadata__", {})
    if not isinstance(strings, dict) or not all(isinstance(s, str) for s in strings.values()):
        raise FormatError("__metadata__ does not map strings to strings")
    if METADATA_KEY not in strings:
        return None, {}
    text = strings[METADATA_KEY].encode("utf-8")
    content = canonical.loads(text, what="metadata", max_bytes=MAX_HEADER_BYTES)
    if not isinstance(content, dict) or set(content) != {"metadata", "stored_as_bytes"}:
        raise FormatError(f"the metadata under {METADATA_KEY!r} have another shape")
    forms = content["stored_as_bytes"]
    if not isinstance(forms, dict):
        raise FormatError("'stored_as_bytes' is no object")
    return content["metadata"], forms


def _sizes(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MAX_DIMENSIONS:
        raise FormatError(f"expected sizes, found {brief(value)}")
    for size in value:
        if type(size) is not int or not 0 <= size < 2**63:
            raise FormatError(f"expected a size, found {brief(size)}")
    return tuple(value)


def _entry(name: str, item: object) -> _Entry:
    if not isinstance(item, dict) or set(item) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"tensor {brief(name)}: expected dtype, shape and data_offsets")
    code, shape, offsets = item["dtype"], _sizes(item["shape"]), _sizes(item["data_offsets"])
    if not isinstance(code, str) or code not in _BY_CODE:
        raise FormatError(f"tensor {brief(name)}: unknown dtype {brief(code)}")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise FormatError(f"tensor {brief(name)}: data_offsets are no range")
    dtype, n_bytes = _BY_CODE[code], offsets[1] - offsets[0]
    if _n_bytes(dtype, shape) != n_bytes:
        raise FormatError(f"tensor {brief(name)}: {n_bytes} bytes do not fit its dtype and shape")
    return _Entry(name, dtype, shape, offsets[0], n_bytes)


def _check_layout(entries: list[_Entry], n_bytes: int) -> None:
    position = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.n_bytes)):
        if entry.begin != position:
            raise FormatError(f"tensor {brief(entry.name)}: a gap or an overlap before it")
        position += entry.n_bytes
    if position != n_bytes:
        raise FormatError(
            "the tensors do not fill the file", expected=f"{position} bytes", found=n_bytes
        )


def _restored(name: str, form: object, stored: T | None) -> T:
    """A tensor that was stored as bytes, with its true dtype and shape."""
    if not isinstance(form, dict) or set(form) != {"dtype", "shape"}:
        raise FormatError(f"tensor {brief(name)}: expected its true dtype and shape")
    dtype, shape = form["dtype"], _sizes(form["shape"])
    if not isinstance(dtype, str) or dtype not in STORED_AS_BYTES:
        raise FormatError(f"tensor {brief(name)}: unknown true dtype {brief(dtype)}")
    n_bytes = _n_bytes(dtype, shape)
    if stored is None or stored.dtype != "uint8" or stored.shape != (n_bytes,):
        raise FormatError(f"tensor {brief(name)}: it is not stored as {n_bytes} bytes")
    return stored.recast(dtype, shape)
