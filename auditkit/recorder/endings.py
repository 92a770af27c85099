"""How a script ends whose recording cannot begin: in one line, not with a traceback."""

from __future__ import annotations

import logging
import sys
from types import TracebackType

from auditkit.errors import StoreError

_LOG = logging.getLogger("auditkit")


def tell_in_one_line() -> None:
    """Let a script that ends in a :class:`StoreError` say so in one line, without a traceback.

    Where somebody else shows uncaught errors (a debugger, a notebook), that stays as it is.
    """
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _tell


def _tell(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if isinstance(error, StoreError):
        _LOG.error("auditkit: %s (auditkit explain %s)", error, type(error).__name__)
    else:
        sys.__excepthook__(kind, error, traceback)
