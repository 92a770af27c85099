"""What lies around a run in an RO-Crate: a copy of what is signed, and words that nobody signed."""

from __future__ import annotations

from pathlib import Path

from auditkit.errors import AuditError
from auditkit.files import store

#: What lies at the top of an RO-Crate.
CRATE_NAME = "ro-crate-metadata.json"

#: What is signed, byte for byte, for whoever reads no envelope.
_STATEMENT_NAME = "statement.json"

#: What no check can say of a crate.
UNSIGNED = (
    f"nobody signed {CRATE_NAME} around it: what it says, of machine, people or licence, "
    "was not checked"
)


def is_in_crate(folder: Path) -> bool:
    """Whether a run's folder lies at the top of an RO-Crate."""
    return (folder.resolve().parent / CRATE_NAME).is_file()


def other_statement(folder: Path, payload: bytes) -> str | None:
    """What is wrong with the copy of the statement in the crate around a run; None where nothing.

    Args:
        folder: The run's folder.
        payload: What its manifest signs.
    """
    path = folder.resolve().parent / _STATEMENT_NAME
    if not path.exists():
        return None
    try:
        is_copy = store.read_bytes(path, max_bytes=len(payload), what=path.name) == payload
    except AuditError:
        is_copy = False
    if is_copy:
        return None
    return f"{_STATEMENT_NAME} of the RO-Crate around it is not what the manifest signs"
