"""Files of the modules that a process has loaded, looked at once.

There are thousands of modules, and most processes that ask for their files are forks: looking at
all of them again would copy the memory that forks share.
"""

from __future__ import annotations

import functools
import operator
import os
import sys
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, TypeVar

from auditkit.files import installed

_Found = TypeVar("_Found")


class LoadedFiles:
    """What was loaded since this was made.

    Attributes:
        started: Files of the modules that were there already.
        since: Files that came since, with the name of their module where there is one.
    """

    def __init__(self) -> None:
        #: In the order in which they came, and the name of the last one. They are held until the
        #: next look: another one that lay where one of them was could not be told from it.
        self._modules, self._last = [*sys.modules.values()], next(reversed(sys.modules))
        self.started, self.since = frozenset(module_files()), dict[str, str]()
        self._news: list[str] = []
        self._n_rounds = 0
        self._found: dict[str, tuple[tuple[int, int], Any]] = {}

    def look(self) -> bool:
        """Look at the modules that came since the last look.

        Returns:
            Whether these are all: where one is gone, or another one is in its place, everything is
            looked at anew.
        """
        modules = [*sys.modules.values()]
        known, self._modules = self._modules, modules
        new = modules[len(known) :]
        before, *names = [*islice(reversed(sys.modules), len(new) + 1)][::-1]
        last, self._last = self._last, names[-1] if names else before
        expected = [*known, *map(sys.modules.get, names)]
        are_same = len(modules) == len(expected) and all(map(operator.is_, modules, expected))
        if last == before and are_same:
            for name, module in zip(names, new, strict=True):
                self._add(name, file_of(module))
            return True
        self._n_rounds += 1
        files = module_files().items()
        self.since = {path: name for path, name in files if path not in self.started}
        return False

    def add_executed(self, paths: Iterable[str]) -> None:
        """Add files that were executed, whether or not there is a module of them."""
        for path in paths:
            self._news.append(path)
            if path not in self.started:
                self.since.setdefault(path, "")

    def _add(self, name: str, file: str | None) -> None:
        path = None if file is None else _code_file(file)
        self._news += filter(None, (file, path))
        if path is not None and path not in self.started:
            self.since[path] = min(name, self.since.get(path) or name)

    def find(
        self, what: str, search: Callable[[], _Found], is_nothing: Callable[[str], bool]
    ) -> _Found:
        """What a search finds; what it found before, where nothing has come that adds to it.

        A branch asks what the process has asked that it is a fork of.

        Args:
            what: Names the search.
            search: Looks at everything.
            is_nothing: Whether a file adds nothing to what is found.
        """
        now = self._n_rounds, len(self._news)
        (n_rounds, n_news), found = self._found.get(what, ((-1, 0), None))
        if n_rounds != now[0] or not all(map(is_nothing, self._news[n_news:])):
            found = search()
        self._found[what] = now, found
        result: _Found = found
        return result


def module_files() -> dict[str, str]:
    """File and name of every module that has one: no frozen, built-in or generated module has."""
    found: dict[str, str] = {}
    for name, module in sorted(sys.modules.copy().items()):
        file = file_of(module)
        if file is not None and (path := _code_file(file)) is not None:
            found.setdefault(path, name)
    return found


def file_of(module: object) -> str | None:
    """What a module says its file is; None where it says none."""
    # Its own dict: a lazy module would import what it is asked for.
    file = getattr(module, "__dict__", {}).get("__file__")
    return file if isinstance(file, str) else None


@functools.cache  # thousands of modules are asked for again at every job; a fork inherits this
def _code_file(file: str) -> str | None:
    return installed.code_file(file) if os.path.isabs(file) else None  # noqa: PTH117
