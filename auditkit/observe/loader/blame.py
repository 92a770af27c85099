"""Whose error it is that leaves a swapped loader: auditkit's own, or that of what it stands in for.

Whoever records a loop says what becomes of auditkit's own (:data:`Guard`). Code of the loader, its
data set and samplers is called in the midst of it; what that raises is passed on as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

#: What auditkit's own code runs in.
Guard = Callable[[], AbstractContextManager[None]]

_FOREIGN = "_auditkit_foreign"


@contextmanager
def foreign() -> Iterator[None]:
    """Mark what is raised inside as an error of what is called, whoever it is raised through."""
    try:
        yield
    except BaseException as error:
        with suppress(Exception):  # an exception may refuse attributes
            setattr(error, _FOREIGN, True)
        raise


def is_foreign(error: BaseException) -> bool:
    """Whether an error is one of what was called."""
    return getattr(error, _FOREIGN, False) is True
