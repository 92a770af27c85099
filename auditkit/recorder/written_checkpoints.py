"""Whether a checkpoint on disk is what was recorded of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from auditkit.errors import FormatError, RestoreMismatch
from auditkit.files import store
from auditkit.formats.recipes import digest_raw
from auditkit.formats.snapshot_file import raw_components
from auditkit.records.digest import COMMITMENT_RECIPE
from auditkit.records.recording import CheckpointRecord
from auditkit.records.tensor import FileTensor

_HINT = (
    "put the file back as it was; where a later checkpoint is whole, "
    "Recorder.resume(..., unproven=True) goes on from the latest one"
)


def require(checkpoint: CheckpointRecord, name: str, sha256: str) -> None:
    """Refuse a section of another digest than was recorded.

    Raises:
        RestoreMismatch: Naming file and section.
    """
    if checkpoint.digests.get(name) != sha256:
        raise RestoreMismatch(
            "the checkpoint is not what was written",
            where=checkpoint.file,
            component=name,
            hint=_HINT,
        )


def require_names(checkpoint: CheckpointRecord, sections: Mapping[str, object]) -> None:
    """Refuse a file that lacks what was recorded; raises as :func:`require`."""
    for name in sorted(set(checkpoint.digests) - set(sections)):
        require(checkpoint, name, "")


def require_sections(
    checkpoint: CheckpointRecord, tensors: Mapping[str, FileTensor], meta: object
) -> None:
    """Refuse the content of a file that is not what was recorded; raises as :func:`require`."""
    sections = raw_components(tensors, meta)
    require_names(checkpoint, sections)
    for name, section in sections.items():
        require(checkpoint, name, digest_raw(COMMITMENT_RECIPE, *section).hex())


def require_whole(path: Path, checkpoint: CheckpointRecord) -> None:
    """Refuse a file that is not what was recorded.

    Raises:
        RestoreMismatch: Naming the file and, where it can be told, the section.
        StoreError: When it cannot be read.
    """
    try:
        with store.open_tensors(path, what=checkpoint.file) as content:
            require_sections(checkpoint, *content)
    except FormatError as error:
        raise RestoreMismatch(
            f"the checkpoint is not what was written: {error}", where=checkpoint.file, hint=_HINT
        ) from None
