"""What no RNG contract covers, named so that nobody takes it for covered."""

from __future__ import annotations

import sys

import torch

from auditkit.records.rng import ALWAYS_UNCOVERED

_OTHER_LIBRARIES = ("jax", "tensorflow", "cupy", "numba", "torchdata", "dgl")


def uncovered_streams() -> tuple[str, ...]:
    """Sources of randomness that the contract does not cover, for people."""
    found = list(ALWAYS_UNCOVERED)
    found.extend(
        f"random state of {library}, which is imported"
        for library in _OTHER_LIBRARIES
        if library in sys.modules
    )
    for backend in ("mps", "xpu"):
        module = getattr(torch, backend, None)
        if module is not None and module.is_available():
            found.append(f"torch.{backend} generators")
    return tuple(found)
