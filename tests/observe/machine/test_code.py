from __future__ import annotations

import hashlib
import importlib
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from auditkit.observe.machine.code import user_code, user_modules


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A program of one module and one package, imported."""
    folder = tmp_path / "work"
    (folder / "own_package" / "inner").mkdir(parents=True)
    (folder / "own_program.py").write_text("import own_package.inner.deep\n")
    for name in ("own_package/__init__.py", "own_package/inner/__init__.py"):
        (folder / name).write_text(f"# {name}\n")
    (folder / "own_package" / "inner" / "deep.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(folder)
    importlib.import_module("own_program")
    yield folder
    for name in [n for n in sys.modules if n.startswith("own_")]:
        del sys.modules[name]


def test_modules_of_the_program_are_found(program: Path) -> None:
    found = {name: path for name, path in user_modules() if name.startswith("own_")}
    assert found == {
        "own_package/__init__.py": program / "own_package" / "__init__.py",
        "own_package/inner/__init__.py": program / "own_package" / "inner" / "__init__.py",
        "own_package/inner/deep.py": program / "own_package" / "inner" / "deep.py",
        "own_program.py": program / "own_program.py",
    }


def test_installed_modules_and_pythons_own_are_not() -> None:
    names = [name for name, _ in user_modules()]
    roots = {name.partition("/")[0].removesuffix(".py") for name in names}
    assert not roots & {"torch", "numpy", "auditkit", "json", "pytest", "_pytest", "os"}


def test_files_are_digested_and_copied(program: Path, tmp_path: Path) -> None:
    target = tmp_path / "code"
    found = [file for file in user_code(target, ".partial") if file.name.startswith("own_")]
    assert [file.name for file in found] == sorted(file.name for file in found)
    for file in found:
        source = (program / file.name).read_bytes()
        assert file.sha256 == hashlib.sha256(source).hexdigest()
        assert (target / f"{file.name}.partial").read_bytes() == source
    assert {file.name for file in user_code()} >= {file.name for file in found}


def test_a_source_that_has_become_another_is_told_and_not_copied(
    program: Path, tmp_path: Path
) -> None:
    target, name = tmp_path / "code", "own_program.py"
    before = [file for file in user_code(target) if file.name == name]
    kept = (target / name).read_bytes()
    (program / name).write_text("# another\n")
    (now,) = (file for file in user_code(target, known=before) if file.name == name)
    assert now.sha256 == hashlib.sha256(b"# another\n").hexdigest()
    assert (target / name).read_bytes() == kept
    user_code(target)
    assert (target / name).read_bytes() == b"# another\n"


def test_links_are_followed(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "link"
    link.symlink_to(program)
    monkeypatch.setattr(sys.modules["own_program"], "__file__", str(link / "own_program.py"))
    assert dict(user_modules())["own_program.py"] == program / "own_program.py"


def test_odd_modules_do_no_harm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Lazy(types.ModuleType):
        __file__ = "_lazy.py"

        def __getattr__(self, name: str) -> object:
            raise RuntimeError("asked")

    vanished = types.ModuleType("own_vanished")
    vanished.__file__ = str(tmp_path / "own_vanished.py")
    nameless = types.ModuleType("own_nameless")
    nameless.__file__ = None
    odd = {"own_lazy": Lazy("own_lazy"), "own_vanished": vanished, "own_nameless": nameless}
    for name, module in odd.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "own_none", None)
    assert not [file for file in user_code() if file.name.startswith("own_")]


def test_it_takes_milliseconds() -> None:
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        list(user_modules())
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.1
