"""Modules that need an optional package, loaded when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from auditkit.errors import UsageError


def timestamps() -> Any:
    """:mod:`auditkit.signing.timestamps`.

    Raises:
        UsageError: When its package is not installed.
    """
    return load_extra("auditkit.signing.timestamps", "timestamp")


def token_sha256(reply: bytes) -> str:
    """:func:`auditkit.signing.timestamps.token_sha256`, loaded when it is needed.

    Raises:
        UsageError: When its package is not installed.
    """
    return str(timestamps().token_sha256(reply))


def load_extra(module: str, extra: str) -> Any:
    """A module that needs an optional package.

    Args:
        module: Its name.
        extra: The extra of this package that has what it needs.

    Raises:
        UsageError: When that is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "auditkit":
            raise
        raise UsageError(
            f"the package {error.name} is not installed", hint=f'pip install "auditkit[{extra}]"'
        ) from error
