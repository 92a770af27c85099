"""The model of the package."""

from __future__ import annotations

from torch import nn

from .settings import WIDTH  # noqa: TID252 # that is what is tried


def net() -> nn.Module:
    """A small network."""
    return nn.Sequential(nn.Linear(6, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 3))
