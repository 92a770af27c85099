"""``auditkit.verify``, ``load_report`` and ``load_manifest``.

They give the records that the command line's ``--json`` writes, print nothing, and end in an
:class:`auditkit.AuditError` where the command line ends in one line on stderr. What a verification
finds is no error: it is in the report.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from auditkit.api.report import Report, as_report
from auditkit.api.verifying import verify_as_asked
from auditkit.engines.spec import parse_engine
from auditkit.errors import UsageError
from auditkit.files import archives, store
from auditkit.files.archive_kinds import is_archive
from auditkit.files.unfinished import refuse_unfinished
from auditkit.formats import canonical
from auditkit.formats.redaction import redact_path
from auditkit.formats.statements import manifest_from_statement
from auditkit.records.manifest import MANIFEST_NAME, StudyManifest
from auditkit.records.recording import RecordingManifest
from auditkit.signing.envelopes import open_envelope
from auditkit.signing.trust import keys_that_count
from auditkit.verification.report_json import report_from_json
from auditkit.verification.request import REQUIRED, VerifyRequest

PathLike = str | Path


def verify(  # noqa: PLR0913 # one argument an option
    path: PathLike,
    *,
    key: PathLike | Sequence[PathLike] = (),
    fingerprint: str | Sequence[str] = (),
    replay: int | Literal["all", "none"] = "all",
    allow_code: bool = False,
    arguments: Mapping[str, str] | None = None,
    command: Sequence[str] = (),
    jobs: int = 1,
    require: Literal["verified", "sampled", "integrity"] | None = None,
    strict: bool = False,
    engine: str | None = None,
) -> Report:
    """Verify a study or recording, as ``auditkit verify`` does.

    Args:
        path: Its manifest, its folder, or a ``.zip`` or ``.tar.gz`` of it.
        key: Files of public keys to trust; without any key or fingerprint this machine's own.
        fingerprint: ``SHA256:...`` of keys to trust, as the paper prints them.
        replay: ``"all"``, ``"none"``, or how many branches to draw by chance.
        allow_code: Whether code that somebody else signed may be executed.
        arguments: Arguments of the factory that say where data lie here.
        command: Of the study of a script: its command, with ``{seed}``.
        jobs: Seeds that are replayed at a time.
        require: Let the exit code be 7, and the report false, where less than this is shown.
        strict: Whether this machine's own trust is set aside, and unlisted files are failures.
        engine: ``dask``, ``ray``, or either with ``:ADDRESS``, to have it replayed there.

    Returns:
        The report; it is true where nothing is wrong.

    Raises:
        UsageError: When an argument means nothing, or the factory does not take one.
        StoreError: When there is no such file, or no manifest yet.
        ArchiveError: When an archive is broken, or holds what it must not.
        KeyFileError: When a key cannot be read, or a fingerprint is none.
    """
    _check(replay, jobs, require)
    keys, fingerprints = _several(key), _several(fingerprint)
    with ExitStack() as stack:
        place = _received(Path(path), stack)
        trusted, aside = keys_that_count(
            place.parent, keys, fingerprints, strict=strict, warn=_warn
        )
        request = VerifyRequest(
            trusted=trusted,
            replay=replay,
            strict=strict,
            allow_code=allow_code,
            arguments={name: redact_path(text) for name, text in (arguments or {}).items()},
            jobs=jobs,
            command=tuple(command),
            named=bool(keys or fingerprints),
            fingerprints=fingerprints,
            set_aside=aside,
            require=None if require is None else REQUIRED[require],
            engine=None if engine is None else parse_engine(engine),
        )
        return as_report(verify_as_asked(place, request))


def load_report(path: PathLike) -> Report:
    """Read a report that ``auditkit verify`` left or wrote with ``--json``.

    Nobody signed it: what it says is worth as much as whoever gave it to you.

    Args:
        path: The file; usually ``report.json``.

    Raises:
        StoreError: When it cannot be read.
        JsonError: When it is no strict JSON.
        SchemaError: When it is no report, or one that contradicts itself.
    """
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a report")
    return as_report(report_from_json(data, what=Path(path).name))


def load_manifest(path: PathLike) -> StudyManifest | RecordingManifest:
    """Read what a manifest says. Nothing is verified: :func:`auditkit.verify` does that.

    Args:
        path: The manifest, or its folder.

    Raises:
        StoreError: When it cannot be read, or is not there yet.
        MalformedError: When it is no manifest.
    """
    place = _manifest(Path(path))
    data = store.read_bytes(place, max_bytes=canonical.MAX_BYTES, what="a manifest")
    payload = open_envelope(data, what=place.name).payload
    return manifest_from_statement(payload, what=place.name)


def _received(path: Path, stack: ExitStack) -> Path:
    """The manifest of what was named, unpacked until the stack is left where it is an archive."""
    return _manifest(stack.enter_context(archives.unpacked(path)) if is_archive(path) else path)


def _manifest(path: Path) -> Path:
    """The manifest of a folder, or the file that was named."""
    place = path / MANIFEST_NAME if path.is_dir() else path
    refuse_unfinished(place)
    return place


def _check(replay: object, jobs: int, require: object) -> None:
    is_number = isinstance(replay, int) and not isinstance(replay, bool) and replay > 0
    if replay not in ("all", "none") and not is_number:
        raise UsageError(f"replay is 'all', 'none' or a whole number of at least 1, not {replay!r}")
    if jobs < 1:
        raise UsageError(f"jobs must be at least 1, not {jobs}")
    if require is not None and require not in REQUIRED:
        raise UsageError(f"require is one of {', '.join(REQUIRED)}, not {require!r}")


def _several(given: Any) -> list[Any]:
    """What was given alone or in a sequence."""
    return [given] if isinstance(given, (str, Path)) else list(given)


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=4)  # where auditkit.verify was called
