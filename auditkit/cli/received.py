"""The manifest that a user names: by itself, by its folder, or by an archive of that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from auditkit.errors import UsageError
from auditkit.files.archive_kinds import is_archive
from auditkit.files.unfinished import refuse_unfinished
from auditkit.records.manifest import MANIFEST_NAME


def manifest_path(text: str) -> Path:
    """The manifest that a user named, by itself or by its folder.

    Raises:
        UsageError: When it is an archive: only some commands take one.
        StoreError: When there is none yet, since the run is unfinished.
    """
    path = _named_path(text)
    if is_archive(path):
        hint = "auditkit verify takes it as it is; for this command unpack it"
        raise UsageError(f"{path.name} is an archive", hint=hint)
    return path


@dataclass(frozen=True)
class Received:
    """A manifest as it was received.

    Attributes:
        path: The manifest; of an archive, in a temporary folder.
        is_unpacked: Whether it lies there for this command only.
    """

    path: Path
    is_unpacked: bool = False


@contextmanager
def received_manifest(text: str) -> Iterator[Received]:
    """The manifest that a user named: by itself, its folder, its URL, or a .zip or .tar.gz.

    Raises:
        ArchiveError: When the archive is broken, or holds what it must not.
        StoreError: When there is no manifest yet, since the run is unfinished.
    """
    if "://" in text:
        # few are given a URL
        from auditkit.files.far_folders import FarFolder, is_url  # noqa: PLC0415

        if is_url(text):
            with FarFolder(text.removesuffix(f"/{MANIFEST_NAME}")).fetched() as manifest:
                yield Received(manifest, is_unpacked=True)
            return
    path = _named_path(text)
    if not is_archive(path):
        yield Received(path)
        return
    from auditkit.files.archives import unpacked  # noqa: PLC0415 # few are given an archive

    with unpacked(path) as manifest:
        yield Received(manifest, is_unpacked=True)


def _named_path(text: str) -> Path:
    path = Path(text)
    # os.path's, since Path's raises for a name that is too long
    path = path / MANIFEST_NAME if os.path.isdir(path) else path  # noqa: PTH112
    refuse_unfinished(path)
    return path
