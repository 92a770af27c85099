"""What the processes of one job say on one line, at the same time."""

from __future__ import annotations

import gc
import json
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from auditkit.cli import worker
from auditkit.cli.worker import _Answers
from auditkit.errors import ProgramFailed
from auditkit.observe.machine import code, environment
from auditkit.processes.worker_pool import Workers
from auditkit.records.job import Job, ProgramSource, Progress

#: Far more than a socket takes at once.
_LENGTH = 1_000_000
_N = 4


def test_long_answers_of_several_processes_come_whole() -> None:
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as log, ours:
        with theirs:
            answer = _Answers(theirs, log.fileno())
            pids = [_saying(answer, n, ours) for n in range(_N)]
            os.close(answer.turn)
        with ours.makefile("rb") as lines:
            found = [json.loads(line)["result"] for line in lines]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * _N
    assert sorted(found) == [str(n) * _LENGTH for n in range(_N)]


def test_a_program_finds_garbage_collection_as_in_a_new_interpreter(tmp_path: Path) -> None:
    (tmp_path / "asks.py").write_text("import gc; raise OSError(f'{gc.isenabled()=}')")
    job = Job("describe", ProgramSource("asks.py:f", str(tmp_path), {}), None, 0, "")
    with (
        Workers(fork=False) as workers,
        pytest.raises(ProgramFailed, match=r"gc.isenabled\(\)=True"),
    ):
        workers.run(job)


def _saying(answer: _Answers, n: int, ours: socket.socket) -> int:
    pid = os.fork()
    if pid == 0:  # nothing of the tests may go on here
        status = 1
        try:
            ours.close()  # else it would wait for itself where nobody listens any more
            answer("result", str(n) * _LENGTH)
            status = 0
        finally:
            os._exit(status)
    return pid


def test_progress_is_told_twice_a_second_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    answers: Any = lambda kind, value: told.append(value["done"])  # noqa: E731
    report = worker._reporter(answers)
    for step in range(1, 101):
        now = 50 + step / 20
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        report(Progress(0, "carry", step, step, 100))
    assert told == [*range(1, 100, 10), 100]


def test_what_torch_imports_for_a_first_step_it_imports_before_the_first_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    region = MagicMock()
    monkeypatch.setattr(torch.profiler, "record_function", region)
    for owner, name in (
        (torch, "set_num_interop_threads"),
        (code, "warm_up"),
        (environment, "look_up_packages"),
        (gc, "collect"),
        (gc, "freeze"),
    ):
        monkeypatch.setattr(owner, name, MagicMock())
    worker._prepare()
    region.return_value.__enter__.assert_called_once()
