"""The tiny study, whose module draws from every stream before anybody has seeded it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import tiny_study
import torch

import auditkit as ak

STUDY = tiny_study.STUDY

DRAWN = (
    random.random(),
    np.random.random(),  # the global stream is what is looked at
    float(torch.rand(())),
    len(list(Path("/proc/self/task").iterdir())),
)


def make_program(seed: int, to: str) -> ak.Program:
    """Write what was drawn to a file's end."""
    with Path(to).open("a", encoding="utf-8") as file:
        file.write(" ".join(map(str, DRAWN)) + "\n")
    return tiny_study.make_program(seed)
