"""What another thread works out while this one goes on.

Hashing lets other threads run, so that a large batch can be hashed while the step computes. A
thread lives for one piece of work and is waited for before the process is forked: a fork would
lack it, and Python warns of forks beside threads.
"""

from __future__ import annotations

import _thread
import os
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar
from weakref import WeakSet

T = TypeVar("T")


class Beside(Generic[T]):
    """A value that another thread makes.

    Args:
        make: Makes it; must touch nothing that anybody else writes to.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: list[T] = []
        self._error: BaseException | None = None
        self._working = _thread.allocate_lock()
        self._working.acquire()
        try:
            # A tenth of what threading.Thread takes, which waits until the thread runs.
            _thread.start_new_thread(self._work, ())
        except RuntimeError:  # the system gives no more threads
            self._work()
        _UNDER_WAY.add(self)

    def wait(self) -> None:
        """Return when the thread is done."""
        with self._working:
            pass

    def value(self) -> T:
        """The value, when the thread is done.

        Raises:
            BaseException: What making it raised.
        """
        self.wait()
        if self._error is not None:
            raise self._error
        return self._values[0]

    def _work(self) -> None:
        try:
            self._values.append(self._make())
        except BaseException as error:  # raised where the value is asked for
            self._error = error
        finally:
            self._working.release()


_UNDER_WAY: WeakSet[Beside[Any]] = WeakSet()


def all_at_once(makes: Sequence[Callable[[], T]]) -> list[T]:
    """Values that are made at the same time: the first one here, each other by a thread.

    Nothing is under way any more when this returns or raises.

    Args:
        makes: Each makes one; what they read nobody writes to meanwhile.

    Raises:
        BaseException: What making one of them raised.
    """
    others: list[Beside[T]] = []
    try:
        for make in makes[1:]:
            others.append(Beside(make))
        first = [make() for make in makes[:1]]
    finally:
        for other in others:
            other.wait()
    return [*first, *(other.value() for other in others)]


def _wait_for_all() -> None:
    for one in list(_UNDER_WAY):
        one.wait()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_for_all)
