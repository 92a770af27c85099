"""The files that a program opened while it was built, by name, size and digest.

The place where data lie differs from machine to machine, so what lies below a folder that an
argument of the factory names is called by the argument. What code was made of is listed with the
code (:mod:`auditkit.observe.machine.code`) and is none of this, nor is what is installed.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from auditkit.errors import StoreError
from auditkit.files import installed
from auditkit.files.store import stream_sha256
from auditkit.formats.quote import escaped
from auditkit.formats.redaction import expand_home, redact_text
from auditkit.observe.machine.code import origin_of
from auditkit.observe.machine.imports import ImportWatch, current_watch
from auditkit.observe.machine.loaded import module_files
from auditkit.records.job import ProgramSource
from auditkit.records.opened import MAX_HASHED, MAX_OPENED, OWN, OpenedFile, OpenedFiles

#: What lies there says something of the machine, and is no file that anybody could pass on.
_SYSTEM = ("/dev/", "/etc/", "/proc/", "/sys/", "/usr/lib/", "/usr/share/")

#: Files in memory, where data are put to be read fast.
_MEMORY = "/dev/shm/"  # noqa: S108


@dataclass(frozen=True)
class _Place:
    """A folder or a file by the name that it has on every machine."""

    name: str
    path: str

    def name_of(self, path: str) -> str | None:
        """The name of what lies in it; None for what does not."""
        if path == self.path:
            return self.name
        if path.startswith(f"{self.path.rstrip(os.sep)}{os.sep}"):
            return f"{self.name}/{os.path.relpath(path, self.path)}"
        return None


def opened_files(arguments: Mapping[str, str], listed: Collection[str] = ()) -> OpenedFiles | None:
    """What the watched program opened while it was imported and its factory ran.

    Args:
        arguments: Of the factory.
        listed: Names below the program's folder that a recorded run opened. A replay's program
            lies elsewhere, so that what it finds by its working folder is looked for among them.

    Returns:
        The files; None where nothing was watched.
    """
    watch = current_watch()
    if watch is None:
        return None
    places = _places(arguments, watch.folder)
    named = {path: _name(path, places) for path in _data_files(watch)}
    others = {*listed} - {*named.values()}
    paths: dict[str, tuple[str, bool]] = {}
    for path, known in named.items():
        name = known or _listed_name(path, others)
        paths.setdefault(name or escaped(_redacted(path)), (path, name is not None))
    names = sorted(paths)
    # Small ones first: which files are hashed must not hang on where a large one stands.
    files, left = {}, MAX_HASHED
    for name in sorted(names[:MAX_OPENED], key=lambda name: (_size(paths[name][0]), name)):
        path, is_placed = paths[name]
        files[name] = _digested(name, path, left) if is_placed else _elsewhere(name)
        left -= files[name].size or 0
    return OpenedFiles(
        tuple(files[name] for name in names[:MAX_OPENED]), max(0, len(names) - MAX_OPENED)
    )


def changed_files(opened: OpenedFiles | None, source: ProgramSource) -> tuple[str, ...]:
    """Names of the files that lie there no longer as they were hashed.

    Args:
        opened: What a run of the program opened.
        source: The program.
    """
    if opened is None:
        return ()
    roots = {f"data/{name}": expand_home(value) for name, value in source.arguments.items()}
    roots[OWN] = source.folder
    found = []
    for name, sha256 in opened.hashed.items():
        root = max((r for r in roots if f"{name}/".startswith(f"{r}/")), key=len, default=None)
        if root is None or "\\" in name:  # escaped: another path
            continue
        path = Path(roots[root]) / name[len(root) :].lstrip("/")
        try:
            is_same = stream_sha256(path)[1] == sha256
        except StoreError:
            is_same = False
        if not is_same:
            found.append(name)
    return tuple(found)


def _data_files(watch: ImportWatch) -> list[str]:
    """What was opened and is neither code that ran, nor installed, nor the system's."""
    executed = {path for path, _ in watch.executed}
    sources = {path: _source_of(path) for path in list(watch.opens.opened)}
    found = [
        path
        for path, source in sources.items()
        if source not in executed
        and path not in watch.opens.cached
        and (not path.startswith(_SYSTEM) or path.startswith(_MEMORY))
        and not origin_of(source, imported_since=True).installed
    ]
    if not found:
        return []
    # Sources of tracebacks and warnings, archives: thousands of modules are looked at for them.
    code = {*module_files(), *map(installed.code_file, executed)}
    return [path for path in found if sources[path] not in code]


def _source_of(path: str) -> str:
    """The source of compiled code; anything else is its own."""
    if path.endswith(".pyc"):
        with suppress(ValueError, NotImplementedError):
            return importlib.util.source_from_cache(path)
    return path


def _places(arguments: Mapping[str, str], folder: Path) -> list[_Place]:
    """Where files have a name, as written and as links lead; the innermost folder first."""
    found = []
    for name, value in sorted(arguments.items()):
        with suppress(OSError, ValueError):  # an argument may be anything
            path = os.path.abspath(expand_home(value))  # noqa: PTH100 # links are kept
            if value and path != os.sep and os.path.exists(path):  # noqa: PTH110
                found += [_Place(f"data/{name}", path), _Place(f"data/{name}", _real(path))]
    found.sort(key=lambda place: -len(place.path))
    return [*found, _Place(OWN, str(folder)), _Place(OWN, _real(str(folder)))]


def _name(path: str, places: list[_Place]) -> str | None:
    for candidate in (path, _real(path)):
        for place in places:
            name = place.name_of(candidate)
            if name is not None:
                return escaped(name)
    return None


def _listed_name(path: str, listed: Collection[str]) -> str | None:
    """The longest listed name that the path of a file below the working folder ends with."""
    with suppress(OSError, ValueError):  # there may be no working folder, and it need not lie there
        parts = Path(path).relative_to(Path.cwd()).parts if listed else ()
        names = (escaped("/".join((OWN, *parts[n:]))) for n in range(len(parts)))
        return next((name for name in names if name in listed), None)
    return None


def _redacted(path: str) -> str:
    """A path that names no user, also where the home folder is a link."""
    home = _real(str(Path.home()))
    if len(home) > 1 and path.startswith(f"{home}{os.sep}"):
        return f"~{path[len(home) :]}"
    return redact_text(path)


def _digested(name: str, path: str, left: int) -> OpenedFile:
    try:
        if installed.file_size(path) > left:
            return OpenedFile(name, None, None, "too much")
        size, sha256 = stream_sha256(path)
    except StoreError:
        return OpenedFile(name, None, None, "not read")
    return OpenedFile(name, size, sha256)


def _elsewhere(name: str) -> OpenedFile:
    return OpenedFile(name, None, None, "elsewhere")


def _size(path: str) -> int:
    try:
        return installed.file_size(path)
    except StoreError:
        return 0


def _real(path: str) -> str:
    return os.path.realpath(path)
