from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from auditkit.errors import NothingToPerturb
from auditkit.observe.rng.streams import capture_streams
from auditkit.perturbations.data import DataPerturbation, WindowBatch
from auditkit.perturbations.registry import perturbation_of
from auditkit.program.supply import Supply

Pair = namedtuple("Pair", ["image", "label"])  # as a data set may yield it
LABELS = torch.arange(400) % 4


def given(delivered: Any, step: int = 3, seed: int = 1) -> WindowBatch:
    return WindowBatch(delivered, step, seed, None, {}, 4, lambda _, name, given: given)


def change(name: str, batch: WindowBatch, **parameters: Any) -> Any:
    perturbation = perturbation_of(name)
    assert isinstance(perturbation, DataPerturbation)
    return perturbation.change(batch, {"draw": 0, **parameters})


def noisy(batch: Any, fraction: str = "0.25", **others: Any) -> Tensor:
    made = change("label-noise", given(batch, **others), fraction=fraction)
    found = made["labels"] if isinstance(made, Mapping) else made[-1]
    assert isinstance(found, Tensor)
    return found


def test_a_drawn_part_of_the_labels_becomes_other_classes() -> None:
    labels = noisy((torch.zeros(400), LABELS.clone()))
    share = float((labels != LABELS).float().mean())
    assert 0.19 < share < 0.31
    assert set(labels.tolist()) == {0, 1, 2, 3}
    assert labels.dtype == LABELS.dtype
    assert (noisy((LABELS, LABELS), "1") != LABELS).all()


def test_noise_follows_from_seed_step_and_draw_alone() -> None:
    first = noisy((LABELS, LABELS))
    assert torch.equal(first, noisy((LABELS, LABELS)))
    assert not torch.equal(first, noisy((LABELS, LABELS), step=4))
    assert not torch.equal(first, noisy((LABELS, LABELS), seed=2))
    drawn = change("label-noise", given((LABELS, LABELS)), fraction="0.25", draw=1)[-1]
    assert not torch.equal(first, drawn)


@pytest.mark.parametrize(
    "batch",
    [
        [torch.zeros(400), LABELS],
        {"inputs": torch.zeros(400), "labels": LABELS},
        Pair(torch.zeros(400), LABELS),
    ],
    ids=["list", "mapping", "named tuple"],
)
def test_labels_are_found_where_batches_have_them(batch: Any) -> None:
    made = change("label-noise", given(batch), fraction="0.5")
    assert type(made) is type(batch)
    assert (noisy(batch, "0.5") != LABELS).any()


@pytest.mark.parametrize("batch", [torch.zeros(3), (LABELS, torch.zeros(3)), {"x": LABELS}, ()])
def test_a_batch_without_labels_is_refused(batch: Any) -> None:
    with pytest.raises(NothingToPerturb, match="no whole-number labels"):
        noisy(batch)


def test_what_an_augmentation_draws_follows_from_the_step_and_moves_no_stream() -> None:
    def augment(batch: Tensor, step: int, generator: torch.Generator) -> Tensor:
        return batch + torch.randn(3, generator=generator) + torch.randn(3)

    supply = Supply(augment=augment, seed=1)
    before = capture_streams()
    once, again = supply(5, torch.zeros(3)), supply(5, torch.zeros(3))
    assert capture_streams().same_as(before)
    assert torch.equal(once, again)
    assert not torch.equal(once, supply(6, torch.zeros(3)))


def test_a_change_may_write_into_what_it_is_given_and_not_into_what_was_delivered() -> None:
    def blur(batch: Tensor, step: int, generator: torch.Generator) -> Tensor:
        return batch.mul_(2)

    supply = Supply(changes={"blur": blur})
    perturbation = perturbation_of("data-change")
    assert isinstance(perturbation, DataPerturbation)
    supply.begin(perturbation, {"name": "blur"}, range(3, 5))
    delivered = torch.ones(2)
    assert [supply(step, delivered).tolist() for step in (2, 3, 4, 5)] == [
        [1, 1],
        [2, 2],
        [2, 2],
        [1, 1],
    ]
    assert [supply.replaces(step) for step in (2, 3, 4, 5)] == [False, True, True, False]
