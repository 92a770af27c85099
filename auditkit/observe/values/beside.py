"""What another thread works out while this one goes on.

Hashing lets other threads run, so that a large batch can be hashed while the step computes. To wake
a thread takes a quarter of the time that beginning one does, so it waits for the next piece of
work. Before the process is forked it is waited for, and ends: a fork would lack it, and Python
warns of forks beside threads.
"""

from __future__ import annotations

import _thread
import os
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar
from weakref import WeakSet

T = TypeVar("T")


class _Thread:
    """Does one piece of work after the other."""

    def __init__(self) -> None:
        self._work: Callable[[_Thread], None] | None = None
        self._given, self._ended = _thread.allocate_lock(), _thread.allocate_lock()
        self._given.acquire()
        self._ended.acquire()
        # A tenth of what threading.Thread takes, which waits until the thread runs.
        _thread.start_new_thread(self._run, ())

    def give(self, work: Callable[[_Thread], None]) -> None:
        """Let it do some work; only while it is idle."""
        self._work = work
        self._given.release()

    def end(self) -> None:
        """Return when it has ended; only while it is idle."""
        self._given.release()
        with self._ended:
            pass

    def _run(self) -> None:
        while True:
            self._given.acquire()
            work, self._work = self._work, None
            if work is None:
                break
            work(self)
            del work  # what it read and made is not kept alive while this waits
        self._ended.release()


class Beside(Generic[T]):
    """A value that another thread makes.

    Args:
        make: Makes it; must touch nothing that anybody else writes to.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make: Callable[[], T] | None = make
        self._values: list[T] = []
        self._error: BaseException | None = None
        self._working = _thread.allocate_lock()
        self._working.acquire()
        _UNDER_WAY.add(self)
        try:
            thread = _waiting_thread()
        except RuntimeError:  # the system gives no more threads
            self._work(None)
        else:
            thread.give(self._work)

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

    def _work(self, thread: _Thread | None) -> None:
        make, self._make = self._make, None  # a value may be kept longer than what it is made from
        assert make is not None  # noqa: S101 # this runs once
        try:
            self._values.append(make())
        except BaseException as error:  # raised where the value is asked for
            self._error = error
        finally:
            del make
            if thread is not None:
                _IDLE.append(thread)  # before anybody who waits goes on, to a fork perhaps
            self._working.release()


_UNDER_WAY: WeakSet[Beside[Any]] = WeakSet()
_IDLE: list[_Thread] = []


def _waiting_thread() -> _Thread:
    try:
        return _IDLE.pop()
    except IndexError:
        return _Thread()


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


def _end_all() -> None:
    for one in list(_UNDER_WAY):
        one.wait()
    while _IDLE:
        _IDLE.pop().end()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_end_all)
