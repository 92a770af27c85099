"""Lock files: one process at a time writes here. A killed process leaves its file, not its lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from auditkit.errors import StoreError

#: Seconds between two looks at a lock that another process holds.
_POLL_SECONDS = 0.02

# A loader's worker that outlives its killed parent for seconds must not keep the parent's locks.
_HELD: set[int] = set()


def _release_in_child() -> None:
    for descriptor in _HELD:
        os.close(descriptor)
    _HELD.clear()


os.register_at_fork(after_in_child=_release_in_child)


@contextlib.contextmanager
def lock(path: str | Path, *, timeout: float = 0.0) -> Iterator[None]:
    """Hold a lock file while the block runs; it is removed afterwards.

    Args:
        path: The file; its folder must exist.
        timeout: How many seconds another holder is waited for.

    Raises:
        StoreError: When another process, or thread, holds it for longer, or it cannot be made.
    """
    owner, descriptor = os.getpid(), _acquire(Path(path), time.monotonic() + timeout)
    _HELD.add(descriptor)
    try:
        yield
    finally:
        if os.getpid() == owner:  # a child that leaves the block has let go already
            with contextlib.suppress(OSError):
                Path(path).unlink()
            _HELD.discard(descriptor)
            os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether somebody holds a lock file now; looking leaves nothing behind."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _acquire(path: Path, deadline: float) -> int:
    while True:
        descriptor = _try_acquire(path)
        if descriptor is not None:
            return descriptor
        if time.monotonic() >= deadline:
            raise StoreError("another process is writing here", where=str(path))
        time.sleep(_POLL_SECONDS)


def _try_acquire(path: Path) -> int | None:
    """The descriptor that holds the lock; None where somebody else holds it."""
    try:
        # O_NONBLOCK: opening a FIFO that somebody left here would wait forever
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_current(path, descriptor):
                return descriptor
        except BlockingIOError:
            pass
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(f"cannot lock {str(path)!r}: {reason}") from error
    except ValueError as error:  # a null character in the path
        raise StoreError(f"cannot lock {str(path)!r}: {error}") from error
    os.close(descriptor)
    return None


def _is_current(path: Path, descriptor: int) -> bool:
    """Whether the locked file is the one that others will open.

    The holder before may have removed it between our opening and our locking it; then the next
    process makes a new file, and locks that.
    """
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
