"""Progress: fixed lines in a terminal, few lines elsewhere, and something soon in both."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from auditkit.cli import progress as module
from auditkit.cli.progress import StepProgress, waiting
from auditkit.records.job import Progress

BRANCH = "adam-reset--moments-v--step-keep"


def pipe(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard error that is no terminal; pytest puts its own in place before every test."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def wait_for_lines(stream: io.StringIO, count: int) -> list[str]:
    end = time.monotonic() + 30
    while len(lines := stream.getvalue().splitlines()) < count:
        assert time.monotonic() < end, lines
        time.sleep(0.01)
    return lines


def test_what_is_done_within_a_moment_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    piped = pipe(monkeypatch)
    monkeypatch.delenv(module.VARIABLE)
    with StepProgress(4, "run") as progress:
        progress.report(Progress(0, "trunk", 4, 4, 4))
    assert piped.getvalue() == ""
    assert module._FIRST + 1 < 3, "and what takes longer says so within three seconds"
    assert module._BETWEEN == 60


def test_a_pipe_gets_a_line_soon_and_then_one_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    piped = pipe(monkeypatch)
    monkeypatch.setenv(module.VARIABLE, "0.02")
    with StepProgress(40, "run") as progress:
        assert wait_for_lines(piped, 1)[0] == ("auditkit: run: building the program ... 0:00 gone")
        progress.report(Progress(1, BRANCH, 9, 9, 20))
        progress.report(Progress(0, "trunk", 3, 3, 20))
        seen = len(piped.getvalue().splitlines())
        last = wait_for_lines(piped, seen + 2)[-1]
    assert last == (
        "auditkit: run: 12 of 40 steps, 0:00 gone, -:-- left; seed 0: trunk, step 3; "
        "seed 1: adam-reset:moments=v,step=keep, step 9"
    )
    silent = piped.getvalue()
    time.sleep(0.1)
    assert piped.getvalue() == silent


def test_no_lines_where_none_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    piped = pipe(monkeypatch)
    monkeypatch.setenv(module.VARIABLE, "0")
    monkeypatch.setattr(module, "_FIRST", 0.0)
    with waiting("reading ..."):
        time.sleep(0.05)
    assert piped.getvalue() == ""


def test_a_pipe_that_nobody_reads_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    piped = pipe(monkeypatch)
    monkeypatch.setenv(module.VARIABLE, "0.01")
    with StepProgress(4, "run") as progress:
        piped.close()
        time.sleep(0.05)
        progress.report(Progress(0, "trunk", 4, 4, 4))


def test_the_time_left_follows_from_the_steps_and_not_from_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe(monkeypatch)
    now = [100.0]
    monkeypatch.setattr("auditkit.cli.progress.time.monotonic", lambda: now[0])
    progress = StepProgress(1000, "replay")
    now[0] += 60
    assert progress.head() == "replay: building the program ... 1:00 gone"
    progress.report(Progress(0, "trunk", 0, 0, 1000))
    now[0] += 10
    progress.report(Progress(0, "trunk", 100, 100, 1000))
    assert progress.head() == "replay:  100 of 1000 steps, 1:10 gone, 1:30 left"
    now[0] += 3590
    assert "gone, 9:00:00 left" in progress.head()
    # a repeated replay starts over; what was done stays done
    progress.report(Progress(0, "trunk", 1, 1, 1000))
    assert "100 of 1000" in progress.head()
    progress.expect(50, "verify", "checking ...")
    assert progress.share() == 1.0
    assert progress.head() == "verify: 50 of 50 steps, 1:01:00 gone"  # no time is left


def test_many_jobs_have_few_lines_in_the_order_of_their_seeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe(monkeypatch)
    progress = StepProgress(1000, "run")
    for seed in (11, *range(11)):
        progress.report(Progress(seed, "trunk", 1, 1, 10))
    progress.report(Progress(0, "control", 10, 10, 10))
    assert progress.jobs() == [*(f"seed {n}: trunk, step 1" for n in range(1, 9)), "and 3 more"]


def test_forks_of_a_seed_add_up_and_what_is_kept_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe(monkeypatch)
    progress = StepProgress(100, "run")
    progress.report(Progress(0, "trunk", 0, 0, 0, kept=30))
    assert progress.head().startswith("run: building the program ..."), "nothing was trained"
    for fork in (4, 6):
        progress.report(Progress(1, BRANCH, 9, 9, 20, fork))
    assert "18 of 70 steps" in progress.head()


_SCRIPT = """
import sys, time
from auditkit.cli.progress import StepProgress
from auditkit.records.job import Progress
with StepProgress(123456, "reproduce") as progress:
    time.sleep(0.6)
    for step in range(1, 41):
        for seed in (0, 1):
            branch = ("adam-reset--moments-v--step-keep", "trunk")[seed]
            progress.report(Progress(seed, branch, step, step, 60000))
        time.sleep(0.03)
"""


@pytest.mark.parametrize("columns", [60, 80, 130])
def test_a_terminal_shows_lines_that_fit_and_stay_in_their_place(
    columns: int, tmp_path: Path
) -> None:
    terminal, its_end = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
    with subprocess.Popen([sys.executable, "-c", _SCRIPT], stderr=its_end, env=env) as process:
        os.close(its_end)
        shown = b""
        while select.select([terminal], [], [], 30)[0]:
            try:
                read = os.read(terminal, 65536)
            except OSError:  # its other end is closed
                break
            shown += read
    os.close(terminal)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).replace("\r", "\n")
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines[0].startswith("reproduce: building the program ... 0:00 gone")
    assert max(map(len, lines)) <= columns
    heads = [line for line in lines if " of 123456 steps, " in line]
    assert heads
    assert all(re.match(r"reproduce: [ \d]{6} of 123456 steps, \d:\d\d gone, ", h) for h in heads)
    jobs = [line for line in lines if line.startswith("  seed ")]
    assert [line[:9] for line in jobs] == ["  seed 0:", "  seed 1:"] * (len(jobs) // 2)
    assert "adam-reset:moments=v,step=keep, step " in jobs[0]
