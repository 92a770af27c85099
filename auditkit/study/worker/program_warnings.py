"""Warnings that a program gives while it is tried: a worker's own output is read by nobody."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from auditkit.formats.redaction import redact_text

#: Where auditkit lies: what it warns of itself it says in other ways.
_PACKAGE = Path(__file__).parents[2]

_NUMBER = re.compile(r"\d+")

#: Most characters of a warning that are passed on, and most warnings.
_SHOWN, _MOST = 400, 20


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Collect warnings; the list that is yielded has a line each when the context ends.

    What differs in numbers alone, as of a last batch that is smaller, is one warning.
    """
    lines: list[str] = []
    with warnings.catch_warnings(record=True) as found:
        yield lines
    lines.extend(_lines(found))


def _lines(found: Iterable[warnings.WarningMessage]) -> list[str]:
    lines: dict[str, str] = {}
    for warning in found:
        path = Path(warning.filename)
        if path.is_relative_to(_PACKAGE):
            continue
        text = redact_text(" ".join(str(warning.message).split()))
        text = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
        place = f"{path.name}:{warning.lineno}"
        line = f"the program warned at {place}: {warning.category.__name__}: {text}"
        lines.setdefault(f"{place} {_NUMBER.sub('', line)}", line)
    return list(lines.values())[:_MOST]
