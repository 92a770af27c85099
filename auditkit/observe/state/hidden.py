"""What a program's code keeps by itself, where no snapshot looks: named once a replica has drifted.

A counter in a module's global, in a class, a slot, a closure, a default or an attribute of a
function, an environment variable, a second model or an iterator that an optimizer holds, is in no
``state_dict`` and no plain attribute of an object. It is no fault by itself (a log, a cache), so
nothing is refused for it; but where a replica is not what its control is, what had moved while the
control was trained is where to look.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from auditkit.formats.quote import printable
from auditkit.observe.state.frames import OWN_PACKAGE
from auditkit.observe.state.marks import Marks, is_iterator
from auditkit.observe.state.reach import is_library_class, is_library_module, reachable
from auditkit.observe.values.own_attributes import own_dict, own_slots

#: Things that are named, and characters of each name.
_MOST_NAMED, _MOST_SHOWN = 5, 80


class HiddenValues:
    """Values that the code of a program keeps, as they are when this is made.

    Args:
        roots: Objects and functions of the program by name, where the search begins.
        known: Objects that are not looked into, since they are registered.
        registered: Modules that have components: they move, and are no news.
    """

    def __init__(
        self,
        roots: Mapping[str, Any],
        known: Iterable[object] = (),
        registered: Iterable[nn.Module] = (),
    ) -> None:
        self._roots, self._known = roots, tuple(known)
        self._registered = frozenset(
            id(one)
            for module in registered
            for one in (*module.modules(), *module.parameters(), *module.buffers())
        )
        self._marks = self._look()

    def moved(self) -> tuple[str, ...]:
        """Paths of those that are others now; what is new counts, too."""
        now = self._look()
        found = (path for path, mark in now.items() if self._marks.get(path) != mark)
        return tuple(itertools.islice(found, _MOST_NAMED))

    def _look(self) -> dict[str, object]:
        found: dict[str, object] = {
            f"os.environ[{name!r}]": os.environ[name] for name in os.environ
        }
        marks, seen = Marks(self._registered), set[int]()
        for path, value in reachable(self._roots, self._known):
            for name, item in _kept(path, value):
                mark = marks.of(item)
                if mark is None or (id(item) in seen and _is_one_thing(item)):
                    continue
                seen.add(id(item))
                found.setdefault(printable(name)[:_MOST_SHOWN], mark)
        return found


def _kept(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What one object keeps where no snapshot looks."""
    if _is_one_thing(value):
        yield path, value
    elif type(value) is types.FunctionType:
        yield from _of_function(path, value)
    elif not issubclass(type(value), type):
        yield from _of_class(type(value))
        if _is_users(type(value)):
            yield from ((f"{path}.{name}", item) for name, item in own_slots(value))
        if issubclass(type(value), nn.Module):
            yield f"the class of {path}", type(value).__qualname__
        elif "'s " in path and _is_users(type(value)):
            attributes = [*own_dict(value).items()]
            yield from ((f"{path}.{name}", item) for name, item in attributes)


def _is_one_thing(value: object) -> bool:
    """Whether it is compared by itself, by whichever name it is met first."""
    return is_iterator(value) or type(value) is functools._lru_cache_wrapper


def _of_class(cls: type) -> Iterator[tuple[str, Any]]:
    for kind in cls.__mro__:
        if _is_users(kind):
            own = [(name, item) for name, item in vars(kind).items() if name[:2] != "__"]
            yield from ((f"{kind.__name__}.{name}", item) for name, item in own)


def _is_users(kind: type) -> bool:
    return kind.__module__.partition(".")[0] != OWN_PACKAGE and not is_library_class(kind)


def _of_function(path: str, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    if is_library_module(sys.modules.get(function.__module__ or "")):
        return
    code, name = function.__code__, function.__name__
    for variable in code.co_names:
        if variable in function.__globals__:
            value = function.__globals__[variable]
            yield f"{function.__module__}.{variable}", value
            if issubclass(type(value), type):
                yield from _of_class(value)
    for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"{variable} of {path}", cell.cell_contents
        except ValueError:  # a cell that was never filled
            continue
    for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield f"a default of {name}", default
    yield from ((f"{name}.{key}", item) for key, item in vars(function).items())
