"""What a program names, as a manifest to read: its file, its folder, or an archive of it."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from auditkit.files import archives
from auditkit.files.archive_kinds import is_archive
from auditkit.files.unfinished import refuse_unfinished
from auditkit.records.manifest import MANIFEST_NAME


def manifest_file(path: Path) -> Path:
    """The manifest of a folder, or the file that was named.

    Raises:
        StoreError: When the run is unfinished.
    """
    # os.path's, since Path's raises for a name that is too long
    place = path / MANIFEST_NAME if os.path.isdir(path) else path  # noqa: PTH112
    refuse_unfinished(place)
    return place


def received(stack: ExitStack, path: str | Path) -> Path:
    """The manifest that was named; an archive is unpacked until the stack is closed.

    Raises:
        StoreError: When there is none yet.
        ArchiveError: When an archive is broken, or holds what it must not.
    """
    place = Path(path)
    if is_archive(place):
        place = stack.enter_context(archives.unpacked(place))
    return manifest_file(place)
