"""A language model of a few words, probed a label a position; ``--arg`` selects variants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import auditkit as ak

N_WORDS = 7
N_PROBE = 5
LENGTH = 6


class Words(nn.Module):
    """Says of every position which word comes next, by two words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(N_WORDS, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, N_WORDS)

    def forward(self, ids: Tensor) -> Tensor:
        here = self.words(ids)
        before = here.cumsum(dim=1)
        return self.head(self.norm((here + before).transpose(1, 2)).transpose(1, 2))  # type: ignore[no-any-return]


def sentences(n: int, seed: int) -> Tensor:
    """int64 ``(n, LENGTH + 1)``; every word makes the next likely."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(N_WORDS, (n, LENGTH + 1), generator=draw)
    ids[:, 1::2] = (ids[:, 0:-1:2] + 1) % N_WORDS
    return ids


def flat(model: nn.Module, ids: Tensor) -> Tensor:
    """The scores of every position that has a label, as rows of one table."""
    return model(ids)[:, 1:].reshape(-1, N_WORDS)  # type: ignore[no-any-return]


def noisy(model: nn.Module, ids: Tensor) -> Tensor:
    """Scores with noise that every branch must be given alike."""
    return model(ids) + torch.rand(N_WORDS)  # type: ignore[no-any-return]


def make_program(
    seed: int, view: str = "tokens", rows: str = "5", predict: str = "plain"
) -> ak.Program:
    """Build one variant.

    Args:
        seed: The study seed.
        view: ``tokens``: a label a position, the first left out; ``flat``: the same positions as
            rows of a whole table; ``none``: no labels; ``rows-none``: neither, of a whole table.
        rows: Rows of the probe that are passed at once.
        predict: ``plain``, ``noisy``, or ``leaky``: what it gives depends on what was trained.
    """
    ids = sentences(N_PROBE, 2)
    inputs, labels = ids[:, :-1], ids[:, 1:].clone()
    labels[:, 0] = -100
    model = Words()
    seen: list[float] = []

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        if model.training and predict == "leaky":
            seen.append(model.head.weight[0, 0].item())  # type: ignore[index,union-attr]
        scores = model(batch[:, :-1])
        return nn.functional.cross_entropy(scores.flatten(0, 1), batch[:, 1:].flatten())

    def leaky(model: nn.Module, ids: Tensor) -> Tensor:
        return model(ids) + torch.arange(N_WORDS) * sum(seen)  # type: ignore[no-any-return]

    ways: dict[str, Any] = {"plain": None, "noisy": noisy, "leaky": leaky}
    probes = {
        "tokens": lambda: ak.Probe(inputs, labels, ways[predict], batch_size=int(rows)),
        "flat": lambda: ak.Probe(inputs, labels[:, 1:].flatten(), flat),
        "none": lambda: ak.Probe(inputs, batch_size=int(rows)),
        "rows-none": lambda: ak.Probe(inputs, predict=flat),
    }
    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9),
        loader=DataLoader(sentences(14, 1), batch_size=4, shuffle=True),  # type: ignore[arg-type]
        loss=loss,
        probe=probes[view](),
    )
