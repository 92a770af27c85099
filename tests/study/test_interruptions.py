"""A study that is killed again and again loses a branch each time at most, and ends the same."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_shell import PATIENCE, content, timeless
from conftest import Author

from auditkit.files.run_parts import notes

#: Four seeds of eight branches.
STUDY = (
    *("run", "tiny_study.py", "--seeds", "0-3", "--placebos", "3", "--jobs", "1"),
    *("--perturb", "carry", "--perturb", "momentum-reset", "--perturb", "order-reverse"),
)

N_KILLS = 20


def started(author: Author, out: Path) -> subprocess.Popen[str]:
    """A run that goes on with what is there."""
    return subprocess.Popen(
        [sys.executable, "-m", "auditkit", *STUDY, "--out", str(out), "--resume"],
        cwd=author.programs,
        env=author.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(author: Author, out: Path, seconds: float) -> bool:
    """Let a run go on for so long; whether it had to be killed."""
    process = started(author, out)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
        return True
    assert process.returncode == 0, errors
    return False


@pytest.mark.slow
def test_twenty_kills_lose_a_branch_each_at_most(author: Author, tmp_path: Path) -> None:
    whole, begin = tmp_path / "whole", time.monotonic()
    assert not killed(author, whole, PATIENCE)
    length = time.monotonic() - begin
    moments, n_kills, n_runs, n_parts = random.Random(1), 0, 0, 0
    while n_kills < N_KILLS:
        n_runs += 1
        out, kept = tmp_path / f"out-{n_runs}", dict[Path, int]()
        while killed(author, out, moments.uniform(0.3, 0.9) * length):
            n_kills += 1
            if (out / "manifest.json").exists():  # killed while it tidied; refused, and tidied
                _, errors = started(author, out).communicate(timeout=PATIENCE)
                assert "finished run" in errors
                break
            found = {note: note.stat().st_mtime_ns for note in notes(out)}
            assert found.items() >= kept.items(), "what was complete is not run again"
            n_parts, kept = n_parts + len(found) - len(kept), found
        assert content(out) == content(whole)
        assert timeless(out / "manifest.json") == timeless(whole / "manifest.json")
    print(f"{n_kills} kills in {n_runs} runs; {n_parts} parts kept over kills, none run again")
    assert n_parts
