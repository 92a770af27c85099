"""Errors on the line between processes: what a worker raised is raised again where it was asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auditkit import errors
from auditkit.errors import AuditError

#: What an error says of itself beside its message, for people.
_TEXTS = ("expected", "found", "where", "component", "hint")


def describe_error(error: AuditError) -> dict[str, Any]:
    """An error as a worker reports it."""
    return {
        "kind": type(error).__name__,
        "message": error.message,
        "expected": None if error.expected is None else str(error.expected),
        "found": None if error.found is None else str(error.found),
        "where": error.where,
        "step": error.step,
        "component": error.component,
        "hint": error.hint,
        "lacking": list(error.lacking),
    }


def rebuild_error(described: Mapping[str, Any]) -> AuditError:
    """Inverse of :func:`describe_error`; an error of a kind unknown here is an AuditError.

    Whatever else it is given becomes an error, too: the program can have written it.
    """
    kind = getattr(errors, str(described.get("kind")), None)
    if not (isinstance(kind, type) and issubclass(kind, AuditError)):
        kind = AuditError
    step, lacking = described.get("step"), described.get("lacking")
    texts = {name: described.get(name) for name in _TEXTS}
    return kind(
        str(described.get("message", "an error that nothing is said of")),
        **{name: None if text is None else str(text) for name, text in texts.items()},
        step=step if isinstance(step, int) else None,
        lacking=tuple(map(str, lacking)) if isinstance(lacking, list) else (),
    )
