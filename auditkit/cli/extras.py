"""Modules that need an optional package, with a clear word where it is missing."""

from __future__ import annotations

import importlib
from typing import Any

from auditkit.errors import UsageError


def timestamps() -> Any:
    """:mod:`auditkit.signing.timestamps`.

    Raises:
        UsageError: When its package is not installed.
    """
    return _load("auditkit.signing.timestamps", "timestamp")


def token_sha256(reply: bytes) -> str:
    """:func:`auditkit.signing.timestamps.token_sha256`, loaded when it is needed.

    Raises:
        UsageError: When its package is not installed.
    """
    return str(timestamps().token_sha256(reply))


def _load(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "auditkit":
            raise
        raise UsageError(
            f"the package {error.name} is not installed", hint=f'pip install "auditkit[{extra}]"'
        ) from error
