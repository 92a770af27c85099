from __future__ import annotations

import _thread
import os
import threading
from typing import Any

import pytest

from auditkit.observe.values.beside import Beside


def test_a_value_is_that_of_another_thread() -> None:
    made = Beside(threading.get_ident)
    assert made.value() == made.value() != threading.get_ident()


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
        os._exit(made._values[0] if done else 1)
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
