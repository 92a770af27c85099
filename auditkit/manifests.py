"""A study manifest as the bytes of an in-toto Statement v1, and back.

Files stand under ``subject`` with their SHA-256 only (sigstore refuses a statement with any
other digest there); the predicate lists their roles and sizes. Reading puts the two together
and refuses a statement in which they differ.
"""

from __future__ import annotations

from typing import Any

from auditkit import canonical, schema
from auditkit.errors import SchemaError
from auditkit.records.manifest import (
    SCHEMA_VERSION,
    STATEMENT_TYPE,
    STUDY_PREDICATE,
    StudyManifest,
)
from auditkit.structure import from_dict, to_dict


def to_statement(manifest: StudyManifest) -> bytes:
    """The statement that is signed, in canonical JSON."""
    predicate = to_dict(manifest)
    for file in predicate["files"]:
        del file["sha256"]
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": file.name, "digest": {"sha256": file.sha256}} for file in manifest.files
        ],
        "predicateType": STUDY_PREDICATE,
        "predicate": predicate,
    }
    payload = canonical.dumps(statement)
    from_statement(payload, what="manifest")  # what is signed must be what a reader accepts
    return payload


def from_statement(payload: bytes, *, what: str) -> StudyManifest:
    """Inverse of :func:`to_statement`.

    Args:
        payload: The exact bytes that were signed.
        what: The file that they come from.

    Raises:
        JsonError: When they are no strict JSON.
        SchemaError: When they are no study manifest of a known version.
    """
    statement = canonical.loads(payload, what=what)
    if not isinstance(statement, dict):
        raise SchemaError("the payload is no JSON object", where=what)
    _check_types(statement, what)
    schema.check(statement, "manifest", SCHEMA_VERSION, what=what)
    predicate = dict(statement["predicate"])
    digests = _digests(statement["subject"], what)
    predicate["files"] = [
        {**file, "sha256": digests.pop(file["name"], "")} for file in predicate["files"]
    ]
    missing = [file["name"] for file in predicate["files"] if not file["sha256"]]
    if missing or digests:
        name = min(missing or digests)
        raise SchemaError(f"{name!r} stands in subject or in files, not in both", where=what)
    return from_dict(StudyManifest, predicate, what=what)


def _check_types(statement: dict[str, Any], what: str) -> None:
    for field, expected in (("_type", STATEMENT_TYPE), ("predicateType", STUDY_PREDICATE)):
        if statement.get(field) != expected:
            raise SchemaError(
                f"{field} is another",
                expected=expected,
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
