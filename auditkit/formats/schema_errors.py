"""What jsonschema says of a value that does not surely fit its schema.

A pattern means what JSON Schema says, not what Python's :mod:`re` says: ``$`` is the very end of
the text, not also the place before a last line end. An error names the JSON path and what was
expected there, and never repeats the whole value.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no type information

from auditkit.formats.quote import brief, json_type

# What may stand before a `$` that is no end of text: an escape or a character class.
_DOLLAR = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\$", re.DOTALL)


def error_of(instance: object, schema: Mapping[str, Any]) -> str | None:
    """The first thing that is wrong with a value; None where it fits after all."""
    found = _strict_class()(schema).iter_errors(instance)
    error = jsonschema.exceptions.best_match(found)
    return None if error is None else f"{_path(error)}: {_reason(error)}"


@functools.cache
def _strict_class() -> Any:
    return jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _pattern})


def _pattern(validator: Any, pattern: str, instance: object, _: object) -> Iterator[Any]:
    if validator.is_type(instance, "string") and not _strict(pattern).search(str(instance)):
        yield jsonschema.ValidationError(f"does not match {pattern}")


@functools.cache
def _strict(pattern: str) -> re.Pattern[str]:
    """A schema's pattern for Python: ``$`` is the end of the text, digits are ASCII."""
    return re.compile("(?a)" + _DOLLAR.sub(lambda m: r"\Z" if m[0] == "$" else m[0], pattern))


def _path(error: Any) -> str:
    path = "$"
    for part in error.absolute_path:
        plain = isinstance(part, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", part)
        path += f".{part}" if plain else f"[{brief(part)}]"
    return path


def _reason(error: Any) -> str:
    wanted, found = error.validator_value, error.instance
    if error.validator == "required" and isinstance(found, Mapping):
        missing = [key for key in wanted if key not in found]
        return "missing " + ", ".join(repr(key) for key in missing)
    if error.validator in ("additionalProperties", "unevaluatedProperties"):
        known = error.schema.get("properties", {})
        extra = [brief(key) for key in found if key not in known]
        return "unknown field " + ", ".join(extra[:3])
    if error.validator == "type":
        names = [wanted] if isinstance(wanted, str) else wanted
        return f"expected {' or '.join(names)}, found {json_type(found)} {brief(found)}"
    if error.validator in ("const", "enum"):
        choices = [wanted] if error.validator == "const" else wanted
        return f"expected {' or '.join(brief(c) for c in choices)}, found {brief(found)}"
    return f"expected {error.validator} {brief(wanted, 80)}, found {brief(found)}"
