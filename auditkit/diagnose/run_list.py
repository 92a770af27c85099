"""What runs lie below a folder, how far each is, and what is known of it. Nothing is verified."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import get_args

from auditkit.errors import AuditError, FormatError
from auditkit.files import artifacts, locks, store
from auditkit.files.checkpoint_files import are_there
from auditkit.files.recording_folder import RecordingFolder
from auditkit.files.run_folder import RunFolder
from auditkit.formats import canonical
from auditkit.formats.statements import manifest_from_statement
from auditkit.records.journal import NEVER_CLOSED
from auditkit.records.manifest import MANIFEST_NAME
from auditkit.records.recording import RecordingManifest
from auditkit.records.report import Verdict
from auditkit.signing.envelopes import open_envelope

#: The file that an unfinished run has, and the file that its process locks.
_UNFINISHED = {
    f"recording.json{store.PARTIAL}": ("recording", f"recording.lock{store.PARTIAL}"),
    f"run.json{store.PARTIAL}": ("study", f"run.lock{store.PARTIAL}"),
}

#: Where a verification leaves its report, and the most that is read of one.
_REPORT, _MOST = "report.json", 2**26


@dataclass(frozen=True)
class ListedRun:
    """One run.

    Attributes:
        folder: Its folder, below the one that was looked into; ``.`` for that one itself.
        kind: ``study`` or ``recording``; None where that cannot be told.
        state: ``finished``, ``running``, ``resumable`` (from a checkpoint, or with --resume),
            ``unfinished``, or ``broken`` where its manifest or journal cannot be read, or a
            checkpoint is gone.
        steps: Steps of a recording, as far as they are on disk, or the horizon of a study.
        started: When, by its own clock.
        finished: When it ended, if it did.
        verdict: What a report beside its manifest says of these very bytes; None without one.
            Nobody signs such a report: whoever can write into the folder can have written it.
    """

    folder: str
    kind: str | None
    state: str
    steps: int | None
    started: str | None
    finished: str | None
    verdict: Verdict | None


def find_runs(folder: Path) -> list[ListedRun]:
    """Every run in a folder and below it, by name.

    Raises:
        StoreError: When the folder cannot be read.
    """
    found: dict[str, str] = {}
    for name in artifacts.list_files(folder):
        path = PurePosixPath(name)
        if path.name in _UNFINISHED and not path.parent.name.startswith("rank-"):
            found.setdefault(str(path.parent), path.name)
        elif path.name == MANIFEST_NAME:
            found[str(path.parent)] = path.name
    return [_listed(folder, place, name) for place, name in sorted(found.items())]


def _listed(folder: Path, place: str, name: str) -> ListedRun:
    try:
        if name == MANIFEST_NAME:
            return _finished(folder, place)
        return _unfinished(folder, place, name)
    except AuditError:  # of one that cannot be read the others are listed all the same
        return ListedRun(place, None, "broken", None, None, None, None)


def _finished(root: Path, place: str) -> ListedRun:
    data = artifacts.safe_read(root / place, MANIFEST_NAME, max_bytes=canonical.MAX_BYTES)
    manifest = manifest_from_statement(open_envelope(data, what=place).payload, what=place)
    if isinstance(manifest, RecordingManifest):
        kind, steps = "recording", manifest.ranks[0].steps
    else:
        kind, steps = "study", manifest.plan.horizon
    return ListedRun(
        folder=place,
        kind=kind,
        state="finished",
        steps=steps,
        started=manifest.run.started,
        finished=manifest.run.finished,
        verdict=_verdict(root / place, hashlib.sha256(data).hexdigest()),
    )


def _verdict(folder: Path, manifest_sha256: str) -> Verdict | None:
    try:
        told = json.loads(artifacts.safe_read(folder, _REPORT, max_bytes=_MOST))
    except (AuditError, ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or told.get("manifest_sha256") != manifest_sha256:
        return None
    return next((known for known in get_args(Verdict) if known == told.get("verdict")), None)


def _unfinished(root: Path, place: str, name: str) -> ListedRun:
    kind, lock = _UNFINISHED[name]
    path = root / place
    found = ListedRun(place, kind, "resumable", None, None, None, None)
    try:
        if kind == "recording":
            found = _recorded_so_far(path, found)
        else:
            folder = RunFolder(path)
            folder.progress()
            found = found if folder.has_parts else replace(found, state="unfinished")
    except FormatError:  # its journal
        found = replace(found, state="broken")
    return replace(found, state="running") if locks.is_held(path / lock) else found


def _recorded_so_far(path: Path, run: ListedRun) -> ListedRun:
    recording = RecordingFolder(path)
    journal = recording.read_whole_journal()
    if journal is None:
        return replace(run, state="unfinished")
    steps = journal.steps
    with suppress(AuditError):
        whole = replace(journal, ended=None) if journal.ended == NEVER_CLOSED else journal
        rows = recording.read_rows(journal.steps, whole)
        steps = max(journal.steps, rows.last_step if rows is not None else 0)
    resumable = bool(journal.checkpoints) and journal.unresumable is None
    state = "resumable" if resumable else "unfinished"
    if not are_there(path, journal.checkpoints):
        state = "broken"
    return replace(run, state=state, steps=steps, started=journal.started)
