from __future__ import annotations

import _thread
import os
import threading
import time
import weakref
from functools import partial
from typing import Any

import pytest

from auditkit.observe.values import beside
from auditkit.observe.values.beside import Beside, all_at_once


def test_a_value_is_that_of_another_thread() -> None:
    made = Beside(threading.get_ident)
    assert made.value() == made.value() != threading.get_ident()


def test_what_it_is_made_from_is_let_go_of() -> None:
    class Batch:
        def digest(self) -> int:
            return 5

    batch = Batch()
    there = weakref.ref(batch)
    made = Beside(batch.digest)
    del batch
    made.wait()
    assert there() is None
    assert made.value() == 5


def test_what_making_it_raises_is_raised_where_it_is_asked_for() -> None:
    def fail() -> int:
        raise MemoryError

    made = Beside(fail)
    made.wait()
    for _ in range(2):
        with pytest.raises(MemoryError):
            made.value()


def test_where_the_system_gives_no_thread_it_is_made_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(beside, "_IDLE", [])
    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    assert Beside(threading.get_ident).value() == threading.get_ident()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of other threads of the tests
def test_a_fork_waits_for_it() -> None:
    go, done = threading.Event(), []

    def work() -> int:
        go.wait(0.05)  # nobody sets it: the fork comes first
        done.append(True)
        return 5

    made = Beside(work)
    assert not done
    pid = os.fork()
    if pid == 0:
        is_fine = done and not beside._IDLE and Beside(threading.get_native_id).value() > 0
        os._exit(made._values[0] if is_fine else 1)
    assert not beside._IDLE
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert made.value() == 5


def test_an_interrupt_while_waiting_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Beside(lambda: 5)

    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Beside, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            made.value()
    assert made.value() == 5


def test_values_are_made_at_once_and_come_in_order() -> None:
    meet = threading.Barrier(3)

    def make(number: int) -> tuple[int, int]:
        meet.wait(10)  # which one after the other would not pass
        return number, threading.get_ident()

    found = all_at_once([partial(make, number) for number in range(3)])
    assert [number for number, _ in found] == [0, 1, 2]
    assert found[0][1] == threading.get_ident()
    assert len({thread for _, thread in found}) == 3
    assert all_at_once([]) == []


@pytest.mark.parametrize("which", [0, 1])
def test_what_fails_waits_for_the_others(which: int) -> None:
    done: list[int] = []

    def make(number: int) -> None:
        if number == which:
            raise MemoryError
        time.sleep(0.02)
        done.append(number)

    with pytest.raises(MemoryError):
        all_at_once([partial(make, number) for number in range(3)])
    assert sorted(done) == [number for number in range(3) if number != which]


def test_one_thread_does_one_piece_after_the_other_and_keeps_none_of_them() -> None:
    class Piece:
        def thread(self) -> int:
            return threading.get_native_id()

    threads: set[int] = set()
    for _ in range(20):
        piece = Piece()
        is_there = weakref.ref(piece)
        threads.add(Beside(piece.thread).value())
        del piece
        until = time.monotonic() + 10
        while is_there() is not None and time.monotonic() < until:
            time.sleep(0)  # the thread lets go of it a moment after it is done
        assert is_there() is None
    assert len(threads) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of other threads of the tests
def test_a_fork_ends_the_threads_that_wait() -> None:
    all_at_once([threading.get_native_id] * 3)
    waiting = [*beside._IDLE]
    assert waiting
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert all(not thread._ended.locked() for thread in waiting)
    assert Beside(lambda: 5).value() == 5
