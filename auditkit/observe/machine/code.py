"""A user's program as code: import it, digest its own sources, name the commit they are at.

A program is a file or a module, with its neighbours within reach. Its own sources are every module
imported from outside site-packages. Of a repository only the commit is recorded: never a remote, a
branch or an author (double-blind).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from auditkit.errors import ProgramError, StoreError
from auditkit.files import store
from auditkit.records.manifest import CodeFile

_PACKAGE = Path(__file__).resolve().parents[2]
_GIT_SECONDS = 10


def import_file(filename: str, folder: Path | None) -> ModuleType:
    """Import ``FILE.py`` under its own name, anew.

    Raises:
        ProgramError: When there is no such file, or its name is another module's.
    """
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


def user_modules(*, main: bool = False) -> Iterator[tuple[str, Path]]:
    """Name below ``code/`` and path of every module of the program.

    A module ``a.b`` is named ``a/b.py`` (``a/b/__init__.py`` for a package), wherever it lies, so
    that it can be imported again from ``code/`` alone.

    Args:
        main: Whether the script that was started is one of them, under its file's name.
    """
    folders = _library_folders()
    # Each as it is written and as it resolves.
    library = tuple({f"{path}{os.sep}" for f in folders for path in (f, f.resolve())})
    for name, module in sorted(sys.modules.items()):
        # Its own dict: a lazy module would import what it is asked for.
        file = getattr(module, "__dict__", {}).get("__file__")
        # Thousands of modules are loaded; only the few that are left are looked up on disk.
        if not isinstance(file, str) or file.startswith(library):
            continue
        # multiprocessing gives the script a second name
        if name == "__mp_main__" or (name == "__main__" and not main):
            continue
        path = Path(file).resolve()
        if str(path).startswith(library):
            continue
        if name == "__main__":
            yield path.name, path
            continue
        relative = name.replace(".", "/")
        is_package = path.name.startswith("__init__.")
        yield (f"{relative}/{path.name}" if is_package else f"{relative}{path.suffix}"), path


def is_user_file(filename: str) -> bool:
    """Whether a source file is the user's: neither installed, nor Python's, nor auditkit's."""
    if filename.startswith("<"):
        return False
    folders = _library_folders()
    library = tuple({f"{path}{os.sep}" for f in folders for path in (f, f.resolve())})
    return not str(Path(filename).resolve()).startswith(library)


def user_code(
    copy_to: Path | None = None, suffix: str = "", *, main: bool = False
) -> tuple[CodeFile, ...]:
    """Digest the program's sources as they lie on disk now.

    Args:
        copy_to: Folder to copy them to, or None.
        suffix: Appended to the copies' names.
        main: Whether the script that was started is one of them.
    """
    files = []
    for name, path in sorted(dict(user_modules(main=main)).items()):
        try:
            data = store.read_bytes(path, what="source")
        except StoreError:
            continue  # a module made in memory, or deleted since: there is nothing to copy
        files.append(CodeFile(name, hashlib.sha256(data).hexdigest()))
        if copy_to is not None:
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
    """Folders of other people's code."""
    paths = sysconfig.get_paths()
    folders = [Path(paths[key]) for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    # A virtual environment's standard library lies in the base installation.
    folders.append(Path(sysconfig.__file__).parent)
    folders.append(_PACKAGE)
    found = map(Path, sys.path)
    folders.extend(path for path in found if path.name in ("site-packages", "dist-packages"))
    return folders
