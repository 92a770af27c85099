"""Finds the JSON Schemas and checks values against them.

A value is parsed strictly before it comes here (:func:`.canonical.loads`): jsonschema itself lets
NaN pass as a number. Nearly every value fits; jsonschema-rs says so in a hundredth of the time that
jsonschema takes. What it does not call fit is shown to jsonschema, whose verdict and words count
(:mod:`auditkit.formats.schema_errors`).

No schema refers to another file, and none is fetched. The schemas are read when they are used,
not at import.
"""

from __future__ import annotations

import functools
import importlib
import re
from pathlib import Path
from typing import Any

import jsonschema_rs

from auditkit.errors import SchemaError
from auditkit.formats import canonical
from auditkit.formats.quote import brief

#: Loads jsonschema, which takes longer than most checks.
_ERRORS = "auditkit.formats.schema_errors"


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
    # a wheel; an editable install
    for package in (Path(__file__).parents[1], Path(__file__).parents[2]):
        file = package / "schemas" / version / f"{name}.schema.json"
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
    content, validator = _read(name, version)
    if _surely_fits(validator, instance):
        return
    errors = importlib.import_module(_ERRORS)
    error = errors.error_of(instance, content)
    if error is not None:
        raise SchemaError(error, where=what)


def _surely_fits(validator: jsonschema_rs.Validator, instance: object) -> bool:
    try:
        return validator.is_valid(instance)
    except ValueError:  # what JSON has not, as half a surrogate pair
        return False


@functools.cache
def _read(name: str, version: str) -> tuple[dict[str, Any], jsonschema_rs.Validator]:
    content = load(name, version)
    return content, jsonschema_rs.validator_for(content)
