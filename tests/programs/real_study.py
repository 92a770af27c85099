"""The tiny study with a probe of real numbers or embeddings; ``--arg`` selects variants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tiny_study
import torch
from torch import Tensor, nn

import auditkit as ak


def two_numbers(model: nn.Module, inputs: Tensor) -> Tensor:
    """What a regression would predict: the first two scores."""
    found: Tensor = model(inputs)[:, :2]
    return found


def hidden(model: nn.Module, inputs: Tensor) -> Tensor:
    """Embeddings: what the first layer gives."""
    layers: Any = model
    found: Tensor = layers.first(inputs)
    return found


def policy(model: nn.Module, states: Tensor) -> Tensor:
    """What an agent would do in each state: probabilities of its actions."""
    found: Tensor = model(states).softmax(dim=1)
    return found


def worst_error(outputs: Tensor, targets: Tensor | None) -> Tensor:
    """The largest error of one prediction."""
    assert targets is not None
    assert outputs.dtype == torch.float32
    return (outputs - targets).abs().max()


def hits(outputs: Tensor, labels: Tensor | None) -> float:
    """Accuracy, by hand."""
    assert labels is not None
    return float((outputs.argmax(dim=1) == labels).float().mean())


def make_program(seed: int, probes: str = "real", measures: str = "", **given: str) -> ak.Program:
    """Build one variant.

    Args:
        seed: The study seed.
        probes: Of the probes below, joined by ``+``; of one alone it is the probe without a name.
        measures: Of the measures below, the same.
        given: As of the tiny study.
    """
    base = tiny_study.make_program(seed, **given)
    points = tiny_study.make_points()
    inputs, sums = points.inputs[:9].clone(), points.inputs[:9, :2].clone().cumsum(dim=1)

    def real(targets: Tensor | None = sums, predict: Any = two_numbers, n: int = 9) -> ak.Probe:
        return ak.Probe(inputs[:n], targets, predict=predict, outputs="regression")

    def embedding(predict: Any = hidden, n: int = 9) -> ak.Probe:
        return ak.Probe(inputs[:n], predict=predict, outputs="embedding")

    known: dict[str, Callable[[], ak.Probe]] = {
        "real": real,
        "bare": lambda: real(None),
        "constant": lambda: real(torch.stack([sums[:, 0], torch.ones(9)], dim=1)),
        "one": lambda: real(sums[:1], n=1),
        "still": lambda: real(predict=lambda model, inputs: 0 * model(inputs)[:, :2]),
        "softmax": lambda: real(
            torch.randn(9, 3, generator=torch.Generator().manual_seed(2)), policy
        ),
        "narrow": lambda: real(predict=lambda model, inputs: model(inputs)[:, 0]),
        "nan": lambda: real(predict=lambda model, inputs: model(inputs)[:, :2] * torch.nan),
        "huge": lambda: real(predict=lambda model, inputs: model(inputs)[:, :2].double() + 1e300),
        "whole": lambda: real(predict=lambda model, inputs: model(inputs)[:, :2].long()),
        "emb": embedding,
        "empty": lambda: embedding(lambda model, inputs: model(inputs)[:, :0]),
        "pair": lambda: embedding(n=2),
        "point": lambda: embedding(lambda model, inputs: hidden(model, 0 * inputs)),
        "policy": lambda: ak.Probe(inputs, predict=policy, probabilities=True),
        "classes": lambda: ak.Probe(inputs, points.labels[:9]),
        "tokens": lambda: ak.Probe(
            inputs, predict=lambda model, inputs: model(inputs)[:, None].expand(-1, 2, -1)
        ),
    }
    chosen = probes.split("+")
    named = {name: known[name]() for name in chosen}
    is_one = len(chosen) == 1
    on = "probe" if is_one else chosen[0]
    all_measures = {
        "worst": ak.Measure(worst_error, better="lower", low=0, on=on),
        "hits": ak.Measure(hits, better="higher", low=0, high=1, on=on),
        "beyond": ak.Measure(worst_error, high=1e-6, on=on),
        "undefined": ak.Measure(lambda outputs, targets: float("nan"), on=on),
        "elsewhere": ak.Measure(worst_error, on="none"),
        "raises": ak.Measure(lambda outputs, targets: 1 / 0, on=on),
    }
    return replace(
        base,
        probe=named[chosen[0]] if is_one else None,
        probes={} if is_one else named,
        measures={name: all_measures[name] for name in filter(None, measures.split("+"))},
    )
