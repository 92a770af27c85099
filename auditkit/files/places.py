"""Where a job that runs on another machine leaves its files and messages: a folder that both see.

Names in a place have ``/`` between their parts and are made by auditkit.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from auditkit.errors import StoreError
from auditkit.files import store


class FolderPlace:
    """A folder.

    Args:
        root: The folder; it need not exist yet.

    Attributes:
        root: The same.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all; its folder is not made where it has been removed.

        Raises:
            StoreError: When it cannot be written.
        """
        store.write_bytes(self.root / name, data)

    def read(self, name: str) -> bytes | None:
        """What a file holds; None where it is not there.

        Raises:
            StoreError: When it cannot be read.
        """
        try:
            return store.read_bytes(self.root / name)
        except StoreError as error:
            if _is_gone(error):
                return None
            raise

    def names(self, folder: str = "") -> list[str]:
        """What lies directly in a folder; nothing where it is not there."""
        with contextlib.suppress(OSError):
            return sorted(path.name for path in (self.root / folder).iterdir())
        return []

    def remove(self, folder: str = "") -> None:
        """Remove a folder with everything in it.

        Raises:
            StoreError: When it cannot be removed.
        """
        store.remove_folder(self.root / folder)

    def fetch(self, name: str, target: Path) -> None:
        """Give a file a further name outside, or copy it where the file system has no such links.

        Raises:
            StoreError: When that cannot be done.
        """
        store.link_or_copy(self.root / name, target)

    def fetched(self, name: str) -> tuple[int, str] | None:
        """Size and SHA-256 of a file as it is seen here; None where it is not seen yet.

        Raises:
            StoreError: When it cannot be read.
        """
        try:
            return store.stream_sha256(self.root / name)
        except StoreError as error:
            if _is_gone(error):
                return None
            raise


def _is_gone(error: StoreError) -> bool:
    """Whether there is no such file; of a network's file system, no longer."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ESTALE,
    }
