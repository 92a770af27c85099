"""The tiny study, trained on files of a folder that an argument names."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import tiny_study
import torch

import auditkit as ak

STUDY = tiny_study.STUDY


def make_program(seed: int, root: str = "", beside: str = "") -> ak.Program:
    """Read the inputs from ``inputs.npy`` and the labels from ``labels/labels.csv``.

    Args:
        seed: The study seed.
        root: The folder.
        beside: Another file to look into, which is not used.
    """
    program = tiny_study.make_program(seed)
    points = program.loader.dataset
    assert isinstance(points, tiny_study.Points)
    points.inputs = torch.from_numpy(np.load(Path(root) / "inputs.npy"))
    with (Path(root) / "labels" / "labels.csv").open(newline="") as file:
        points.labels = torch.tensor([int(label) for (label,) in csv.reader(file)])
    if beside:
        Path(beside.removeprefix("file:")).read_bytes()
    return program
