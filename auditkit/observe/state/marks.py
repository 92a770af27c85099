"""What values of a program's code are compared by, to tell whether they have moved.

Comparing must change nothing and run nobody's code, so only kinds that are known are compared: what
Python, numpy and torch make. Of what is large, a few items or elements.
"""

from __future__ import annotations

import array
import contextlib
import contextvars
import ctypes
import functools
import io
import itertools
import mmap
import operator
import sqlite3
import threading
import types
import warnings
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.sharedctypes import SynchronizedBase
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from auditkit.observe.state.frames import local_names
from auditkit.observe.state.reach import is_library_class
from auditkit.observe.values.own_attributes import own_dict

_SCALARS = frozenset((bool, int, float, complex, str, bytes, type(None)))
_CONTAINERS = frozenset(
    (list, tuple, set, frozenset, deque, dict, defaultdict, Counter, OrderedDict)
)
#: Iterators that have a sequence say how much is left, whose class may be anybody's.
_OF_SEQUENCES = frozenset(("iterator", "reversed"))
_ITERATOR_MODULES = frozenset(("builtins", "itertools", "collections"))
#: Whose objects say what they have hashed.
_HASH_MODULES = frozenset(
    ("_hashlib", "_md5", "_sha1", "_sha2", "_sha256", "_sha512", "_sha3", "_blake2")
)

#: Items of a container, elements of an array and bytes of memory that are compared.
_N_ITEMS = 200
#: Containers in containers.
_DEPTH = 2


class Marks:
    """Compares values.

    Args:
        registered: ``id`` of tensors and modules that have a component: they move, and are no
            news.
    """

    def __init__(self, registered: frozenset[int] = frozenset()) -> None:
        self._registered = registered

    def of(self, value: Any, depth: int = _DEPTH) -> object:
        """What a value is compared by; None where it is none that is compared."""
        try:
            with torch._C.DisableTorchFunctionSubclass():
                return self._of(value, depth)
        # It may be closed, freed, not yet initialized, or changed by a thread while it is read: no
        # look may end a study.
        except Exception:
            return None

    def _of(self, value: Any, depth: int) -> object:
        kind = type(value)
        if kind in _SCALARS:  # of others comparing may do anything
            return (kind, value if value == value else None)  # noqa: PLR0124 # a NaN is not
        if issubclass(kind, (Tensor, nn.Module)):
            return None if id(value) in self._registered else self._of_torch(value)
        if kind in _CONTAINERS and depth:
            items = value.items() if isinstance(value, dict) else value
            few = itertools.islice(items, _N_ITEMS)
            return (kind.__name__, len(value), tuple(self.of(item, depth - 1) for item in few))
        if is_iterator(value):
            return self._of_iterator(value, depth)
        return self._of_known(value, depth)

    def _of_known(self, value: Any, depth: int) -> object:
        """Of Python's own kinds that say themselves where they are."""
        kind = type(value)
        for kinds, mark in _KINDS.items():
            if issubclass(kind, kinds):
                return (kind.__name__, mark(value))
        if kind is contextvars.ContextVar:
            return ("contextvar", self.of(value.get(None), depth - 1))
        if kind is threading.local:
            return ("local", self.of(dict(vars(value)), depth))
        if kind.__module__ in _HASH_MODULES and hasattr(value, "digest_size"):
            return ("hash", value.hexdigest() if value.digest_size else None)
        return None

    def _of_torch(self, value: Any) -> object:
        if isinstance(value, Tensor):
            version = 0 if value.is_inference() else value._version
            return ("tensor", id(value), version, _elements(value))
        few = itertools.islice(_tensors_of(value), _N_ITEMS)
        return ("module", *(self.of(tensor) for tensor in few))

    def _of_iterator(self, value: Any, depth: int) -> object:
        """Where an iterator stands."""
        if isinstance(value, types.GeneratorType):
            frame = value.gi_frame  # which is gone at its end
            return frame and (frame.f_lasti, self.of(local_names(frame), depth - 1))
        if isinstance(value, itertools.count):
            return repr(value)
        if type(value).__name__ not in _OF_SEQUENCES:
            with contextlib.suppress(TypeError):
                return (type(value).__name__, _left_of(value))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a later Python has no such method
            reduced: Any = getattr(value, "__reduce__", tuple)()
        if not isinstance(reduced, tuple) or depth <= 0:
            return None
        return (type(value).__name__, *(self._of_part(part, depth - 1) for part in reduced[1:]))

    def _of_part(self, part: Any, depth: int) -> object:
        """Of what an iterator says that it is made of: other iterators, and where it stands."""
        if isinstance(part, tuple):
            return tuple(self._of_part(one, depth) for one in part)
        return self.of(part, depth)


def is_iterator(value: object) -> bool:
    """Whether it is an iterator of Python's own, which does not say by itself where it stands."""
    kind = type(value)  # of a proxy that is: what it stands for may be gone
    return kind.__module__ in _ITERATOR_MODULES and issubclass(kind, Iterator)


def _tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers, as they lie there and not as a class of somebody's own gives them."""
    layers, seen = [module], {id(module)}
    for layer in layers:  # which grows
        held = own_dict(layer)
        for name in ("_parameters", "_buffers"):
            yield from (one for one in held.get(name, {}).values() if one is not None)
        new = [one for one in held.get("_modules", {}).values() if id(one) not in seen]
        seen.update(map(id, new))
        layers += [one for one in new if one is not None]


def _left_of(value: Any) -> int:
    """How much is left of an iterator that knows.

    Raises:
        TypeError: When it does not.
    """
    left = operator.length_hint(value, -1)
    if left < 0:
        raise TypeError("it does not know")
    return left


def _elements(tensor: Tensor) -> bytes | None:
    is_memory = tensor.layout is torch.strided and tensor.is_cpu and not tensor.is_meta
    if not is_memory or type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return None
    flat = tensor.detach().resolve_conj().resolve_neg().as_subclass(Tensor)
    if not flat.is_contiguous() or not flat.numel():
        return None
    few = flat.view(-1)[:: flat.numel() // _N_ITEMS + 1].contiguous()
    return few.view(torch.uint8).numpy().tobytes()


def _of_array(array: Any) -> object:
    value = np.ndarray.view(array, np.ndarray)
    few = value.flat[:_N_ITEMS] if value.size <= _N_ITEMS else value.flat[:: value.size // _N_ITEMS]
    return id(array), None if value.dtype.hasobject else few.tobytes()


def _memory(value: Any) -> object:
    try:
        memory = memoryview(value)
    except (TypeError, ValueError):  # it was released, or closed
        return None
    return memory.nbytes, bytes(memory.cast("B")[: _N_ITEMS * 8]) if memory.contiguous else None


def _position(value: Any) -> object:
    kind: type = type(value)
    if not is_library_class(kind):
        return None
    with contextlib.suppress(OSError, ValueError):  # it is closed, a pipe, or in the midst of lines
        return value.tell()
    return None


#: What is asked of objects of Python's own kinds.
_KINDS: Final[Mapping[Any, Callable[[Any], object]]] = {
    np.ndarray: _of_array,
    (bytearray, array.array, mmap.mmap): _memory,
    (ctypes.Array, ctypes.Structure, ctypes._SimpleCData): _memory,
    SynchronizedBase: lambda value: _memory(SynchronizedBase.get_obj(value)),
    (io.BytesIO, io.StringIO, io.BufferedIOBase, io.RawIOBase, io.TextIOWrapper): _position,
    functools._lru_cache_wrapper: functools._lru_cache_wrapper.cache_info,
    sqlite3.Connection: sqlite3.Connection.total_changes.__get__,
}
