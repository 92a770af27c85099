"""What a tracker of experiments keeps of a run: its manifest, and by what it is known."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from auditkit.errors import UsageError
from auditkit.files import artifacts
from auditkit.formats import canonical
from auditkit.formats.statements import manifest_from_statement
from auditkit.records.manifest import MANIFEST_NAME, SIGNER_NAME
from auditkit.signing.envelopes import open_envelope

#: Name under which trackers have it.
NAME = "auditkit"


@dataclass(frozen=True)
class KeptManifest:
    """What is kept.

    Attributes:
        folder: The run's folder.
        names: Files in it: the manifest, the public key where it lies there, and, of a whole run,
            all that the manifest lists.
        facts: ``manifest_sha256`` and ``signed_by``, for people and for a search.
    """

    folder: Path
    names: tuple[str, ...]
    facts: dict[str, str]


def kept_manifest(manifest: str | os.PathLike[str] | None, *, whole: bool = False) -> KeptManifest:
    """What to keep of a run. Nothing is verified.

    Args:
        manifest: The manifest or its folder, as :attr:`auditkit.Recorder.manifest` has it.
        whole: Whether to keep every file that it lists, without which nobody can verify it.

    Raises:
        UsageError: When there is no manifest: the recording did not end well.
        MalformedError: When it is none.
    """
    if manifest is None:
        raise UsageError(
            "there is no manifest to keep",
            hint="call it after the Recorder is closed; Recorder.failure says what went wrong",
        )
    path = Path(manifest)
    folder, name = (path, MANIFEST_NAME) if path.is_dir() else (path.parent, path.name)
    data = artifacts.safe_read(folder, name, max_bytes=canonical.MAX_BYTES)
    envelope = open_envelope(data, what=name)
    record = manifest_from_statement(envelope.payload, what=name)
    names = [name, *([SIGNER_NAME] if (folder / SIGNER_NAME).is_file() else [])]
    if whole:
        names += [file.name for file in record.files]
    facts = {
        "manifest_sha256": hashlib.sha256(data).hexdigest(),
        "signed_by": ", ".join(one.keyid or "a key without name" for one in envelope.signatures),
    }
    return KeptManifest(folder, tuple(names), facts)
