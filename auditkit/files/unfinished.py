"""A folder that has no manifest yet: what it is then, and how it is gone on with."""

from __future__ import annotations

import os
from pathlib import Path

from auditkit.errors import StoreError
from auditkit.files import store

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


def refuse_unfinished(manifest: Path) -> None:
    """Refuse a manifest that is not there because what would write it has not ended.

    Args:
        manifest: Where it would lie.

    Raises:
        StoreError: When a study or recording was begun there and not finished.
    """
    if os.path.lexists(manifest):
        return
    folder = manifest.parent
    begun = [state for name, state in _STATES.items() if os.path.lexists(folder / name)]
    for what, hint in begun:
        raise StoreError(what, where=str(manifest.parent), hint=hint)
