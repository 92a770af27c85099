"""A path that leads to no manifest: what was begun there, or which runs lie beside it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from auditkit.errors import StoreError
from auditkit.files import store
from auditkit.records.manifest import MANIFEST_NAME

_RUN = ("an unfinished run, without a manifest", "go on with auditkit run ... --resume")
_RECORDING = (
    "an unfinished recording, without a manifest",
    "go on with Recorder.resume(...), or end it: auditkit close DIR",
)

#: By what lies in the folder until the manifest does: a journal, or only the lock before it.
_STATES = {
    f"run.json{store.PARTIAL}": _RUN,
    f"recording.json{store.PARTIAL}": _RECORDING,
    f"recording.lock{store.PARTIAL}": _RECORDING,
}

#: Folders that are looked into for runs.
_MOST = 1000


def refuse_unfinished(manifest: Path) -> None:
    """Refuse a manifest that is not there because what would write it has not ended.

    Args:
        manifest: Where it would lie.

    Raises:
        StoreError: When a study or recording was begun there and not finished, or others lie
            beside it.
    """
    if os.path.lexists(manifest):
        return
    folder = manifest.parent
    begun = [state for name, state in _STATES.items() if os.path.lexists(folder / name)]
    for what, hint in begun:
        raise StoreError(what, where=str(manifest.parent), hint=hint)
    refuse_misnamed(manifest)


def refuse_misnamed(path: Path) -> None:
    """Refuse a path that is not there, where runs lie in the folder in which it would be.

    Whoever reads it is left to say what is wrong with any other.

    Raises:
        StoreError: Naming that folder.
    """
    if os.path.lexists(path):
        return
    folder = next((above for above in path.parents if os.path.isdir(above)), None)  # noqa: PTH112
    if folder is not None and any(map(_is_run, islice(_folders(folder), _MOST))):
        raise StoreError(
            f"cannot read {str(path)!r}: No such file or directory",
            hint=f"auditkit list {shlex.quote(str(folder))} shows the runs that there are",
        )


def _folders(folder: Path) -> Iterator[Path]:
    """A folder and those in it."""
    yield folder
    with suppress(OSError):
        yield from (below for below in folder.iterdir() if below.is_dir())


def _is_run(folder: Path) -> bool:
    return any(os.path.lexists(folder / name) for name in (MANIFEST_NAME, *_STATES))
