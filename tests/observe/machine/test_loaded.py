"""What a process has loaded is looked at once, and found as if everything were looked at."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from auditkit.observe.machine import code, loaded
from auditkit.observe.machine.code import import_notes, user_modules
from auditkit.observe.machine.imports import watched_imports
from auditkit.observe.machine.loaded import LoadedFiles, module_files

Modules = dict[str, ModuleType]


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Modules:
    """All modules that there are."""
    found = {"old": _module("/lib/old.py")}
    monkeypatch.setattr(loaded, "sys", SimpleNamespace(modules=found))
    return found


def _module(file: str | None) -> ModuleType:
    module = ModuleType("any")
    module.__file__ = file
    return module


@pytest.mark.parametrize("seed", range(40))
def test_what_is_found_piece_by_piece_is_what_is_found_at_once(modules: Modules, seed: int) -> None:
    draw, files = random.Random(seed), LoadedFiles()
    executed, n_told = list[str](), 0
    for _ in range(60):
        name, file = draw.choice("abcdefgh"), f"/own/{draw.choice('123456')}.py"
        act = draw.choices(["load", "delete", "execute", "look"], [4, 1, 2, 4])[0]
        if act == "load":  # in the place of another one where there is one of the name
            modules[name] = _module(draw.choice([file, file, "own/relative.py", None]))
        elif act == "delete":
            modules.pop(name, None)
        elif act == "execute":
            executed.append(file)
        else:
            n_told = n_told if files.look() else 0
            files.add_executed(executed[n_told:])
            n_told = len(executed)
            expected = dict.fromkeys(executed, "") | module_files()
            assert files.since == {path: expected[path] for path in {*expected} - files.started}
    assert files.started == {"/lib/old.py"}


def test_a_search_is_repeated_where_something_came_that_adds_to_it(modules: Modules) -> None:
    files, searches = LoadedFiles(), list[int]()

    def n_searches() -> int:
        files.look()
        files.find("it", lambda: searches.append(1), lambda file: file.startswith("/lib/"))
        return len(searches)

    assert [n_searches(), n_searches()] == [1, 1]
    modules["library"] = _module("/lib/new.py")
    files.add_executed(["/lib/new.py"])
    modules["without"] = _module(None)
    assert n_searches() == 1
    modules["program"] = _module("/own/program.py")
    assert [n_searches(), n_searches()] == [2, 2]
    files.add_executed(["/own/script.py"])
    assert [n_searches(), n_searches()] == [3, 3]
    modules["old"] = _module("/lib/old.py")  # another one in its place
    assert [n_searches(), n_searches()] == [4, 4]
    modules["renamed"] = modules.pop("program")
    assert [n_searches(), n_searches()] == [5, 5]
    del modules["renamed"]
    assert [n_searches(), n_searches()] == [6, 6]


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was searched for, in the order in which it was."""
    found, user_modules, import_notes = list[str](), code._user_modules, code._import_notes

    def searching_modules(*watch: Any, main: bool) -> Iterator[tuple[str, Path]]:
        found.append("modules")
        return user_modules(*watch, main=main)

    def searching_notes(watch: Any) -> dict[str, None]:
        found.append("notes")
        return import_notes(watch)

    monkeypatch.setattr(code, "_user_modules", searching_modules)
    monkeypatch.setattr(code, "_import_notes", searching_notes)
    yield found
    sys.modules.pop("loaded_late", None)


def test_a_library_that_is_loaded_late_makes_nobody_look_at_all_modules(
    search: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watched_imports(tmp_path, "study.py"):
        before = import_notes(), user_modules()
        assert search == ["notes", "modules"]
        library = str(Path(os.__file__).with_name("loaded_late.py"))
        monkeypatch.setitem(sys.modules, "loaded_library", _module(library))
        assert (import_notes(), user_modules()) == before
        assert search == ["notes", "modules"]
        (tmp_path / "loaded_late.py").write_text("X = 1\n")
        monkeypatch.syspath_prepend(tmp_path)
        __import__("loaded_late")
        assert ("loaded_late.py", tmp_path / "loaded_late.py") in user_modules()
        assert search == ["notes", "modules", "modules"]


def test_what_a_fork_executes_is_seen_once_it_has(tmp_path: Path) -> None:
    path = tmp_path / "told.py"
    path.write_text("X = 1\n")
    with watched_imports(tmp_path, "study.py") as watch:
        assert str(path) not in watch.since()
        if (pid := os.fork()) == 0:
            watch.execute(str(path))
            os._exit(0)
        os.waitpid(pid, 0)
        assert watch.since()[str(path)] == ""
        assert str(path) in watch.files().digests
