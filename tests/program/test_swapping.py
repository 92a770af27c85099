from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_programs import batchnorm_net
from torch import nn

from auditkit.errors import RestoreMismatch
from auditkit.program.swapping import fitted, swapped, weights_of


class Tied(nn.Module):
    """A head that is the embedding, and a buffer that no file keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.words.weight
        self.scale: torch.Tensor
        self.register_buffer("scale", torch.rand(()), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.words(ids)) * self.scale  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("make", "inputs"),
    [(Tied, torch.tensor([0, 4])), (batchnorm_net, torch.randn(3, 4))],
    ids=["tied", "batchnorm"],
)
def test_a_module_gives_what_another_one_gives_and_is_itself_afterwards(
    make: Callable[[], nn.Module], inputs: torch.Tensor
) -> None:
    here, there = make().eval(), make().eval()
    expected, own = there(inputs), here(inputs)
    parameters = [id(parameter) for parameter in here.parameters()]
    with swapped(here, fitted(here, weights_of(there))):
        assert torch.equal(here(inputs), expected)
        assert not torch.equal(here(inputs), own)
    assert torch.equal(here(inputs), own)
    assert [id(parameter) for parameter in here.parameters()] == parameters


def test_what_raises_in_between_leaves_the_module_as_it_was() -> None:
    here, there = nn.Linear(2, 2), nn.Linear(2, 2)
    own = here.weight.clone()

    def broken() -> None:
        with swapped(here, fitted(here, weights_of(there))):
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        broken()
    assert torch.equal(here.weight, own)


def test_the_memory_layout_is_the_modules_own() -> None:
    here = nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = fitted(here, weights_of(nn.Conv2d(2, 2, 3)))
    assert found["weight"].stride() == here.weight.stride()


@pytest.mark.parametrize("other", [nn.Linear(3, 2), nn.Linear(2, 2, bias=False)])
def test_weights_of_another_module_are_refused(other: nn.Module) -> None:
    with pytest.raises(RestoreMismatch, match="other weights"):
        fitted(nn.Linear(2, 2), weights_of(other))
