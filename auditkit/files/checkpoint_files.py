"""The files of a recording's checkpoints: whether they are where journal or manifest say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from auditkit.errors import ArtifactError, ArtifactMissing
from auditkit.files import artifacts, store
from auditkit.records.recording import CheckpointRecord


def require_checkpoints(folder: Path, checkpoints: Iterable[CheckpointRecord]) -> None:
    """Refuse a recording's folder that lacks one of its checkpoints.

    Raises:
        ArtifactMissing: Naming it.
    """
    for checkpoint in checkpoints:
        try:
            _look(folder, checkpoint)
        except ArtifactMissing as error:
            raise ArtifactMissing(
                error.message,
                where=error.where,
                hint="put the file back: without it the recording is not resumed; auditkit close "
                "--allow-lost makes a manifest of the rest, which says what was lost",
            ) from None


def lost_checkpoints(
    folder: Path, checkpoints: Iterable[CheckpointRecord]
) -> tuple[CheckpointRecord, ...]:
    """Those whose files are gone.

    Raises:
        ArtifactError: Where something lies in a file's place that is none.
    """
    lost = []
    for checkpoint in checkpoints:
        try:
            _look(folder, checkpoint)
        except ArtifactMissing:
            lost.append(checkpoint)
    return tuple(lost)


def lying_there(
    folder: Path, checkpoints: Iterable[CheckpointRecord]
) -> tuple[CheckpointRecord, ...]:
    """Those of a finished recording in whose files' places anything lies."""
    there = []
    for checkpoint in checkpoints:
        try:
            artifacts.file_size(folder, checkpoint.file)
        except ArtifactMissing:
            continue
        except ArtifactError:
            pass  # no regular file
        there.append(checkpoint)
    return tuple(there)


def _look(folder: Path, checkpoint: CheckpointRecord) -> None:
    artifacts.file_size(folder, f"{checkpoint.file}{store.PARTIAL}")


def are_there(folder: Path, checkpoints: Iterable[CheckpointRecord]) -> bool:
    """Whether all of them are, also under the names that a manifest gives them."""
    return all(
        (folder / checkpoint.file).exists()
        or (folder / f"{checkpoint.file}{store.PARTIAL}").exists()
        for checkpoint in checkpoints
    )
