"""The tiny study, in a file that knows which process imported it."""

from __future__ import annotations

import os
from pathlib import Path

import tiny_study

import auditkit as ak

IMPORTED_BY = os.getpid()

STUDY = tiny_study.STUDY


def make_program(seed: int, imports: str) -> ak.Program:
    """Build the program.

    Args:
        seed: The study seed.
        imports: File that gets a line for each call: seed, and the process that imported this.
    """
    with Path(imports).open("a", encoding="utf-8") as log:
        log.write(f"{seed} {IMPORTED_BY}\n")
    return tiny_study.make_program(seed)
