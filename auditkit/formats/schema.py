"""Finds the JSON Schemas and checks values against them.

Rules that it keeps:

* a value is parsed strictly before it comes here (:func:`.canonical.loads`): jsonschema
  itself lets NaN pass as a number;
* a pattern means what JSON Schema says, not what Python's :mod:`re` says: ``$`` is the very end of
  the text, not also the place before a last line end;
* an error names the JSON path and what was expected there, and never repeats the whole value.

No schema refers to another file, and none is fetched. The schemas are read when they are used,
not at import.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no type information

from auditkit.errors import SchemaError
from auditkit.formats import canonical
from auditkit.formats.quote import brief, json_type

# what may stand before a `$` that is no end of text: an escape or a character class
_DOLLAR = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\$", re.DOTALL)


def load(name: str, version: str = "1") -> dict[str, Any]:
    """Read a schema.

    Args:
        name: ``envelope``, ``statement`` ...
        version: Version of the format, the folder's name.

    Returns:
        A new dict.

    Raises:
        SchemaError: When there is no schema of that name and version.
    """
    # both may come from a file that is being read: they must not lead out of the folder
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,63}", name) or not re.fullmatch(r"[0-9]{1,4}", version):
        raise SchemaError(f"no schema {brief(name)} of version {brief(version)}")
    packaged = importlib.resources.files("auditkit") / "schemas"
    roots = (packaged, Path(__file__).parents[2] / "schemas")  # a wheel; an editable install
    for root in roots:
        file = root / version / f"{name}.schema.json"
        if file.is_file():
            content = canonical.loads(file.read_bytes(), what=file.name)
            if isinstance(content, dict):
                return content
    raise SchemaError(
        f"no schema {name!r} of version {version!r}",
        hint="the file may come from a newer auditkit",
    )


def check(instance: object, name: str, version: str = "1", *, what: str) -> None:
    """Check a value against a schema.

    Args:
        instance: Strictly parsed JSON, or what :func:`auditkit.formats.structure.to_dict` gave.
        name: Name of the schema.
        version: Version of the format.
        what: What is being read, for the error message.

    Raises:
        SchemaError: When it does not fit, or there is no such schema.
    """
    error = jsonschema.exceptions.best_match(_validator(name, version).iter_errors(instance))
    if error is not None:
        raise SchemaError(f"{_path(error)}: {_reason(error)}", where=what)


@functools.cache
def _validator(name: str, version: str) -> Any:
    return _strict_class()(load(name, version))


@functools.cache
def _strict_class() -> Any:
    return jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _pattern})


def _pattern(validator: Any, pattern: str, instance: object, _: object) -> Iterator[Any]:
    if validator.is_type(instance, "string") and not re.search(_strict(pattern), str(instance)):
        yield jsonschema.ValidationError(f"does not match {pattern}")


@functools.cache
def _strict(pattern: str) -> str:
    """The pattern for Python: ``$`` is the end of the text, digits are ASCII."""
    return "(?a)" + _DOLLAR.sub(lambda m: r"\Z" if m[0] == "$" else m[0], pattern)


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
