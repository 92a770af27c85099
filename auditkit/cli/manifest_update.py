"""Adding to a manifest that other processes may be adding to at the same time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from auditkit.files import locks, store
from auditkit.files.outputs import check_rewritable
from auditkit.formats import canonical

#: Seconds for which another process that is adding to the same manifest is waited for.
PATIENCE = 30.0


def read_manifest(path: Path) -> bytes:
    """The bytes of a manifest.

    Raises:
        StoreError: When it cannot be read.
        MalformedError: When it is longer than any manifest.
    """
    return store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> bytes | None:
    """Replace a manifest by what a function makes of it; nobody's addition is lost.

    Args:
        path: The manifest.
        change: From its bytes, read under a lock, to the new ones; asks nobody anything, since
            others wait.

    Returns:
        The bytes that were written; None where nothing was changed, and so nothing written.

    Raises:
        StoreError: When it cannot be read or written, is a link or listed by another manifest, or
            another process does not let go of it.
        MalformedError: When it is longer than any manifest.
    """
    check_rewritable(path)
    with locks.lock(path.with_name(f".{path.name}.lock{store.PARTIAL}"), timeout=PATIENCE):
        data = read_manifest(path)
        changed = change(data)
        if changed == data:
            return None
        store.write_bytes(path, changed)
        return changed
