"""Whether a path that was given as the argument of a program leads to anything here.

Nothing is opened: a value is text until the program makes something of it, and one that looks like
a path need not be one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from auditkit.formats.redaction import expand_home

#: How a text begins that can hardly mean anything but a path; ``org/name`` often does.
_BEGINNINGS = ("/", "./", "../")


def is_missing(value: object, *, certain: bool = False) -> bool:
    """Whether a value is a path of which nothing lies here.

    Args:
        value: The value.
        certain: Whether it is known to be a path, whatever it looks like.
    """
    path = expand_home(os.fspath(value)) if isinstance(value, (str, os.PathLike)) else ""
    if not isinstance(path, str) or "\0" in path or not (certain or path.startswith(_BEGINNINGS)):
        return False
    return not os.path.lexists(path)


def missing(arguments: Mapping[str, object]) -> list[str]:
    """Names of the arguments whose paths lead to nothing here, in their order."""
    return [name for name, value in arguments.items() if is_missing(value)]
