"""A user's program as code: import it, digest its own sources, name the commit they are at.

A program is a file or a module, with its neighbours within reach. Its own sources are every module
that is neither Python's nor in the RECORD of an installed distribution. Of a repository only the
commit is recorded: never a remote, a branch or an author (double-blind).
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from auditkit.errors import ProgramError, StoreError, UncapturedState
from auditkit.files import installed, store
from auditkit.formats.quote import as_utf8
from auditkit.observe.machine.imports import ImportWatch, current_watch
from auditkit.observe.machine.loaded import file_of, module_files
from auditkit.records.manifest import CodeFile

_GIT_SECONDS = 10


def import_file(filename: str, folder: Path | None) -> ModuleType:
    """Import ``FILE.py`` under its own name, anew.

    Raises:
        ProgramError: When there is no such file, its name leads out of the folder, or it is
            another module's.
    """
    _refuse_path(filename)
    path = (folder or Path.cwd()) / filename
    if not path.is_file():
        raise ProgramError(f"no such program file: {filename}")
    _refuse_name_clash(path)
    _prepend_to_path(path.resolve().parent)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ProgramError(f"{filename} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # data sets are looked up by module name in loader workers
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _refuse_path(filename: str) -> None:
    # The name below code/ is made of the module's name, so a dot would make a folder of it.
    path = Path(filename)
    if path.is_absolute() or ".." in path.parts or "." in path.stem:
        raise ProgramError(
            f"{filename}: a program is named by its file below its folder",
            hint="give a name such as train.py: relative, without '..', with one dot",
        )


def _refuse_name_clash(path: Path) -> None:
    # Under the name of another module it would take that module's place for everybody.
    existing = sys.modules.get(path.stem)
    file = getattr(existing, "__file__", None)
    same = isinstance(file, str) and Path(file).resolve() == path.resolve()
    if (existing is not None and not same) or path.stem in sys.stdlib_module_names:
        raise ProgramError(
            f"a program cannot be called {path.name}: there is a module of that name",
            hint="rename the file",
        )


def _prepend_to_path(folder: Path) -> None:
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))


def import_module(name: str, folder: Path | None) -> ModuleType:
    """Import ``package.module``.

    Raises:
        ProgramError: When there is no such module.
    """
    _prepend_to_path((folder or Path.cwd()).resolve())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise ProgramError(
                f"no such module: {name}", hint="give FILE.py:NAME or package.module:NAME"
            ) from error
        raise


def user_modules(*, main: bool = False) -> tuple[tuple[str, Path], ...]:
    """Name below ``code/`` and path of every module of the program.

    A module ``a.b`` is named ``a/b.py`` (``a/b/__init__.py`` for a package), wherever it lies, so
    that it can be imported again from ``code/`` alone. What was executed without being a module is
    named by where it lies below the program's folder.

    Args:
        main: Whether the script that was started is one of them, under its file's name.
    """
    watch = current_watch()
    if watch is None:
        return tuple(_user_modules(None, main=main))
    return watch.find(
        f"modules {main}", lambda: tuple(_user_modules(watch, main=main)), _adds_nothing
    )


def _user_modules(watch: ImportWatch | None, *, main: bool) -> Iterator[tuple[str, Path]]:
    executed = {} if watch is None else {**watch.since()}
    target = None if watch is None else watch.target
    for name, file in sorted(_possible_modules(target, executed)):
        # multiprocessing gives the script a second name
        if name == "__mp_main__" or (name == "__main__" and not main):
            continue
        if name != target and origin_of(file, imported_since=file in executed).installed:
            continue
        path = Path(file).resolve()
        executed.pop(file, None)
        if name == "__main__":
            yield path.name, path
            continue
        relative = name.replace(".", "/")
        is_package = path.name.startswith("__init__.")
        yield (f"{relative}/{path.name}" if is_package else f"{relative}{path.suffix}"), path
    for file in (file for file, name in executed.items() if not name):
        path = Path(file).resolve()
        if watch and path.is_relative_to(watch.folder) and not _is_library(file):
            yield path.relative_to(watch.folder).as_posix(), path


def _possible_modules(target: str | None, executed: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """All but those that a library has had from the start; RECORD is not asked of thousands."""
    library = _library_prefixes()
    for name, module in sys.modules.copy().items():
        file = file_of(module)
        if file is not None and (
            not file.startswith(library) or file in executed or name == target
        ):
            yield name, file


def is_user_file(filename: str) -> bool:
    """Whether a source file is the user's: neither installed, nor Python's, nor auditkit's."""
    return not filename.startswith("<") and not _is_library(filename)


def _is_library(filename: str) -> bool:
    return origin_of(filename, imported_since=False).installed


@dataclass(frozen=True)
class Origin:
    """Where a file of code comes from.

    Attributes:
        installed: Whether it is not recorded in ``code/``, since a reviewer installs it.
        note: What a reviewer would miss all the same, or None.
    """

    installed: bool
    note: str | None = None


_LIBRARY, _OWN = Origin(True), Origin(False)


def origin_of(file: str, *, imported_since: bool) -> Origin:
    """Where a file comes from, by what the interpreter and RECORD say, not by a folder's name.

    Args:
        file: Its path.
        imported_since: Whether it was imported by the program, and not before it. Of what was
            imported before, auditkit and what it imports, RECORD is not asked.
    """
    found = _origin_of(file, imported_since)
    if not found.installed:  # thousands are; only the few that are left are looked up on disk
        resolved = str(Path(file).resolve())
        behind = _origin_of(resolved, imported_since) if resolved != file else found
        return behind if behind.installed or found.note is None else found
    return found


def _origin_of(path: str, imported_since: bool) -> Origin:  # internal
    if path.startswith(tuple(f"{folder}{os.sep}" for folder in _library_folders())):
        return _LIBRARY
    if _distributions().root_of(path) is not None:
        if not imported_since or _distributions().find(path) is not None:
            return _LIBRARY
        return Origin(False, "lies among installed distributions, and no RECORD names it")
    if installed.is_standard(path):
        return _LIBRARY
    folder = installed.look_alike(path)
    return _OWN if folder is None else _look_alike(path, folder)


def _look_alike(path: str, folder: Path) -> Origin:
    recorded = _distributions(folder).find(path)
    text = "comes from a folder that this interpreter does not install into"
    if recorded is None:
        return Origin(False, text)
    return Origin(True, f"{text}; a reviewer must have {recorded.distribution} installed")


def _library_prefixes() -> tuple[str, ...]:
    folders = [*map(str, installed.site_folders()), *map(str, _library_folders())]
    return tuple(f"{folder}{os.sep}" for folder in folders)


@functools.cache
def _distributions(*roots: Path) -> installed.Distributions:
    return installed.Distributions(roots or None)


def warm_up() -> None:
    """Look up what every process asks: torch's RECORD is long, and modules are many."""
    module_files()
    torch = sys.modules.get("torch")
    if torch is not None and torch.__file__:
        origin_of(torch.__file__, imported_since=True)


def _adds_nothing(file: str) -> bool:
    """Whether neither a module of the program nor a note comes of a file that was imported."""
    return origin_of(file, imported_since=True) == _LIBRARY


def import_notes() -> tuple[str, ...]:
    """What a reviewer would miss, or find elsewhere, of what the program imported."""
    watch = current_watch()
    if watch is None:
        return ()
    return watch.find("notes", lambda: tuple(_import_notes(watch)), _adds_nothing)


def _import_notes(watch: ImportWatch) -> dict[str, None]:
    recorded = {str(path) for _, path in user_modules()}
    editable: dict[str, str] | None = None
    found: dict[str, None] = {}
    # In the order of their names, and then of what has none: as it was executed.
    for file, module in sorted(watch.since().items(), key=lambda each: (not each[1], each[1])):
        origin = origin_of(file, imported_since=True)
        if origin == _LIBRARY:  # thousands are
            continue
        path = str(Path(file).resolve())
        name = module.partition(".")[0] or Path(file).name
        if origin.note is not None:
            kept = "" if origin.installed else "; it is recorded in code/"
            found[f"{name} {origin.note}{kept}"] = None
        elif not origin.installed and path not in recorded:
            found[f"{name} was executed, and is not recorded: import it as a module"] = None
        elif not origin.installed and not path.startswith(f"{watch.folder}{os.sep}"):
            editable = _distributions().editable_folders() if editable is None else editable
            for folder, distribution in editable.items():
                if path.startswith(f"{folder}{os.sep}"):
                    text = f"comes from {distribution}, installed in editable mode"
                    found[f"{name} {text}; it is recorded in code/"] = None
    return found


def user_code(
    copy_to: Path | None = None,
    suffix: str = "",
    *,
    main: bool = False,
    known: Iterable[CodeFile] = (),
) -> tuple[CodeFile, ...]:
    """Digest the program's sources as they lie on disk now.

    Args:
        copy_to: Folder to copy them to, or None.
        suffix: Appended to the copies' names.
        main: Whether the script that was started is one of them.
        known: Sources that are not copied where they have become others.

    Raises:
        UncapturedState: When one has a name that no manifest holds.
    """
    files, expected = [], {file.name: file.sha256 for file in known}
    for name, path in sorted(dict(user_modules(main=main)).items()):
        try:
            data = store.read_bytes(path, what="source")
        except StoreError:
            continue  # a module made in memory, or deleted since: there is nothing to copy
        if as_utf8(name) != name:
            raise UncapturedState(
                f"the source {as_utf8(name)} has a name that is no UTF-8", hint="rename it"
            )
        files.append(CodeFile(name, sha256 := hashlib.sha256(data).hexdigest()))
        if copy_to is not None and expected.get(name, sha256) == sha256:
            target = copy_to / f"{name}{suffix}"
            store.make_folder(target.parent)
            store.write_bytes(target, data)
    return tuple(files)


def git_state(folder: Path, program: str) -> tuple[str | None, bool | None]:
    """Commit of the folder, and whether it is what ran.

    Args:
        folder: The program's folder.
        program: Its file there, which counts as a change where git does not track it.

    Returns:
        ``(None, None)`` outside a repository, before its first commit, or without git.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    untracked = _git(folder, "ls-files", "--error-unmatch", "--", program) is None
    return commit.strip(), None if changes is None else untracked or bool(changes.strip())


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(  # noqa: S603 # a fixed command, no shell
            command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _library_folders() -> list[Path]:
    """Further folders of other people's code."""
    return [installed.PACKAGE]
