"""A study that is killed again and again loses a branch each time at most, and ends the same."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_shell import PATIENCE, content, timeless
from conftest import Author

from auditkit.files.run_parts import notes

#: Four seeds of eight branches.
STUDY = (
    *("--seeds", "0-3", "--placebos", "3", "--jobs", "1"),
    *("--perturb", "carry", "--perturb", "momentum-reset", "--perturb", "order-reverse"),
)

N_KILLS = 20


@pytest.mark.slow
def test_twenty_kills_lose_a_branch_each_at_most(author: Author, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    run = [sys.executable, "-m", "auditkit", "run", "tiny_study.py", *STUDY, "--out"]
    finish(author, [*run, str(whole)])
    moments, kept, kills = random.Random(1), dict[Path, int](), 0
    while kills < N_KILLS:
        process = subprocess.Popen(
            [*run, str(out), "--resume"],
            cwd=author.programs,
            env=author.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(moments.uniform(2, 9))
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)
        kills += 1
        found = {note: note.stat().st_mtime_ns for note in notes(out)}
        assert found.items() >= kept.items(), "what was complete is not run again"
        kept = found
    assert kept, "killed before anything was complete"
    print(f"{kills} kills, {len(kept)} of 32 parts complete before the last start")
    if not (out / "manifest.json").exists():
        finish(author, [*run, str(out), "--resume"])
    assert content(out) == content(whole)
    assert timeless(out / "manifest.json") == timeless(whole / "manifest.json")


def finish(author: Author, command: list[str]) -> None:
    """Run a command to its end."""
    done = subprocess.run(
        command, cwd=author.programs, env=author.env, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
