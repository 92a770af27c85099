"""A finished study that seeds are added to: whole, and with a free name for its manifest."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from auditkit.errors import AuditError, StoreError
from auditkit.files import artifacts
from auditkit.records.manifest import FileRecord


def require_listed(folder: Path, files: Iterable[FileRecord]) -> None:
    """Require the files of a study to be those that its manifest lists.

    Raises:
        StoreError: Naming the first that is not.
    """
    for file in files:
        found = None
        with suppress(AuditError):
            found = artifacts.file_sha256(folder, file.name, expected_size=file.size)
        if found != file.sha256:
            raise StoreError(
                f"seeds cannot be added to a study whose {file.name} is not the listed file",
                where=str(folder),
                hint="auditkit verify names everything that is damaged",
            )


def require_name(folder: Path, name: str, data: bytes) -> None:
    """Require a name to be free, or to hold these bytes already.

    Raises:
        StoreError: When something else lies there.
    """
    if not os.path.lexists(folder / name):
        return
    with suppress(AuditError):
        if artifacts.safe_read(folder, name) == data:
            return
    raise StoreError(
        f"{name} is not this study's: the earlier manifest is kept under that name",
        where=str(folder),
        hint="move it elsewhere",
    )
