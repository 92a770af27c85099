"""The sums that torch makes where the tensors lie, beside those of bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_digests import every_kind, random_bytes, raw
from torch import Tensor, nn

from auditkit.errors import UncapturedState
from auditkit.formats.recipes import digest_raw
from auditkit.formats.word_mix import tensor_sums
from auditkit.observe.values import word_sums
from auditkit.observe.values.digests import digest_leaves
from auditkit.observe.values.tensors import DTYPES, Leaves, host_bytes
from auditkit.observe.values.word_sums import WordSummer
from auditkit.records.digest import MIX_RECIPE

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


def summed(state: dict[str, Leaves]) -> dict[str, bytes]:
    return WordSummer().start(state).read()


def whole(state: dict[str, Leaves]) -> dict[str, bytes]:
    return {name: digest_leaves(MIX_RECIPE, leaves) for name, leaves in state.items()}


def test_every_kind_of_tensor_is_summed_by_its_content() -> None:
    kinds = every_kind()
    state: dict[str, Leaves] = {
        "all": {**kinds, "": b"{}"},
        **{name: {name: tensor} for name, tensor in kinds.items()},
        "text": {"": b"[]"},
        "nothing": {},
    }
    expected = {
        name: digest_raw(
            MIX_RECIPE,
            {n: leaf if isinstance(leaf, bytes) else raw(leaf) for n, leaf in leaves.items()},
            {},
        )
        for name, leaves in state.items()
    }
    assert summed(state) == expected == whole(state)


@given(
    st.sampled_from(sorted(DTYPES)),
    st.lists(st.integers(0, 9), max_size=3),
    st.integers(0, 3),
    st.booleans(),
)
def test_any_shape_stride_and_offset(
    name: str, shape: list[int], offset: int, turned: bool
) -> None:
    count = int(torch.tensor(shape).prod()) if shape else 1
    tensor = random_bytes(DTYPES[name], count + offset)[offset:].view(shape)
    if turned and len(shape) > 1:
        tensor = tensor.transpose(0, 1)
    state: dict[str, Leaves] = {"one": {"x": tensor}, "two": {"x": tensor, "y": torch.ones(5)}}
    assert summed(state) == whole(state)


@pytest.mark.parametrize("limit", [1, 1000, 2**28])
def test_no_digest_hangs_on_how_much_is_laid_out(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_sums, "_LAID_OUT", limit)
    monkeypatch.setattr(word_sums, "_ROWS_AT_ONCE", 3)
    state: dict[str, Leaves] = {
        "params": {"w": torch.randn(64, 33), "b": torch.randn(7), "n": torch.arange(3)},
        "half": {"w": torch.randn(200).bfloat16(), "b": torch.randn(128)[64:]},
    }
    assert summed(state) == whole(state)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = self.two = nn.Parameter(torch.randn(3))


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "nothing": lambda leaves: None,
    "a value": lambda leaves: leaves["w"].view(-1)[3].add_(1),
    "a value of another": lambda leaves: leaves["b"].neg_(),
    "another tensor": lambda leaves: leaves.update(w=torch.ones(3, 4)),
    "another shape": lambda leaves: leaves.update(w=torch.ones(4, 3)),
    "another dtype": lambda leaves: leaves.update(w=torch.ones(3, 4, dtype=torch.float64)),
    "another stride": lambda leaves: leaves.update(w=torch.arange(12.0).view(4, 3).t()),
    "another text": lambda leaves: leaves.update({"": b"[1]"}),
    "a tensor more": lambda leaves: leaves.update(c=torch.ones(2)),
    "a tensor less": lambda leaves: leaves.pop("b"),
    "tied": lambda leaves: leaves.update(b=leaves["w"]),
    "turned": lambda leaves: leaves.update(w=torch.randn(4, 3, dtype=torch.complex64).mH),
    "a text for a tensor": lambda leaves: leaves.update(w=b"{}"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_stale_is_given(change: str) -> None:
    summer = WordSummer()
    leaves: dict[str, Any] = {"w": torch.randn(3, 4), "b": torch.randn(12), "": b"[]"}
    state: dict[str, Leaves] = {"params": leaves, "rng": {"": b"1"}}
    before = summer.start(state).read()
    assert before == whole(state)
    CHANGES[change](leaves)
    after = summer.start(state).read()
    assert after == whole(state)
    assert (after == before) == (change == "nothing")


def test_what_was_begun_is_of_the_state_that_was() -> None:
    weight = torch.randn(40)
    state: dict[str, Leaves] = {"params": {"w": weight}}
    begun, expected = WordSummer().start(state), whole(state)
    weight.zero_()
    assert begun.read() == expected == begun.read()


def test_two_layouts_are_kept_and_many_are_not() -> None:
    summer = WordSummer()
    for count in (1, 2, 1, 2, 3, 4, 5, 6, 7):
        state: dict[str, Leaves] = {
            "grad": {str(n): torch.full((n + 1,), 2.0) for n in range(count)}
        }
        assert summer.start(state).read() == whole(state)
    assert len(summer._layouts) == 4


def test_a_freed_tensor_is_refused_when_it_is_freed() -> None:
    summer, weight = WordSummer(), torch.randn(4)
    state: dict[str, Leaves] = {"params": {"w": weight}}
    summer.start(state)
    weight.untyped_storage().resize_(0)
    with pytest.raises(UncapturedState, match="was freed"):
        summer.start(state)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(2, 2).to_sparse(),
        lambda: torch.ones(2, device="meta"),
        lambda: nn.LazyLinear(2).weight,
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_has_no_plain_memory_is_refused(make: Callable[[], Tensor]) -> None:
    with pytest.raises(UncapturedState, match="cannot be captured"):
        WordSummer().start({"params": {"w": make()}})


def test_the_state_is_left_alone() -> None:
    weight = nn.Parameter(torch.randn(64, 2))
    before, version = weight.detach().clone(), weight._version
    WordSummer().start({"params": {"w": weight}}).read()
    assert torch.equal(weight, before)
    assert weight._version == version
    weight.untyped_storage().resize_(0)  # nothing holds it


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_sums_of_the_host() -> None:
    kinds = every_kind()
    there: Leaves = {name: tensor.cuda() for name, tensor in kinds.items()}
    assert summed({"all": there}) == whole({"all": there})
    sums = tensor_sums(host_bytes(kinds["slice"]))
    assert sums == tensor_sums(host_bytes(kinds["slice"].cuda()))
