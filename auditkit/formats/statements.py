"""Signed records as the bytes of an in-toto Statement v1, and back.

Each kind of record is a type of predicate. The files of a study or recording stand under
``subject`` with their SHA-256 only (sigstore refuses a statement with any other digest there);
the predicate lists their roles and sizes. Reading puts the two together and refuses a statement
in which they differ. The subject of a replay and of a verifier's report is the manifest that
they are about, the subject of a plan the code of its program.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from auditkit.errors import SchemaError
from auditkit.formats import canonical, schema
from auditkit.formats.structure import from_dict, to_dict
from auditkit.records.manifest import (
    CODE_FOLDER,
    MANIFEST_NAME,
    RECORDING_PREDICATE,
    SCHEMA_VERSION,
    STATEMENT_TYPE,
    STUDY_PREDICATE,
    StudyManifest,
)
from auditkit.records.registration import PLAN_PREDICATE, Registration
from auditkit.records.report import (
    REPLAY_PREDICATE,
    VERIFICATION_PREDICATE,
    ReplayReport,
    SignedReport,
)

if TYPE_CHECKING:
    from auditkit.records.recording import RecordingManifest

#: What a ``manifest.json`` can be.
Manifest: TypeAlias = "StudyManifest | RecordingManifest"

#: Everything that is signed.
Statement: TypeAlias = (
    "StudyManifest | RecordingManifest | ReplayReport | SignedReport | Registration"
)

_Record = TypeVar("_Record", bound="Statement")

#: Most bytes of a file, by its role: a file is read to its end before anything else is known of
#: it, and one with holes takes no room on a disk. What holds a whole training state may be large.
MAX_FILE_BYTES: Final = {
    "checkpoint": 2**38,
    "consumed": 2**38,
    "fork": 2**38,
    "order": 2**34,
    "outcome": 2**34,
    "samples": 2**34,
    "trace": 2**34,
}
_MAX_OTHER_BYTES = 2**26


@dataclass(frozen=True)
class _Kind:
    """A type of predicate: where its record is, and its schema."""

    module: str
    name: str
    schema: str

    @property
    def record(self) -> type[Statement]:
        """The record's class, loaded where it is asked for: a study needs no recordings."""
        found: type[Statement] = getattr(importlib.import_module(self.module), self.name)
        return found


_KINDS: Final = {
    STUDY_PREDICATE: _Kind("auditkit.records.manifest", "StudyManifest", "manifest"),
    RECORDING_PREDICATE: _Kind("auditkit.records.recording", "RecordingManifest", "recording"),
    REPLAY_PREDICATE: _Kind("auditkit.records.report", "ReplayReport", "replay"),
    VERIFICATION_PREDICATE: _Kind("auditkit.records.report", "SignedReport", "verification"),
    PLAN_PREDICATE: _Kind("auditkit.records.registration", "Registration", "plan"),
}


def to_statement(record: Statement) -> bytes:
    """The statement that is signed, in canonical JSON."""
    predicate = to_dict(record)
    if isinstance(record, ReplayReport):
        subjects = [(MANIFEST_NAME, predicate.pop("manifest_sha256"))]
    elif isinstance(record, SignedReport):
        subjects = [(MANIFEST_NAME, record.report.manifest_sha256)]
    elif isinstance(record, Registration):
        subjects = _code_subjects(record)
    else:
        subjects = [(file.name, file.sha256) for file in record.files]
        for file in predicate["files"]:
            del file["sha256"]
    kind = next(name for name, kind in _KINDS.items() if isinstance(record, kind.record))
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in subjects],
        "predicateType": kind,
        "predicate": predicate,
    }
    payload = canonical.dumps(statement)
    _read(payload, (kind,), "manifest")  # what is signed must be what a reader accepts
    return payload


def study_from_statement(payload: bytes, *, what: str) -> StudyManifest:
    """The study that a statement is about.

    Args:
        payload: The exact bytes that were signed.
        what: The file that they come from.

    Raises:
        JsonError: When they are no strict JSON.
        SchemaError: When they are no study manifest of a known version.
    """
    record = _read(payload, (STUDY_PREDICATE,), what)
    assert isinstance(record, StudyManifest)  # noqa: S101 # by the predicate's type
    return record


def manifest_from_statement(payload: bytes, *, what: str) -> Manifest:
    """The study or recording that a statement is about.

    Args:
        payload: The exact bytes that were signed.
        what: The file that they come from.

    Raises:
        JsonError: When they are no strict JSON.
        SchemaError: When they are neither, or of no known version.
    """
    record = _read(payload, (STUDY_PREDICATE, RECORDING_PREDICATE), what)
    assert not isinstance(record, ReplayReport | SignedReport | Registration)  # noqa: S101
    return record


def any_from_statement(payload: bytes, *, what: str) -> Statement:
    """Whatever it is that was signed; raises as :func:`manifest_from_statement`."""
    return _read(payload, tuple(_KINDS), what)


def record_from_statement(kind: type[_Record], payload: bytes, *, what: str) -> _Record:
    """What a statement says that must be of one kind.

    Args:
        kind: :class:`ReplayReport`, :class:`SignedReport` or :class:`Registration`, e.g.
        payload: The exact bytes that were signed.
        what: The file that they come from.

    Raises:
        JsonError: When they are no strict JSON.
        SchemaError: When they are of another kind, or of no known version.
    """
    predicate_type = next(name for name, known in _KINDS.items() if known.record is kind)
    record = _read(payload, (predicate_type,), what)
    assert isinstance(record, kind)  # noqa: S101 # by the predicate's type
    return record


def _read(payload: bytes, allowed: tuple[str, ...], what: str) -> Statement:
    statement = canonical.loads(payload, what=what)
    if not isinstance(statement, dict):
        raise SchemaError("the payload is no JSON object", where=what)
    _check_types(statement, allowed, what)
    kind = _KINDS[statement["predicateType"]]
    schema.check(statement, kind.schema, SCHEMA_VERSION, what=what)
    predicate = dict(statement["predicate"])
    _check_times(predicate, what)
    digests = _digests(statement["subject"], what)
    if kind.record is ReplayReport:
        predicate["manifest_sha256"] = digests[MANIFEST_NAME]
        return from_dict(ReplayReport, predicate, what=what)
    if kind.record is SignedReport:
        schema.check(predicate["report"], "report", SCHEMA_VERSION, what=what)
        _same_subjects(digests, {MANIFEST_NAME: predicate["report"]["manifest_sha256"]}, what)
        return from_dict(SignedReport, predicate, what=what)
    if kind.record is Registration:
        registration = from_dict(Registration, predicate, what=what)
        _same_subjects(digests, dict(_code_subjects(registration)), what)
        return registration
    predicate["files"] = [
        {**file, "sha256": digests.pop(file["name"], "")} for file in predicate["files"]
    ]
    missing = [file["name"] for file in predicate["files"] if not file["sha256"]]
    if missing or digests:
        name = min(missing or digests)
        raise SchemaError(f"{name!r} stands in subject or in files, not in both", where=what)
    _check_sizes(predicate["files"], what)
    return from_dict(kind.record, predicate, what=what)


def _check_times(predicate: dict[str, Any], what: str) -> None:
    """What says when it was made says a time, and ended no earlier than it began."""
    run = predicate.get("run", {})
    told = [predicate[name] for name in ("created",) if name in predicate] + [
        run[name] for name in ("started", "finished") if name in run
    ]
    times = [_time(text, what) for text in told]
    if times != sorted(times):
        raise SchemaError(
            "run: finished before it started", expected=f">= {told[0]}", found=told[1], where=what
        )


def _time(text: str, what: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise SchemaError(f"{text!r} is no time", where=what) from None


def _check_sizes(files: list[dict[str, Any]], what: str) -> None:
    for file in files:
        most = MAX_FILE_BYTES.get(file["role"], _MAX_OTHER_BYTES)
        if file["size"] > most:
            raise SchemaError(
                f"{file['name']!r} is longer than anything of the role {file['role']}",
                expected=f"<= {most} bytes",
                found=file["size"],
                where=what,
            )


def _code_subjects(record: Registration) -> list[tuple[str, str]]:
    return [(f"{CODE_FOLDER}/{file.name}", file.sha256) for file in record.program.code]


def _same_subjects(found: dict[str, str], expected: dict[str, str], what: str) -> None:
    if found != expected:
        name = min(found.items() ^ expected.items())[0]
        raise SchemaError(f"{name!r} is not the same in subject and predicate", where=what)


def _check_types(statement: dict[str, Any], allowed: tuple[str, ...], what: str) -> None:
    for field, expected in (("_type", (STATEMENT_TYPE,)), ("predicateType", allowed)):
        if statement.get(field) not in expected:
            kind = _KINDS.get(str(statement.get(field)))
            raise SchemaError(
                f"{field} is another" + (f": it is a {kind.schema}" if kind else ""),
                expected=" or ".join(expected),
                found=f"{statement.get(field)!r:.80}",
                where=what,
            )
    predicate = statement.get("predicate")
    version = predicate.get("schema_version") if isinstance(predicate, dict) else None
    if version != SCHEMA_VERSION:
        raise SchemaError(
            "the manifest follows another version of the schema",
            expected=SCHEMA_VERSION,
            found=f"{version!r:.40}",
            where=what,
            hint="use the auditkit that wrote it, or a newer one",
        )


def _digests(subject: list[Any], what: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in subject:
        if item["name"] in found:
            raise SchemaError(f"{item['name']!r} is listed twice", where=what)
        found[item["name"]] = item["digest"]["sha256"]
    return found
