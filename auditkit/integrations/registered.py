"""What the user of a callback registers beside what the callback finds by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auditkit.errors import RecorderMisuse


def with_own(found: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Both, by name.

    Args:
        found: What the callback registers.
        given: What it was given.

    Raises:
        RecorderMisuse: When a name is taken.
    """
    given = given or {}
    for name in given:
        if name in found:
            raise RecorderMisuse(
                f"RecorderCallback registers a {name!r} of its own", hint="give yours another name"
            )
    return {**found, **given}
