"""The tiny study, halting where a test wants to do something to it.

``AUDITKIT_TEST_HALT=BRANCH:STEP:FILE`` lets one branch halt before one step, counted as in
``faulty_study.py``; the trunk counts as the first, but for the preflight before it. It writes the
id of its process to FILE and goes on once FILE is removed.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny_study
from position import position

import auditkit as ak

STUDY = tiny_study.STUDY

VARIABLE = "AUDITKIT_TEST_HALT"


def make_program(seed: int, **arguments: str) -> ak.Program:
    """The tiny study's program."""
    program = tiny_study.make_program(seed, **arguments)
    branch, step, place = os.environ.get(VARIABLE, "0:0:").split(":")
    if not int(branch):
        return program

    def train(_: ak.Program, batch: Any, t: int) -> float | None:
        here = t == int(step) and int(branch) == max(1, position())
        if here and not (int(branch) == 1 and is_first(Path(place))):
            halt(Path(place))
        return program.train_on(batch, t)

    return replace(program, step=train)


def is_first(file: Path) -> bool:
    """Whether nobody was here before: the preflight is."""
    seen = file.with_suffix(".seen")
    if seen.exists():
        return False
    seen.touch()
    return True


def halt(file: Path) -> None:
    """Wait until the file is gone."""
    written = file.with_suffix(".new")
    written.write_text(str(os.getpid()))
    written.rename(file)
    while file.exists():
        time.sleep(0.01)
