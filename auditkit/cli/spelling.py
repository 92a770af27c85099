"""How text spells things: a perturbation as it is typed, and one thing not as many.

Files, manifests and JSON name a branch ``adam-reset--moments-v--step-keep``; whoever reads a
report or an error typed ``adam-reset:moments=v,step=keep``.
"""

from __future__ import annotations

import re

from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import as_typed

#: The name of a branch with parameters that stands in a text, and in no path or longer word.
_VALUE = r"--[^\W\d]\w*-[\w+%]+(?:-[\w+%]+|(?<=\d)\.\d+|\.%[\w+%]+)*"
_BRANCH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(DECLARATIONS)})(?:{_VALUE})+(?![\w/-]|\.\w)")


def spelt(text: str) -> str:
    """A text in which auditkit's own perturbations are spelt as they are typed."""
    return _BRANCH.sub(lambda found: as_typed(found[0]), text) if "--" in text else text


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """So many seconds, minutes or hours, in the unit that says something."""
    if seconds < 60:
        return counted(max(round(seconds), 1), "second")
    return f"{seconds / 3600:.2f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
