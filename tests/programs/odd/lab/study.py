"""The study of the package."""

from __future__ import annotations

from odd_kit import STUDY, points, program

import auditkit as ak

from .nets import net  # noqa: TID252 # that is what is tried

__all__ = ["STUDY"]


def make_program(seed: int) -> ak.Program:
    """The program."""
    return program(net(), points())
