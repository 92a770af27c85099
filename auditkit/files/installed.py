"""What is installed in this interpreter, and what the RECORD of a distribution says of a file.

A folder is one of installed distributions by what the interpreter says, never by its name: any
folder can be called ``site-packages``. A distribution's RECORD is read at most once, and only when
a file that may be its own is asked for.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import functools
import hashlib
import json
import os
import re
import site
import sys
import sysconfig
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from auditkit.errors import StoreError
from auditkit.files.store import read_bytes

#: Larger files are held to the size that RECORD gives, not to the digest: hashing takes seconds.
MAX_HASHED_BYTES = 2**28

PACKAGE = Path(__file__).resolve().parents[1]

_SITE_NAMES = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class InstalledFile:
    """What a distribution says of one of its files.

    Attributes:
        distribution: Its name and version.
        digest: ``ALGORITHM=DIGEST`` as RECORD has it; None where it has none.
        size: Bytes, where RECORD says.
        recorded: Whether the distribution has a RECORD.
    """

    distribution: str
    digest: str | None = None
    size: int | None = None
    recorded: bool = True


@dataclass
class _Distribution:
    """One ``.dist-info`` or ``.egg-info``, read when it is needed."""

    root: str
    info: Path
    #: Digest and size as they are written, by path: thousands, of which few are asked for.
    _files: dict[str, tuple[str, str]] | None = field(default=None, init=False)

    @functools.cached_property
    def name(self) -> str:
        """Name and version, as its folder is called."""
        stem = self.info.name.rpartition(".")[0]
        name, _, version = stem.partition("-")
        return f"{name} {version.partition('-')[0]}".strip()

    def find(self, path: str) -> InstalledFile | None:
        """What it says of a file below its root."""
        if self._files is None:
            self._files = dict(self._record())
        if not self._files:
            return InstalledFile(self.name, recorded=False) if self._claims(path) else None
        if path not in self._files:
            return None
        digest, size = self._files[path]
        known = int(size) if size.isascii() and size.isdecimal() else None
        return InstalledFile(self.name, digest or None, known)

    def editable_folder(self) -> str | None:
        """The folder that it is installed from in editable mode, or None."""
        try:
            url = json.loads(read_bytes(self.info / "direct_url.json"))
            if not url["dir_info"]["editable"]:
                return None
            return os.path.realpath(unquote(urlsplit(url["url"]).path))
        except (StoreError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _record(self) -> Iterator[tuple[str, tuple[str, str]]]:
        if not self.info.name.endswith(".dist-info"):
            return
        try:
            lines = read_bytes(self.info / "RECORD").decode("utf-8", "replace").splitlines()
            for name, digest, size, *_ in csv.reader(line for line in lines if line.count(",") > 1):
                path = f"{self.root}/{name}"
                if ".." in name or "//" in name:
                    path = os.path.normpath(path)
                yield path, (digest, size)
        except (StoreError, csv.Error):
            return

    def _claims(self, path: str) -> bool:
        """Whether a file can be one of a distribution that lists none, by its first name."""
        first = os.path.relpath(path, self.root).partition(os.sep)[0].partition(".")[0]
        names = [self.name.partition(" ")[0]]
        with contextlib.suppress(StoreError):
            names += read_bytes(self.info / "top_level.txt").decode("utf-8", "replace").split()
        return _normalised(first) in map(_normalised, names)


class Distributions:
    """The distributions below some folders.

    Args:
        roots: The folders; by default those that this interpreter installs into.
    """

    def __init__(self, roots: Sequence[Path] | None = None) -> None:
        found = site_folders() if roots is None else roots
        both = (path for root in found for path in (root, root.resolve()))
        self._roots = [str(path) for path in dict.fromkeys(both)]
        self._listed: dict[str, list[_Distribution]] = {}
        self._named: dict[tuple[str, str], list[_Distribution]] = {}
        self._found: dict[str, InstalledFile | None] = {}
        self._lock = threading.Lock()

    def root_of(self, path: str) -> str | None:
        """The folder of distributions that a file lies below, or None."""
        return next((root for root in self._roots if path.startswith(f"{root}{os.sep}")), None)

    def find(self, path: str) -> InstalledFile | None:
        """What a distribution says of a file; None where none names it.

        Args:
            path: Its absolute path, straightened.
        """
        if path not in self._found:
            self._found[path] = self._look_up(path)
        return self._found[path]

    def _look_up(self, path: str) -> InstalledFile | None:
        root = self.root_of(path)
        if root is None:
            return None
        first = _normalised(path[len(root) + 1 :].partition(os.sep)[0].partition(".")[0])
        with self._lock:
            # A distribution is mostly named like its package; any other may have it, too.
            below = self._below(root)
            if (root, first) not in self._named:
                named = [d for d in below if _normalised(d.name).startswith(first)]
                self._named[root, first] = named
            unlisted = None
            for distribution in (*self._named[root, first], *below):
                found = distribution.find(path)
                if found is not None and found.recorded:
                    return found
                unlisted = unlisted or found
        return unlisted

    def editable_folders(self) -> dict[str, str]:
        """Folders that distributions are installed from in editable mode, with their names."""
        found = {}
        for root in self._roots:
            for distribution in self._below(root):
                folder = distribution.editable_folder()
                if folder is not None:
                    found[folder] = distribution.name
        return found

    def _below(self, root: str) -> list[_Distribution]:
        if root not in self._listed:
            try:
                infos = sorted(p for p in Path(root).iterdir() if p.name.endswith("-info"))
            except OSError:
                infos = []
            self._listed[root] = [
                _Distribution(root, info)
                for info in infos
                if info.name.endswith((".dist-info", ".egg-info"))
            ]
        return self._listed[root]


@functools.cache
def site_folders() -> tuple[Path, ...]:
    """Folders that this interpreter's distributions are installed into; the user's own are not."""
    paths = sysconfig.get_paths()
    found = [paths["purelib"], paths["platlib"], *site.getsitepackages()]
    return tuple(Path(os.path.normpath(path)) for path in dict.fromkeys(found))


@functools.cache
def standard_folders() -> tuple[str, ...]:
    """Folders (and the archive) of the standard library, as written and as they resolve."""
    paths = sysconfig.get_paths()
    # A virtual environment's standard library lies in the base installation.
    folders = [Path(paths["stdlib"]), Path(paths["platstdlib"]), Path(sysconfig.__file__).parent]
    version = f"{sys.version_info.major}{sys.version_info.minor}"
    folders += [Path(sys.base_prefix, "lib", f"python{version}.zip")]
    return tuple({str(path) for folder in folders for path in (folder, folder.resolve())})


def is_standard(path: str) -> bool:
    """Whether a file is the standard library's; the distributions below it are not."""
    for folder in standard_folders():
        if path == folder:
            return True
        if path.startswith(f"{folder}{os.sep}"):
            first = path[len(folder) + 1 :].partition(os.sep)[0]
            return first not in _SITE_NAMES
    return False


def look_alike(path: str) -> Path | None:
    """The folder called like one of installed distributions that a file lies below, or None."""
    if not any(name in path for name in _SITE_NAMES):  # thousands are asked for
        return None
    return next((folder for folder in Path(path).parents if folder.name in _SITE_NAMES), None)


@functools.cache
def code_file(path: str) -> str:
    """The file that code came from: of a module in an archive, the archive."""
    straight = os.path.abspath(path)  # noqa: PTH100 # links are kept: RECORD names them
    if os.path.isfile(straight):  # noqa: PTH113 # thousands
        return straight
    for folder in Path(straight).parents:
        if folder.is_file():
            return str(folder) if zipfile.is_zipfile(folder) else straight
    return straight


def is_as_recorded(path: str, recorded: InstalledFile) -> bool:
    """Whether a file is what its distribution's RECORD says of it.

    Raises:
        StoreError: When it cannot be read.
    """
    if recorded.size is not None and recorded.size != file_size(path):
        return False
    if recorded.digest is None or (recorded.size or 0) > MAX_HASHED_BYTES:
        return True
    algorithm, _, digest = recorded.digest.partition("=")
    if algorithm not in hashlib.algorithms_guaranteed or algorithm.startswith("shake"):
        return False
    found = hashlib.new(algorithm, read_bytes(path, what="an installed file")).digest()
    return base64.urlsafe_b64encode(found).rstrip(b"=").decode() == digest.rstrip("=")


def file_size(path: str) -> int:
    """Bytes of a file.

    Raises:
        StoreError: When there is none.
    """
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise StoreError(f"cannot be read: {error.strerror}", where=path) from error


@functools.lru_cache(maxsize=4096)
def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()
