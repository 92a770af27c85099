"""Folders behind a URL: object stores and servers, by fsspec, which knows what ``s3://`` is.

A run is moved there whole: every file is put, read back and compared by SHA-256, the manifest last
and under another name until then. A killed upload leaves no manifest; it is begun anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import fsspec

from auditkit.errors import ArtifactMismatch, AuditError, StoreError
from auditkit.files import artifacts, store
from auditkit.files.own_cache import cache_folder
from auditkit.formats.quote import clipped, printable
from auditkit.records.manifest import MANIFEST_NAME

_URL = re.compile(r"[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://.+", re.IGNORECASE)

#: Most files that are taken from somebody else's folder.
_MOST_FILES = 100_000


def is_url(text: str) -> bool:
    """Whether a place is named by a URL, and not by a path."""
    return _URL.fullmatch(text) is not None


class FarFolder:
    """A folder behind a URL.

    Args:
        url: The URL.

    Raises:
        StoreError: When nothing is known of such a place, or it cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._made: set[str] = set()
        with _told(self.url):
            self._system, self._root = fsspec.core.url_to_fs(self.url)

    @property
    def staging(self) -> Path:
        """Folder of this machine in which a run is built before it is moved there."""
        name = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        return cache_folder() / "staging" / name

    def require_free(self) -> None:
        """Require that no run lies there.

        Raises:
            StoreError: When one does.
        """
        with _told(self.url):
            taken = self._system.exists(self._path(MANIFEST_NAME))
        if taken:
            raise StoreError(
                "the folder holds a finished run", where=self.url, hint="give another --out"
            )

    def require_no_others(self, names: Collection[str] = ()) -> None:
        """Require that nothing lies there but files of these names.

        Raises:
            StoreError: Naming a file that does, as of another run's upload that was killed.
        """
        with _told(self.url):
            there = self._system.find(self._root) if self._system.exists(self._root) else []
        known = {self._root, f"{self._root}/", *map(self._path, names)}
        others = sorted(path for path in there if path not in known)
        if others:
            name = printable(others[0].removeprefix(f"{self._root}/"))
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            raise StoreError(
                f"the folder is not empty: it holds {clipped(name)}{more}",
                where=self.url,
                hint="give another --out, or remove what lies there",
            )

    def move_here(self, folder: Path) -> str:
        """Move a finished run here; the manifest last.

        Returns:
            URL of the manifest.

        Raises:
            StoreError: When something else lies there, or cannot be written; the run stays where
                it was.
            ArtifactMismatch: When what was written is read back as something else.
        """
        self.require_free()
        names = [name for name in artifacts.list_files(folder) if name != MANIFEST_NAME]
        self.require_no_others([*names, f"{MANIFEST_NAME}{store.PARTIAL}"])
        for name in names:
            self._put(folder, name, name)
        self._put(folder, MANIFEST_NAME, f"{MANIFEST_NAME}{store.PARTIAL}")
        with _told(self.url):
            partial, whole = f"{MANIFEST_NAME}{store.PARTIAL}", MANIFEST_NAME
            self._system.mv(self._path(partial), self._path(whole))
        store.remove_folder(folder)
        return f"{self.url}/{MANIFEST_NAME}"

    @contextlib.contextmanager
    def fetched(self) -> Iterator[Path]:
        """Everything that lies here, in a temporary folder; gives the manifest's path there.

        Raises:
            StoreError: When it cannot be read.
            UnsafePath: When a name leads elsewhere.
        """
        with tempfile.TemporaryDirectory(prefix="auditkit-received-") as scratch:
            with _told(self.url):
                found = self._system.find(self._root)
                if len(found) > _MOST_FILES:
                    raise StoreError(f"{len(found)} files lie there", where=self.url)
                if self._path(MANIFEST_NAME) not in found:
                    raise StoreError("there is no manifest", where=self.url)
                for path in found:
                    name = artifacts.check_name(path.removeprefix(f"{self._root}/"))
                    target = Path(scratch) / name
                    store.make_folder(target.parent)
                    self._system.get_file(path, str(target))
            yield Path(scratch) / MANIFEST_NAME

    def _put(self, folder: Path, name: str, called: str) -> None:
        size, told = store.stream_sha256(folder / name)
        path = self._path(called)
        with _told(self.url):
            self._make_folders(path)
            self._system.put_file(str(folder / name), path)
            found = _sha256(self._system, path)
        if found != (size, told):
            raise ArtifactMismatch(
                "it is not there what was written",
                expected=f"{size} bytes, SHA-256 {told}",
                found=f"{found[0]} bytes, {found[1]}",
                where=f"{self.url}/{name}",
                hint="go on with --resume: it is moved again",
            )

    def _make_folders(self, path: str) -> None:
        """Make the folders above a file, but for the outermost: a bucket, which costs somebody."""
        parts = path.split("/")[:-1]
        for n_parts in range(2, len(parts) + 1):
            folder = "/".join(parts[:n_parts])
            if folder not in self._made:
                if not self._system.isdir(folder):
                    with contextlib.suppress(FileExistsError):
                        self._system.mkdir(folder, create_parents=False)
                self._made.add(folder)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _sha256(system: Any, path: str) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    with system.open(path, "rb") as file:
        while chunk := file.read(artifacts.CHUNK_BYTES):
            size += len(chunk)
            digest.update(chunk)
    return size, digest.hexdigest()


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """Turn whatever a library raises into one line."""
    try:
        yield
    except AuditError:
        raise
    except ImportError as error:
        raise StoreError(f"cannot reach {url}: {printable(str(error))}") from error
    except Exception as error:  # of as many libraries as there are protocols
        reason = clipped(printable(f"{type(error).__name__}: {error}"))
        raise StoreError(f"cannot reach {url}: {reason}") from error
