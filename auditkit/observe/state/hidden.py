"""What a program's code keeps by itself, where no snapshot looks: named once a replica has drifted.

A counter in a module's global, in a class, a closure, a default or an attribute of a function, or
an iterator that an optimizer holds, is in no ``state_dict`` and no plain attribute of an object. It
is no fault by itself (a log, a cache), so nothing is refused for it; but where a replica is not
what its control is, what had moved after a few steps is where to look.
"""

from __future__ import annotations

import itertools
import operator
import sys
import types
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from torch import Tensor

from auditkit.formats.quote import printable
from auditkit.observe.state.frames import OWN_PACKAGE, local_names
from auditkit.observe.state.reach import is_library_class, is_library_module, reachable

_SCALARS = frozenset((bool, int, float, complex, str, bytes, type(None)))
_CONTAINERS = frozenset((list, tuple, set, frozenset, deque, dict, defaultdict, Counter))

#: Iterators that say where they stand.
_ITERATORS: Final[tuple[type[Any], ...]] = (
    types.GeneratorType,
    itertools.count,
    itertools.cycle,
    type(iter([])),
)

#: Items of a container or array that are compared, and containers in containers.
_N_ITEMS, _DEPTH = 200, 2

#: Things that are named, and characters of each name.
_MOST_NAMED, _MOST_SHOWN = 5, 80


class HiddenValues:
    """Values that the code of a program keeps, as they are when this is made.

    Args:
        roots: Objects and functions of the program by name, where the search begins.
        known: Objects that are not looked into, since they are registered.
    """

    def __init__(self, roots: Mapping[str, Any], known: Iterable[object] = ()) -> None:
        self._roots, self._known = roots, tuple(known)
        self._marks = self._look()

    def moved(self) -> tuple[str, ...]:
        """Paths of those that are others now; what is new counts, too."""
        now = self._look()
        found = (path for path, mark in now.items() if self._marks.get(path) != mark)
        return tuple(itertools.islice(found, _MOST_NAMED))

    def _look(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for path, value in reachable(self._roots, self._known):
            for name, item in _kept(path, value):
                mark = _mark(item)
                if mark is not None:
                    found.setdefault(printable(name)[:_MOST_SHOWN], mark)
        return found


def _kept(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What one object keeps where no snapshot looks."""
    if isinstance(value, _ITERATORS):
        yield path, value
    elif isinstance(value, types.FunctionType):
        yield from _of_function(path, value)
    elif not isinstance(value, type):
        for kind in type(value).__mro__:
            if _is_users(kind):
                own = ((name, item) for name, item in vars(kind).items() if name[:2] != "__")
                yield from ((f"{kind.__name__}.{name}", item) for name, item in own)
        if "'s " in path and _is_users(type(value)):
            attributes = getattr(value, "__dict__", {})
            yield from ((f"{path}.{name}", item) for name, item in attributes.items())


def _is_users(kind: type) -> bool:
    return kind.__module__.partition(".")[0] != OWN_PACKAGE and not is_library_class(kind)


def _of_function(path: str, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    if is_library_module(sys.modules.get(function.__module__ or "")):
        return
    code, name = function.__code__, function.__name__
    for variable in code.co_names:
        if variable in function.__globals__:
            yield f"{function.__module__}.{variable}", function.__globals__[variable]
    for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"{variable} of {path}", cell.cell_contents
        except ValueError:  # a cell that was never filled
            continue
    for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield f"a default of {name}", default
    yield from ((f"{name}.{key}", item) for key, item in vars(function).items())


def _mark(value: Any, depth: int = _DEPTH) -> object:
    """What a value is compared by; None where it is none that is compared."""
    if type(value) in _SCALARS:  # of others comparing may do anything
        return (type(value), value if value == value else None)  # noqa: PLR0124 # a NaN is not
    if isinstance(value, Tensor):
        return ("tensor", id(value), 0 if value.is_inference() else value._version)
    if isinstance(value, np.ndarray):
        return ("array", id(value), value.flat[:_N_ITEMS].tobytes())
    if isinstance(value, _ITERATORS):
        return _place(value, depth)
    if type(value) in _CONTAINERS and depth:
        items = value.items() if isinstance(value, dict) else value
        few = itertools.islice(items, _N_ITEMS)
        return (type(value).__name__, len(value), tuple(_mark(item, depth - 1) for item in few))
    return None


def _place(value: Any, depth: int) -> object:
    """Where an iterator stands."""
    if isinstance(value, types.GeneratorType):
        frame = value.gi_frame  # which is gone at its end
        return frame and (frame.f_lasti, _mark(local_names(frame), depth - 1))
    if isinstance(value, itertools.count):
        return repr(value)
    if not isinstance(value, itertools.cycle):
        return operator.length_hint(value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a later Python has no such method
        reduced: tuple[Any, ...] = getattr(value, "__reduce__", tuple)()
    return (repr(reduced[2]), operator.length_hint(reduced[1][0])) if len(reduced) == 3 else None
