"""The tiny study, trained on files that lie beside it: by default no argument names them."""

from __future__ import annotations

from pathlib import Path

import tiny_study

import auditkit as ak

STUDY = tiny_study.STUDY


def make_program(seed: int, data: str = "numbers", table: str = "") -> ak.Program:
    """Read numbers below the working folder, or the table beside this file.

    Args:
        seed: The study seed.
        data: Folder of ``points.txt``.
        table: Anything, to read ``points.txt`` beside this file instead.
    """
    folder = Path(__file__).parent if table else Path(data)
    return tiny_study.make_program(seed, path=str(folder / "points.txt"))
