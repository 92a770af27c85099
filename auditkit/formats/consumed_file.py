"""The file of what a control without a loader consumed, for branches that are yoked to it.

It has the layout of a snapshot (:mod:`auditkit.formats.snapshot_file`); a section is named
``STEP/CALL/batch`` or ``STEP/CALL/indices``, where a step may say several times what it consumes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeVar

from auditkit.errors import FormatError
from auditkit.formats.recipes import hasher
from auditkit.records.digest import ABSENT, EVIDENCE_RECIPE

T = TypeVar("T")

#: Its name in a seed's folder.
CONSUMED_FILE: Final = "consumed.safetensors"

_SECTION = re.compile(r"([1-9][0-9]{0,9})/([0-9]{1,6})/(indices|batch)", re.ASCII)


def section_name(step: int, call: int, part: str) -> str:
    """Name of the section of what a step said at one call (from 0)."""
    return f"{step}/{call}/{part}"


def sections_by_step(sections: Mapping[str, T]) -> dict[int, list[dict[str, T]]]:
    """Sections by step, and for each of its calls by part.

    Raises:
        FormatError: When a section has no such name, or a call is missing.
    """
    found: dict[int, dict[int, dict[str, T]]] = {}
    for name, section in sections.items():
        match = _SECTION.fullmatch(name)
        if match is None:
            raise FormatError(f"no section of what was consumed: {name!a}", where=CONSUMED_FILE)
        step, call, part = int(match[1]), int(match[2]), match[3]
        found.setdefault(step, {}).setdefault(call, {})[part] = section
    for step, calls in found.items():
        if sorted(calls) != list(range(len(calls))):
            raise FormatError(f"a call of step {step} is missing", where=CONSUMED_FILE)
    return {step: [calls[call] for call in sorted(calls)] for step, calls in found.items()}


def chained(cell: bytes, digest: bytes) -> bytes:
    """The evidence of a step that says once more what it consumes: both digests as one."""
    one = hasher(EVIDENCE_RECIPE)
    one.update(cell + digest)
    return one.digest()


def cells(calls: list[dict[str, bytes]]) -> dict[str, bytes]:
    """The cells ``order`` and ``batch`` of a step, by the evidence digest of every part."""
    found = {"order": ABSENT, "batch": ABSENT}
    for call in calls:
        parts = {"order": call.get("indices", call.get("batch")), "batch": call.get("batch")}
        for column, digest in parts.items():
            if digest is not None:
                found[column] = chained(found[column], digest)
    return found
