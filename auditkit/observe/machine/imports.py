"""Import a user's program: a file or a module, with its neighbours within reach."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from auditkit.errors import ProgramError


def import_file(place: str, folder: Path | None) -> ModuleType:
    """Import ``FILE.py`` under its own name, anew.

    Raises:
        ProgramError: When there is no such file, or its name is another module's.
    """
    path = (folder or Path.cwd()) / place
    if not path.is_file():
        raise ProgramError(f"no such program file: {place}")
    _refuse_taken(path)
    _put_first(path.resolve().parent)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ProgramError(f"{place} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # data sets are looked up by module name in loader workers
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _refuse_taken(path: Path) -> None:
    # Under the name of another module it would take that module's place for everybody.
    holder = sys.modules.get(path.stem)
    file = getattr(holder, "__file__", None)
    same = isinstance(file, str) and Path(file).resolve() == path.resolve()
    if (holder is not None and not same) or path.stem in sys.stdlib_module_names:
        raise ProgramError(
            f"a program cannot be called {path.name}: there is a module of that name",
            hint="rename the file",
        )


def _put_first(folder: Path) -> None:
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))


def import_module(place: str, folder: Path | None) -> ModuleType:
    """Import ``package.module``.

    Raises:
        ProgramError: When there is no such module.
    """
    _put_first((folder or Path.cwd()).resolve())
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and f"{place}.".startswith(f"{error.name}."):
            raise ProgramError(
                f"no such module: {place}", hint="give FILE.py:NAME or package.module:NAME"
            ) from error
        raise
