"""A copy of a run in a new folder, written whole or not at all.

It is made under another name beside the new folder, which is then renamed: a killed process leaves
at most a folder whose name ends in ``.partial``, an error leaves none.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from auditkit.errors import StoreError
from auditkit.files import artifacts, store
from auditkit.files.outputs import Output
from auditkit.files.packing import copy_checked
from auditkit.records.manifest import FileRecord


def copy_run(  # what goes in, and where
    root: Path,
    top: str,
    listed: Iterable[FileRecord],
    beside: Iterable[str],
    output: Output,
    made: Mapping[str, bytes],
) -> int:
    """Copy a run into a folder of a new folder.

    Args:
        root: The run's folder.
        top: What its copy is called, in the new folder.
        listed: The files that the manifest lists; each must be what it says.
        beside: Names of further files of the folder: the manifest, and what was made from it.
        output: The new folder.
        made: Further files of the new folder, by name.

    Returns:
        How many files are in it.

    Raises:
        ArtifactError: When a file is missing, or not what the manifest says.
        StoreError: When something cannot be read, or the folder not be written.
    """
    files: dict[str, FileRecord | None] = {**dict.fromkeys(beside), **{f.name: f for f in listed}}
    output.check()
    target = output.path
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}{store.PARTIAL}")
    try:
        part.mkdir()
        for name, data in made.items():
            store.write_bytes(part / name, data, replace=False)
        for name, record in files.items():
            _copy(root, artifacts.check_name(name), record, part / top / name)
        output.check()
        store.rename(part, target)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(f"cannot write {str(target)!r}: {reason}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return len(files) + len(made)


def _copy(root: Path, name: str, record: FileRecord | None, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        copy_checked(root, name, record, file)
        file.flush()
        os.fsync(file.fileno())
