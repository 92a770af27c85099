"""A run as one archive: equal folders give equal bytes.

The archive is a ``.zip`` whose entries are stored as they are, since what compressors make of them
differs with their version, and since digests and weights hardly shrink. Names are sorted and lie
in one folder; times, modes and the system that made them are always the same.
"""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from auditkit.errors import ArtifactMismatch, StoreError
from auditkit.files import artifacts
from auditkit.files.outputs import Output
from auditkit.records.manifest import FileRecord

#: The earliest time that a zip file can say.
_TIME = (1980, 1, 1, 0, 0, 0)

#: What wrote the entries' attributes (Unix), and these: a regular file, mode 0644.
_SYSTEM = 3
_ATTRIBUTES = 0o100644 << 16


def pack(  # what goes in, and where
    root: Path,
    top: str,
    listed: Iterable[FileRecord],
    beside: Iterable[str],
    output: Output,
    made: Mapping[str, bytes] | None = None,
) -> int:
    """Write an archive of a run.

    Args:
        root: The run's folder.
        top: The folder in the archive that everything lies in.
        listed: The files that the manifest lists; each must be what it says.
        beside: Names of further files of the folder: the manifest, and what was made from it.
        output: Where the archive goes.
        made: Further files of the archive, outside of that folder, by name.

    Returns:
        How many files are in it.

    Raises:
        ArtifactError: When a file is missing, or not what the manifest says; then nothing is
            written.
        StoreError: When something cannot be read, or the archive not be written.
    """
    files: dict[str, FileRecord | None] = {**dict.fromkeys(beside), **{f.name: f for f in listed}}
    try:
        # Beside the archive, where there must be room for it anyway; a file without a name.
        with tempfile.TemporaryFile(dir=output.path.parent) as scratch:
            with zipfile.ZipFile(scratch, "w", zipfile.ZIP_STORED) as archive:
                _write(archive, root, top, files, made or {})
            scratch.seek(0)
            output.write_pieces(_pieces(scratch))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(f"cannot write {str(output.path)!r}: {reason}") from error
    return len(files) + len(made or {})


def _write(
    archive: zipfile.ZipFile,
    root: Path,
    top: str,
    files: Mapping[str, FileRecord | None],
    made: Mapping[str, bytes],
) -> None:
    for name in sorted(made):
        archive.writestr(_entry(name), made[name])
    for name in sorted(files):
        entry = _entry(f"{top}/{name}")
        entry.file_size = artifacts.file_size(root, name)
        with archive.open(entry, "w") as target:
            copy_checked(root, name, files[name], target)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.create_system, entry.external_attr = _SYSTEM, _ATTRIBUTES
    return entry


def copy_checked(root: Path, name: str, record: FileRecord | None, target: IO[bytes]) -> None:
    """Copy a file of a run, and require that what was copied is what the manifest lists.

    Args:
        root: The run's folder.
        name: The file's name below it.
        record: What the manifest says of it; None where it does not list it.
        target: What is written to.

    Raises:
        ArtifactError: When it is missing, or not what the manifest says.
        StoreError: When it cannot be read.
    """
    digest = hashlib.sha256()
    with artifacts.open_artifact(root, name) as file:
        for piece in _pieces(file):
            digest.update(piece)
            target.write(piece)
    if record is not None and digest.hexdigest() != record.sha256:
        raise ArtifactMismatch(
            "not packed: another SHA-256 than the manifest says",
            expected=record.sha256,
            found=digest.hexdigest(),
            where=name,
        )


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: file.read(artifacts.CHUNK_BYTES), b"")
