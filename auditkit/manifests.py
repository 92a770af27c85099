"""Signed records as the bytes of an in-toto Statement v1, and back.

A study, a recording and a replay of a recording are three types of predicate. The files of a
study or recording stand under ``subject`` with their SHA-256 only (sigstore refuses a statement
with any other digest there); the predicate lists their roles and sizes. Reading puts the two
together and refuses a statement in which they differ. The subject of a replay is the manifest
that it is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from auditkit import canonical, schema
from auditkit.errors import SchemaError
from auditkit.records.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    STATEMENT_TYPE,
    STUDY_PREDICATE,
    StudyManifest,
)
from auditkit.records.recording import RECORDING_PREDICATE, RecordingManifest
from auditkit.records.replaying import REPLAY_PREDICATE, ReplayReport
from auditkit.structure import from_dict, to_dict

#: What a ``manifest.json`` can be.
Manifest = StudyManifest | RecordingManifest


@dataclass(frozen=True)
class _Kind:
    """A type of predicate: its record and its schema."""

    record: type[StudyManifest | RecordingManifest | ReplayReport]
    schema: str


_KINDS: Final = {
    STUDY_PREDICATE: _Kind(StudyManifest, "manifest"),
    RECORDING_PREDICATE: _Kind(RecordingManifest, "recording"),
    REPLAY_PREDICATE: _Kind(ReplayReport, "replay"),
}


def to_statement(record: StudyManifest | RecordingManifest | ReplayReport) -> bytes:
    """The statement that is signed, in canonical JSON."""
    predicate = to_dict(record)
    if isinstance(record, ReplayReport):
        subjects = [(MANIFEST_NAME, predicate.pop("manifest_sha256"))]
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


def from_statement(payload: bytes, *, what: str) -> StudyManifest:
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


def read_statement(payload: bytes, *, what: str) -> Manifest:
    """The study or recording that a statement is about.

    Args:
        payload: The exact bytes that were signed.
        what: The file that they come from.

    Raises:
        JsonError: When they are no strict JSON.
        SchemaError: When they are neither, or of no known version.
    """
    record = _read(payload, (STUDY_PREDICATE, RECORDING_PREDICATE), what)
    assert not isinstance(record, ReplayReport)  # noqa: S101 # by the predicate's type
    return record


def replay_from_statement(payload: bytes, *, what: str) -> ReplayReport:
    """What a replay found, and of which manifest.

    Args:
        payload: The exact bytes that were signed.
        what: The file that they come from.

    Raises:
        JsonError: When they are no strict JSON.
        SchemaError: When they are no replay of a known version.
    """
    record = _read(payload, (REPLAY_PREDICATE,), what)
    assert isinstance(record, ReplayReport)  # noqa: S101 # by the predicate's type
    return record


def _read(
    payload: bytes, allowed: tuple[str, ...], what: str
) -> StudyManifest | RecordingManifest | ReplayReport:
    statement = canonical.loads(payload, what=what)
    if not isinstance(statement, dict):
        raise SchemaError("the payload is no JSON object", where=what)
    _check_types(statement, allowed, what)
    kind = _KINDS[statement["predicateType"]]
    schema.check(statement, kind.schema, SCHEMA_VERSION, what=what)
    predicate = dict(statement["predicate"])
    if kind.record is ReplayReport:
        predicate["manifest_sha256"] = statement["subject"][0]["digest"]["sha256"]
        return from_dict(ReplayReport, predicate, what=what)
    digests = _digests(statement["subject"], what)
    predicate["files"] = [
        {**file, "sha256": digests.pop(file["name"], "")} for file in predicate["files"]
    ]
    missing = [file["name"] for file in predicate["files"] if not file["sha256"]]
    if missing or digests:
        name = min(missing or digests)
        raise SchemaError(f"{name!r} stands in subject or in files, not in both", where=what)
    return from_dict(kind.record, predicate, what=what)


def _check_types(statement: dict[str, Any], allowed: tuple[str, ...], what: str) -> None:
    for field, expected in (("_type", (STATEMENT_TYPE,)), ("predicateType", allowed)):
        if statement.get(field) not in expected:
            raise SchemaError(
                f"{field} is another",
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
