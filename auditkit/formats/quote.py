"""Values from files, quoted in error messages: printable, on one line, short."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import takewhile
from types import NoneType

#: Characters of a text that are shown, and those before the first that differs.
_SHOWN, _BEFORE = 120, 20


def brief(value: object, limit: int = 60) -> str:
    """Quote a value from a file in an error message: printable, on one line, short."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (Mapping, list, tuple)):
        return f"an {json_type(value)} of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 3 * limit:
        return "a very large integer"
    try:
        text = ascii(value[: limit + 1] if isinstance(value, (str, bytes)) else value)
    except Exception:  # an object's own repr may raise anything
        text = f"an object of class {class_of(value)}"
    return text if len(text) <= limit else text[:limit] + "..."


def clipped(text: str) -> str:
    """The beginning of a text that is long."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def clipped_apart(left: str, right: str) -> tuple[str, str]:
    """Two texts, from where they differ on where they are long."""
    if max(len(left), len(right)) > _SHOWN:
        pairs = zip(left, right, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        start = max(0, shared - _BEFORE)
        left, right = (f"{'...' if start else ''}{text[start:]}" for text in (left, right))
    return clipped(left), clipped(right)


def class_of(value: object) -> str:
    """The class of a value, told apart from others of that name by its module."""
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def public_class_of(value: object) -> str:
    """The same by the shortest name that it can be imported by: ``torch.Generator``.

    Of records :func:`class_of` is used, whose answer hangs on nothing but the class.
    """
    kind = type(value)
    parts = kind.__module__.split(".")
    for end in range(1, len(parts)):
        package = ".".join(parts[:end])
        if getattr(sys.modules.get(package), kind.__qualname__, None) is kind:
            return f"{package}.{kind.__qualname__}"
    return class_of(value)


def printable(text: str) -> str:
    """Text from a file on one line of a terminal: what is not printable is written as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def escaped(text: str) -> str:
    """Text that may come from the name of a file, as text that can be written anywhere."""
    return printable(as_utf8(text))


def as_utf8(text: str) -> str:
    """A text as it is, except for what is no UTF-8 in it, which is escaped.

    A name that is no UTF-8 comes from the system with its bytes as half surrogate pairs, which no
    JSON and no terminal takes.
    """
    if text.isascii():
        return text
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # other halves of pairs, which no name has
        data = text.encode("utf-8", "backslashreplace")
    return data.decode("utf-8", "backslashreplace")


def json_type(value: object) -> str:
    """JSON's name for the type of a value or for a type, for error messages."""
    kind = value if isinstance(value, type) else type(value)
    names = {
        bool: "boolean",
        int: "integer",
        float: "number",
        str: "string",
        NoneType: "null",
        list: "array",
        tuple: "array",
        Mapping: "object",
    }
    return next((name for base, name in names.items() if issubclass(kind, base)), "object")
