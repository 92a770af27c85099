"""The tiny study with several probes, and with measures; ``--arg`` selects variants."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import tiny_study
import torch

import auditkit as ak


def drawn_accuracy(program: ak.Program) -> float:
    """Accuracy on points that it draws, of all three streams."""
    shift = random.random() + float(np.random.rand())
    points = torch.randn(6, tiny_study.N_FEATURES) + shift
    assert not program.model.training
    return float((program.model(points).argmax(dim=1) == 0).float().mean())


def norm(program: ak.Program) -> torch.Tensor:
    """Size of the last layer's weights."""
    last: Any = program.model.last
    return last.weight.square().sum()  # type: ignore[no-any-return]


def writing(program: ak.Program) -> float:
    """It trains."""
    last: Any = program.model.last
    last.weight.data += 1
    return 0.0


def hooking(program: ak.Program) -> float:
    """It changes what training computes from now on."""
    last: Any = program.model.last
    last.weight.register_hook(lambda grad: grad * 2)
    return 0.0


def lost(program: ak.Program) -> float:
    """No number once the momentum was reset."""
    states = list(program.optimizer.state.values())
    buffers = [state["momentum_buffer"] for state in states if "momentum_buffer" in state]
    return float("nan") if any(not b.any() for b in buffers if b is not None) else 1.0


def make_program(seed: int, probes: str = "in+out", measures: str = "", **given: str) -> ak.Program:
    """Build one variant.

    Args:
        seed: The study seed.
        probes: Of ``in``, ``out``, ``bare`` (no labels), joined by ``+`` in their order; ``none``.
        measures: Of ``hits``, ``norm``, ``text``, ``beyond``, ``writes``, ``raises``, ``hooks``,
            ``lost``, the same.
        given: As of the tiny study.
    """
    base = tiny_study.make_program(seed, **given)
    points = tiny_study.make_points()
    own = base.probe
    assert own is not None
    known = {
        "in": own,
        "out": ak.Probe(points.inputs[8:] + 1, points.labels[8:]),
        "bare": ak.Probe(points.inputs[4:10] - 1),
    }
    all_measures: dict[str, ak.Measure | Callable[[ak.Program], Any]] = {
        "hits": ak.Measure(drawn_accuracy, better="higher", low=0, high=1),
        "norm": norm,
        "text": lambda program: "much",
        "beyond": ak.Measure(norm, high=1e-6),
        "writes": writing,
        "raises": lambda program: 1 / 0,
        "hooks": hooking,
        "lost": lost,
    }
    chosen = [] if probes == "none" else probes.split("+")
    return replace(
        base,
        probe=None,
        probes={name: known[name] for name in chosen},
        measures={name: all_measures[name] for name in filter(None, measures.split("+"))},
    )
