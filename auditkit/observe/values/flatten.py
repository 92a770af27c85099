"""Encoding ``json-v1``: a tree of Python values as entries of a component.

Entry ``""`` is canonical JSON of the tree. None, booleans, strings and integers below 2**53 are
themselves, a list is an array; whatever else is an object that says under ``"$"`` what it is::

    int       hex                      integers of 2**53 and more
    float     bits                     IEEE-754 bits, 16 hex digits, so NaN payloads, -0.0
    complex   bits                     real part, then imaginary part
    str       utf8                     strings with lone surrogates, as hex
    bytes, bytearray   hex
    tuple, size        items
    ints      of, text                 a list or tuple of 16 or more 64-bit integers, in decimal
    set, frozenset     items           in the order of their canonical bytes
    deque     items, maxlen
    dict, Counter      keys, values    two arrays, in the dict's own order
    OrderedDict        keys, values    and ``metadata``, if it has torch's ``_metadata``
    defaultdict        keys, values, factory
    dtype, device      name
    tensor    entry, parameter, grad   grad: requires_grad
    subclass  class, inner, context, size, stride      inner: two arrays, names and tensors
    object    class, kind, keys, values       of data: of a class that somebody else wrote
    sparse    layout, size, coalesced, inner  of data: inner: two arrays, names and tensors
    ndarray   entry, dtype, shape, order      dtype as numpy writes it; entry: uint8
    npscalar  dtype, hex
    npstr     value
    npbytes   hex

A tensor lies in an entry of its own, named by its path: keys and indices joined by ``/``. In a
part, ``~`` is ``~0`` and ``/`` is ``~1``; a string that is empty or looks like an integer has
``~s`` before it, and a key that is neither string nor integer is ``~k`` and its canonical JSON.
A tree that is a tensor has the entry ``~``.

A tensor of a subclass is what its ``__tensor_flatten__`` says: inner tensors and a context.
Types are compared exactly: a subclass, named tuples included, might hold more than its items. Only
data, which are batches and what a probe is asked with, may be of other classes, see
:mod:`auditkit.observe.values.classes`, and sparse.
What cannot be kept is refused by its path, never dropped. Two references to one list come back
as two equal lists; of tensors, exact aliases stay aliases. A tensor's ``grad`` is no part of it.
"""

from __future__ import annotations

import functools
import re
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from auditkit.errors import JsonError, UncapturedState
from auditkit.formats.canonical import MAX_DEPTH, dumps
from auditkit.observe.values.arrays import encode_array, encode_scalar
from auditkit.observe.values.classes import items_of, kind_of
from auditkit.observe.values.sparse import is_sparse, sparse_parts
from auditkit.observe.values.tensors import Leaves, class_name, has_inner_tensors, refuse_unknown

#: Default factories of a defaultdict that are known by name.
FACTORIES: Final[Mapping[str, type]] = {
    "int": int,
    "float": float,
    "list": list,
    "dict": dict,
    "set": set,
}

#: Sequences of at least that many integers become one string: 30 times faster to encode.
PACKED_INTS: Final = 16

_EXACT = 2**53
#: Of data, in which one that several others hold is taken apart as often.
_MOST_CONTAINERS: Final = 500_000
#: Of batches of plain tensors: the structure by kind of container and number of tensors, and the
#: names of these.
_KNOWN_BATCHES: dict[tuple[type, int], tuple[bytes, tuple[str, ...]]] = {}
_LOOKS_LIKE_INT = re.compile(r"-?\d+", re.ASCII)


def flatten(tree: object, *, where: str, data: bool = False) -> dict[str, torch.Tensor | bytes]:
    """Encode a tree.

    Args:
        tree: A tree of the types above.
        where: What it is, e.g. ``scheduler``, for error messages.
        data: Whether it is data, in which objects count as their items.

    Returns:
        Entry ``""`` with the structure, and the tensors by path. Tensors are the live ones,
        not copies; arrays are copies.

    Raises:
        UncapturedState: The tree holds something that a snapshot cannot keep; ``where`` is its
            path.
    """
    return _Encoder(where, data=data).leaves(tree)


def batch_leaves(batch: Any) -> Leaves:
    """``flatten(batch, data=True)`` word for word, and fast where it is plain tensors in a list.

    Or in a tuple. Most batches are, every step the same kind: their structure is kept.

    Raises:
        UncapturedState: The batch holds something that has no digest.
    """
    if not is_plain_batch(batch):
        return _Encoder("batch", data=True, any_array=True).leaves(batch)
    key = (type(batch), len(batch))
    if key not in _KNOWN_BATCHES:
        leaves = flatten(batch, where="batch")
        names = tuple(name for item in batch for name, leaf in leaves.items() if leaf is item)
        text = leaves[""]
        if len(names) < len(batch) or not isinstance(text, bytes):
            return leaves
        _KNOWN_BATCHES[key] = (text, names)
        return leaves
    text, names = _KNOWN_BATCHES[key]
    return {"": text, **dict(zip(names, batch, strict=True))}


def is_plain_batch(batch: Any) -> bool:
    """Whether a batch is a list or tuple of plain tensors, each one once."""
    if type(batch) not in (list, tuple) or not batch:
        return False
    for item in batch:
        if type(item) is not torch.Tensor or item.requires_grad or item.layout is not torch.strided:
            return False
    return len(set(map(id, batch))) == len(batch)


def _has_mask(array: object) -> bool:
    return isinstance(array, np.ma.MaskedArray)


class _Encoder:
    """One walk over a tree; collects the tensors on its way.

    Args:
        where: What the tree is.
        data: Whether objects count as their items.
        any_array: Whether an array of a subclass counts as the array that it is, where nothing is
            built from it again: loaders hand out arrays in shared memory as a class of their own.
    """

    def __init__(self, where: str, *, data: bool = False, any_array: bool = False) -> None:
        self.tensors: dict[str, torch.Tensor | bytes] = {}
        self._data = data
        self._any_array = any_array
        self._where = where
        self._enclosing: set[int] = set()  # the containers around the current value
        self._n_containers = 0
        self._hashed = False  # inside a key or a set, where a tensor would be its identity

    def leaves(self, tree: Any) -> dict[str, torch.Tensor | bytes]:
        """Structure and tensors of a tree."""
        structure = self.encode(tree, "")
        try:
            text = dumps(structure)
        except JsonError as error:
            raise UncapturedState(error.message, where=self._where) from None
        return {"": text, **self.tensors}

    def encode(self, value: object, path: str) -> object:
        """JSON of a value; ``path`` is the name that its entry would have."""
        kind = type(value)
        plain = _PLAIN.get(kind)
        if plain is not None:
            return plain(value)
        container = _CONTAINERS.get(kind) or self._of_data(kind)
        if container is not None:
            return self._container(value, path, container)
        if isinstance(value, torch.Tensor):
            return self._tensor(value, path)
        if kind is np.ndarray:
            return self._array(value, path)
        if isinstance(value, np.generic):
            return encode_scalar(value, self._place(path))
        if self._any_array and isinstance(value, np.ndarray) and not _has_mask(value):
            return self._array(value.view(np.ndarray), path)
        raise self._refusal(
            f"a {kind.__module__}.{kind.__qualname__} cannot be captured",
            path,
            hint="make it of tensors, arrays, numbers and text, in tuples, lists and dicts",
        )

    def _of_data(self, kind: type) -> _Encode | None:
        return _Encoder._object if self._data and kind_of(kind) is not None else None

    def _container(self, value: Any, path: str, encode: _Encode) -> object:
        if id(value) in self._enclosing:
            raise self._refusal("a container that contains itself cannot be captured", path)
        if len(self._enclosing) >= MAX_DEPTH:
            raise self._refusal("too many containers inside each other", path)
        self._n_containers += 1
        if self._data and self._n_containers > _MOST_CONTAINERS:
            raise self._refusal(f"data of more than {_MOST_CONTAINERS:,} containers", path)
        self._enclosing.add(id(value))
        encoded = encode(self, value, path)
        self._enclosing.remove(id(value))
        return encoded

    def _items(self, values: Iterable[object], path: str) -> list[object]:
        return [self.encode(item, _join(path, str(n))) for n, item in enumerate(values)]

    def _list(self, value: list[object], path: str) -> object:
        return _packed_ints(value) or self._items(value, path)

    def _tuple(self, value: tuple[object, ...], path: str) -> object:
        return _packed_ints(value) or {"$": "tuple", "items": self._items(value, path)}

    def _size(self, value: torch.Size, path: str) -> object:
        return {"$": "size", "items": self._items(value, path)}

    def _deque(self, value: deque[object], path: str) -> object:
        return {"$": "deque", "items": self._items(value, path), "maxlen": value.maxlen}

    def _set(self, value: set[object] | frozenset[object], path: str) -> object:
        items = [self._hashable(item, path) for item in value]
        return {"$": type(value).__name__, "items": sorted(items, key=dumps)}

    def _dict(self, value: dict[object, object], path: str) -> dict[str, object]:
        return {"$": type(value).__name__, **self._pairs(value.items(), path)}

    def _object(self, value: Any, path: str) -> object:
        cls = type(value)
        try:
            items = items_of(value)
        except TypeError as error:
            raise self._refusal(str(error), path) from error
        try:
            pairs = self._pairs(items, path)
        except UncapturedState as error:
            if kind_of(cls) == "object":  # whose class says more than what it keeps inside
                error.message = f"a {class_name(cls)} cannot be captured: {error.message}"
            raise
        return {"$": "object", "class": class_name(cls), "kind": kind_of(cls), **pairs}

    def _pairs(self, pairs: Iterable[tuple[object, object]], path: str) -> dict[str, object]:
        keys, values = [], []
        for key, item in pairs:
            encoded = self._hashable(key, path)
            keys.append(encoded)
            values.append(self.encode(item, _join(path, _path_part(encoded))))
        return {"keys": keys, "values": values}

    def _attributed(self, value: Any, path: str) -> object:
        encoded = self._dict(value, path)
        attributes = dict(vars(value))
        if isinstance(value, OrderedDict) and "_metadata" in attributes:
            # module versions, which decide how load_state_dict reads the rest
            encoded["metadata"] = self.encode(attributes.pop("_metadata"), _join(path, "~metadata"))
        if attributes:
            raise self._refusal(f"attributes of a dict: {', '.join(attributes)}", path)
        return encoded

    def _defaultdict(self, value: defaultdict[object, object], path: str) -> object:
        factory = value.default_factory
        name = next((name for name, known in FACTORIES.items() if known is factory), None)
        if factory is not None and name is None:
            raise self._refusal("a defaultdict of another factory cannot be captured", path)
        return {**self._dict(value, path), "factory": name}

    def _hashable(self, value: object, path: str) -> object:
        outer, self._hashed = self._hashed, True
        encoded = self.encode(value, path)
        self._hashed = outer
        return encoded

    def _tensor(self, value: torch.Tensor, path: str) -> object:
        is_parameter = type(value) is torch.nn.Parameter
        if self._hashed:
            raise self._refusal("a tensor as a key cannot be captured", path)
        if has_inner_tensors(value):
            return self._subclass(value, path)
        if self._data and is_sparse(value):
            return self._sparse(value, path)
        refuse_unknown(value, self._place(path))
        if type(value) is not torch.Tensor and not is_parameter:
            raise self._refusal(f"a tensor subclass, {type(value).__name__}", path)
        if not value.is_leaf:
            raise self._refusal("a tensor with a graph behind it", path, hint="detach it")
        entry = path or "~"
        self.tensors[entry] = value
        grad = value.requires_grad
        return {"$": "tensor", "entry": entry, "parameter": is_parameter, "grad": grad}

    def _subclass(self, value: Any, path: str) -> object:
        if value.requires_grad or not value.is_leaf:
            raise self._refusal(f"a {type(value).__name__} that is trained", path)
        names, context = value.__tensor_flatten__()
        return {
            "$": "subclass",
            "class": class_name(type(value)),
            "inner": [
                list(names),
                [self._tensor(getattr(value, name), _join(path, name)) for name in names],
            ],
            "context": self.encode(context, _join(path, "~context")),
            "size": self.encode(tuple(value.size()), path),
            "stride": self.encode(tuple(value.stride()), path),
        }

    def _sparse(self, value: torch.Tensor, path: str) -> object:
        if value.requires_grad:  # what it consists of has no gradient, nor a graph behind it
            raise self._refusal("a sparse tensor that requires a gradient", path, hint="detach it")
        fields, tensors = sparse_parts(value)
        inner = [self._tensor(one, _join(path, name)) for name, one in tensors.items()]
        return {"$": "sparse", **fields, "inner": [list(tensors), inner]}

    def _array(self, value: Any, path: str) -> object:
        entry = path or "~"
        node, self.tensors[entry] = encode_array(value, entry, self._place(path))
        return node

    def _place(self, path: str) -> str:
        return _join(self._where, path) if path else self._where

    def _refusal(self, message: str, path: str, hint: str | None = None) -> UncapturedState:
        return UncapturedState(message, where=self._place(path), hint=hint)


def _join(path: str, part: str) -> str:
    return f"{path}/{part}" if path else part


def _path_part(encoded: object) -> str:
    if type(encoded) is int:
        return str(encoded)
    if type(encoded) is not str:
        return f"~k{_escape(dumps(encoded).decode())}"
    return _text_part(encoded)


@functools.lru_cache(maxsize=1024)  # a scheduler and groups have the same keys at every step
def _text_part(text: str) -> str:
    escaped = _escape(text)
    is_ambiguous = not escaped or _LOOKS_LIKE_INT.fullmatch(escaped)
    return f"~s{escaped}" if is_ambiguous else escaped


def _escape(text: str) -> str:
    return text.replace("~", "~0").replace("/", "~1")


def _packed_ints(value: list[object] | tuple[object, ...]) -> dict[str, object] | None:
    if len(value) < PACKED_INTS or set(map(type, value)) != {int}:
        return None
    numbers: Any = value
    if min(numbers) < -(2**63) or max(numbers) >= 2**63:
        return None  # decimal text of longer integers takes quadratic time
    return {"$": "ints", "of": type(value).__name__, "text": ",".join(map(str, numbers))}


def _int(value: int) -> object:
    return value if -_EXACT < value < _EXACT else {"$": "int", "hex": f"{value:x}"}


def _str(value: str) -> object:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return {"$": "str", "utf8": value.encode("utf-8", "surrogatepass").hex()}
    return value


_PLAIN: Final[Mapping[type, Callable[[Any], object]]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    int: _int,
    str: _str,
    float: lambda value: {"$": "float", "bits": struct.pack(">d", value).hex()},
    complex: lambda value: {
        "$": "complex",
        "bits": struct.pack(">dd", value.real, value.imag).hex(),
    },
    bytes: lambda value: {"$": "bytes", "hex": value.hex()},
    bytearray: lambda value: {"$": "bytearray", "hex": value.hex()},
    torch.dtype: lambda value: {"$": "dtype", "name": str(value).removeprefix("torch.")},
    torch.device: lambda value: {"$": "device", "name": str(value)},
    # numpy's own __str__ drops zeros at the end
    np.str_: lambda value: {"$": "npstr", "value": _str(str.__str__(value))},
    np.bytes_: lambda value: {"$": "npbytes", "hex": bytes(value).hex()},
}

_Encode: TypeAlias = Callable[[_Encoder, Any, str], object]

_CONTAINERS: Final[Mapping[type, _Encode]] = {
    list: _Encoder._list,
    tuple: _Encoder._tuple,
    torch.Size: _Encoder._size,
    deque: _Encoder._deque,
    set: _Encoder._set,
    frozenset: _Encoder._set,
    dict: _Encoder._dict,
    OrderedDict: _Encoder._attributed,
    Counter: _Encoder._attributed,
    defaultdict: _Encoder._defaultdict,
}
