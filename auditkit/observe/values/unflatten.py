"""Decoding ``json-v1``: entries of a component as the tree that they were.

The encoding is described in :mod:`auditkit.observe.values.flatten`. What is read here may be
forged: it can come out as another tree, but only of the same harmless types, and what is no tree is
a FormatError.
"""

from __future__ import annotations

import re
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np
import torch

from auditkit.errors import FormatError, JsonError
from auditkit.formats.canonical import loads
from auditkit.observe.values.arrays import decode_array, decode_scalar
from auditkit.observe.values.classes import loaded_class, of_items
from auditkit.observe.values.flatten import FACTORIES
from auditkit.observe.values.sparse import sparse_of
from auditkit.observe.values.tensors import (
    Leaves,
    MemoryKey,
    clone_aligned,
    memory_key,
    tensor_class,
)

_HEX_INT = re.compile(r"-?[1-9a-f][0-9a-f]*")
_HEX_BYTES = re.compile(r"([0-9a-f]{2})*")
_DECIMALS = re.compile(r"-?\d{1,19}(,-?\d{1,19})*", re.ASCII)


def unflatten(leaves: Leaves, *, where: str = "snapshot", is_own: bool = False) -> Any:
    """Decode a tree.

    Args:
        leaves: What `flatten` gave, or `unpack` for that component.
        where: What it is, for error messages.
        is_own: Whether the tensors are nobody else's, in memory as below, and need not be copied.

    Returns:
        The tree. Its tensors are copies in aligned host memory, with the strides of the entry
        where these are dense; entries of the same memory come back as one memory.

    Raises:
        FormatError: The leaves are no such tree.
    """
    text = leaves.get("")
    if not isinstance(text, bytes):
        raise FormatError("a tree without structure", where=where)
    try:
        structure = loads(text, what=where)
    except JsonError as error:
        raise FormatError(error.message, where=where) from None
    decoder = _Decoder(leaves, where, is_own=is_own)
    tree = decoder.decode(structure)
    decoder.finish()
    return tree


class _Decoder:
    """One walk over a structure."""

    def __init__(self, leaves: Leaves, where: str, *, is_own: bool) -> None:
        self._leaves = leaves
        self._where = where
        self._is_own = is_own
        self._unused = set(leaves) - {""}
        self._memories: dict[MemoryKey, torch.Tensor] = {}
        self._tensors: dict[tuple[MemoryKey, bool, bool], torch.Tensor] = {}

    def decode(self, node: object) -> Any:
        """Value of a JSON node."""
        if node is None or isinstance(node, (bool, int, str)):
            return node
        if isinstance(node, list):
            return [self.decode(item) for item in node]
        if not isinstance(node, dict):
            raise self.fault("a number that is no integer")
        fields = dict(node)
        tag = fields.pop("$", None)
        names, read = _TAGS.get(tag, (None, None)) if isinstance(tag, str) else (None, None)
        if read is None or not (fields.keys() == names or tag == "OrderedDict"):
            raise self.fault(f"no value of type {tag!a}")
        return read(self, fields)

    def finish(self) -> None:
        """Check that the structure used every entry."""
        if self._unused:
            raise self.fault(f"an entry that the tree does not name: {min(self._unused)!a}")

    def fault(self, message: str) -> FormatError:
        """The error to raise."""
        return FormatError(message, where=self._where)

    def items(self, node: object) -> list[Any]:
        """Values of an array."""
        if not isinstance(node, list):
            raise self.fault("items that are no array")
        return [self.decode(item) for item in node]

    def pairs(self, fields: dict[str, object], into: Any) -> Any:
        """Fill a dict with keys and values."""
        keys, values = self.items(fields["keys"]), self.items(fields["values"])
        if len(keys) != len(values):
            raise self.fault("a dict with more keys than values, or fewer")
        for key, value in zip(keys, values, strict=True):
            self.check_hashable(key)
            into[key] = value
        if len(into) != len(keys):
            raise self.fault("a dict that has a key twice")
        return into

    def check_hashable(self, value: object) -> None:
        """Refuse what can be no key: a forged list, or a tensor, whose key is its identity."""
        try:
            hash(value)
        except (TypeError, OverflowError):  # a list, or a date that numpy cannot hash
            raise self.fault(f"a {type(value).__name__} as a key") from None
        parts = value if isinstance(value, (tuple, frozenset)) else (value,)
        if any(isinstance(part, torch.Tensor) for part in parts):
            raise self.fault("a tensor as a key")

    def set_items(self, node: object) -> Iterable[Any]:
        """Values of a set."""
        values = self.items(node)
        for value in values:
            self.check_hashable(value)
        if len(set(values)) != len(values):
            raise self.fault("a set that has an item twice")
        return values

    def hex_bytes(self, node: object) -> bytes:
        """Bytes of lower-case hexadecimal digits."""
        if not isinstance(node, str) or not _HEX_BYTES.fullmatch(node):
            raise self.fault("bytes that are no hexadecimal digits")
        return bytes.fromhex(node)

    def floats(self, node: object, count: int) -> tuple[Any, ...]:
        """Floats of their IEEE-754 bits."""
        data = self.hex_bytes(node)
        if len(data) != 8 * count:
            raise self.fault("a float of another size than 64 bits")
        return struct.unpack(f">{count}d", data)

    def leaf(self, entry: object) -> torch.Tensor:
        """The tensor of an entry."""
        leaf = self._leaves.get(entry) if isinstance(entry, str) else None
        if not isinstance(leaf, torch.Tensor):
            raise self.fault(f"no tensor in the entry {entry!a}")
        self._unused.discard(str(entry))
        return leaf

    def own(self, leaf: torch.Tensor) -> torch.Tensor:
        """A tensor that nobody else has."""
        return leaf if self._is_own else clone_aligned(leaf)

    def tensor(self, fields: dict[str, object]) -> torch.Tensor:
        """A tensor or parameter."""
        leaf, as_parameter, grad = self.leaf(fields["entry"]), fields["parameter"], fields["grad"]
        if not isinstance(as_parameter, bool) or not isinstance(grad, bool):
            raise self.fault("a tensor that does not say what it is")
        if grad and not (leaf.is_floating_point() or leaf.is_complex()):
            raise self.fault("a tensor of integers that requires a gradient")
        if not leaf.numel():
            return _as_live_tensor(self.own(leaf), as_parameter, grad)
        key = memory_key(leaf)
        if key not in self._memories:
            self._memories[key] = self.own(leaf)
        live_key = (key, as_parameter, grad)
        if live_key not in self._tensors:
            self._tensors[live_key] = _as_live_tensor(self._memories[key], as_parameter, grad)
        return self._tensors[live_key]

    def array(self, fields: dict[str, Any]) -> Any:
        """A numpy array."""
        return decode_array(fields, self.leaf(fields["entry"]), self._where)

    def numpy_scalar(self, fields: dict[str, Any]) -> Any:
        """A numpy number or date."""
        return decode_scalar(fields, self.hex_bytes(fields["hex"]), self._where)


def _subclass(decoder: _Decoder, fields: dict[str, Any]) -> Any:
    kind = tensor_class(fields["class"]) if isinstance(fields["class"], str) else None
    if kind is None or not hasattr(kind, "__tensor_unflatten__"):
        raise decoder.fault(f"a tensor of a class that is not loaded here: {fields['class']!a}")
    inner, size, stride = (decoder.decode(fields[key]) for key in ("inner", "size", "stride"))
    context = decoder.decode(fields["context"])
    try:
        names, tensors = inner
        held = dict(zip(names, tensors, strict=True))
        return kind.__tensor_unflatten__(held, context, torch.Size(size), stride)
    except Exception as error:  # whatever the class makes of parts that may be forged
        raise decoder.fault(f"no {kind.__name__} of these parts: {error}") from error


def _sparse(decoder: _Decoder, fields: dict[str, Any]) -> torch.Tensor:
    try:
        names, nodes = fields["inner"]
        parts = [decoder.decode(node) for node in nodes]
        return sparse_of(fields["layout"], fields["size"], fields["coalesced"], names, parts)
    except (TypeError, ValueError, RuntimeError) as error:
        raise decoder.fault(f"no sparse tensor of these parts: {error}") from error


def _object(decoder: _Decoder, fields: dict[str, Any]) -> Any:
    cls = loaded_class(fields["class"]) if isinstance(fields["class"], str) else None
    if cls is None:
        raise decoder.fault(f"an object of a class that is not loaded here: {fields['class']!a}")
    keys, values = decoder.items(fields["keys"]), decoder.items(fields["values"])
    try:
        return of_items(cls, keys, values)
    except Exception as error:  # whatever the class makes of items that may be forged
        raise decoder.fault(f"no {cls.__name__} of these items: {error}") from error


def _as_live_tensor(tensor: torch.Tensor, as_parameter: bool, grad: bool) -> torch.Tensor:
    if as_parameter:
        return torch.nn.Parameter(tensor, requires_grad=grad)
    return tensor.detach().requires_grad_(grad) if grad else tensor


def _int(decoder: _Decoder, fields: dict[str, Any]) -> int:
    if not isinstance(fields["hex"], str) or not _HEX_INT.fullmatch(fields["hex"]):
        raise decoder.fault("an integer that is no hexadecimal digits")
    return int(fields["hex"], 16)


def _ints(decoder: _Decoder, fields: dict[str, Any]) -> list[int] | tuple[int, ...]:
    kind, text = fields["of"], fields["text"]
    if kind not in ("list", "tuple") or not isinstance(text, str) or not _DECIMALS.fullmatch(text):
        raise decoder.fault("integers that are no decimals")
    numbers = map(int, text.split(","))
    return list(numbers) if kind == "list" else tuple(numbers)


def _str(decoder: _Decoder, fields: dict[str, Any]) -> str:
    try:
        return decoder.hex_bytes(fields["utf8"]).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise decoder.fault("a string that is no text") from None


def _size(decoder: _Decoder, fields: dict[str, Any]) -> torch.Size:
    sizes = decoder.items(fields["items"])
    if not all(type(size) is int and abs(size) < 2**63 for size in sizes):
        raise decoder.fault("a size that is no integer")
    return torch.Size(sizes)


def _deque(decoder: _Decoder, fields: dict[str, Any]) -> deque[Any]:
    items, limit = decoder.items(fields["items"]), fields["maxlen"]
    if limit is not None and (type(limit) is not int or not len(items) <= limit < 2**53):
        raise decoder.fault("a deque that is longer than it may be")
    return deque(items, limit)


def _ordered(decoder: _Decoder, fields: dict[str, Any]) -> OrderedDict[Any, Any]:
    if not {"keys", "values"} <= set(fields) <= {"keys", "values", "metadata"}:
        raise decoder.fault("an OrderedDict that is none")
    filled: OrderedDict[Any, Any] = decoder.pairs(fields, OrderedDict())
    if "metadata" in fields:
        vars(filled)["_metadata"] = decoder.decode(fields["metadata"])
    return filled


def _defaultdict(decoder: _Decoder, fields: dict[str, Any]) -> defaultdict[Any, Any]:
    name = fields["factory"]
    if name is not None and (not isinstance(name, str) or name not in FACTORIES):
        raise decoder.fault("a defaultdict of an unknown factory")
    factory = None if name is None else FACTORIES[name]
    filled: defaultdict[Any, Any] = decoder.pairs(fields, defaultdict(factory))
    return filled


def _dtype(decoder: _Decoder, fields: dict[str, Any]) -> torch.dtype:
    name = fields["name"]
    found = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(found, torch.dtype):
        raise decoder.fault(f"no dtype of torch: {name!a}")
    return found


def _device(decoder: _Decoder, fields: dict[str, Any]) -> torch.device:
    if isinstance(fields["name"], str):
        try:
            return torch.device(fields["name"])
        except RuntimeError:
            pass
    raise decoder.fault(f"no device of torch: {fields['name']!a}")


def _npstr(decoder: _Decoder, fields: dict[str, Any]) -> np.str_:
    value = decoder.decode(fields["value"])
    if type(value) is not str:
        raise decoder.fault("a numpy string that is none")
    return np.str_(value)


_Reader = Callable[[_Decoder, dict[str, Any]], Any]

#: Per tag, the fields that its object has, and what makes the value of them.
_TAGS: Final[Mapping[str, tuple[frozenset[str], _Reader]]] = {
    tag: (frozenset(names.split()), read)
    for tag, names, read in [
        ("int", "hex", _int),
        ("float", "bits", lambda decoder, fields: decoder.floats(fields["bits"], 1)[0]),
        ("complex", "bits", lambda decoder, fields: complex(*decoder.floats(fields["bits"], 2))),
        ("str", "utf8", _str),
        ("bytes", "hex", lambda decoder, fields: decoder.hex_bytes(fields["hex"])),
        ("bytearray", "hex", lambda decoder, fields: bytearray(decoder.hex_bytes(fields["hex"]))),
        ("tuple", "items", lambda decoder, fields: tuple(decoder.items(fields["items"]))),
        ("size", "items", _size),
        ("ints", "of text", _ints),
        ("set", "items", lambda decoder, fields: set(decoder.set_items(fields["items"]))),
        (
            "frozenset",
            "items",
            lambda decoder, fields: frozenset(decoder.set_items(fields["items"])),
        ),
        ("deque", "items maxlen", _deque),
        ("dict", "keys values", lambda decoder, fields: decoder.pairs(fields, {})),
        ("Counter", "keys values", lambda decoder, fields: decoder.pairs(fields, Counter())),
        ("OrderedDict", "keys values", _ordered),
        ("defaultdict", "keys values factory", _defaultdict),
        ("dtype", "name", _dtype),
        ("device", "name", _device),
        ("tensor", "entry parameter grad", _Decoder.tensor),
        ("subclass", "class inner context size stride", _subclass),
        ("object", "class kind keys values", _object),
        ("sparse", "layout size coalesced inner", _sparse),
        ("ndarray", "entry dtype shape order", _Decoder.array),
        ("npscalar", "dtype hex", _Decoder.numpy_scalar),
        ("npstr", "value", _npstr),
        ("npbytes", "hex", lambda decoder, fields: np.bytes_(decoder.hex_bytes(fields["hex"]))),
    ]
}
