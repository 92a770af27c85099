"""Batches of classes that somebody else wrote: their items count, and their class by name."""

from __future__ import annotations

import itertools
from collections import OrderedDict, UserDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from auditkit.errors import FormatError, UncapturedState
from auditkit.observe.values.classes import loaded_class
from auditkit.observe.values.codec import flatten, unflatten
from auditkit.observe.values.digests import commitments
from auditkit.observe.values.flatten import batch_leaves


class Encoding(UserDict[str, Any]):
    """As a tokenizer's BatchEncoding: a mapping with more beside its items."""

    def __init__(self, data: Any = None) -> None:
        super().__init__(data)
        self.alignment = object()


@dataclass
class Output(OrderedDict[str, Any]):
    """As a ModelOutput: a dataclass that is a mapping, too."""

    loss: Any = None

    def __init__(self, items: Any = ()) -> None:
        super().__init__(items)


class Frozen(Mapping[str, Any]):
    def __init__(self, items: Mapping[str, Any]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class Pair(NamedTuple):
    inputs: Any
    labels: Any


@dataclass(frozen=True)
class Example:
    inputs: Any
    labels: Any = None


def digest(batch: Any) -> dict[str, str]:
    return commitments({"": batch_leaves(batch)})


X, Y = torch.arange(6.0).view(3, 2), torch.tensor([0, 1, 2])

BATCHES = [
    Encoding({"input_ids": X, "labels": Y}),
    Output({"loss": X}),
    Frozen({"x": X}),
    Pair(X, Y),
    Example(X),
    Example([Pair(X, {"deep": Encoding({"y": Y})})], "text"),
    pack_sequence([torch.ones(3, 2), torch.ones(1, 2)]),
]


@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: type(batch).__name__)
def test_a_batch_comes_back_as_its_class_with_its_items(batch: Any) -> None:
    leaves = flatten(batch, where="batch", data=True)
    again = unflatten(leaves)
    assert type(again) is type(batch)
    assert digest(again) == digest(batch)
    assert not set(leaves) - {""} or all(
        isinstance(leaves[name], Tensor) for name in leaves if name
    )


@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: type(batch).__name__)
def test_state_is_compared_exactly_still(batch: Any) -> None:
    with pytest.raises(UncapturedState, match="cannot be captured"):
        flatten(batch, where="extras/mine")


def test_another_item_and_another_class_have_another_digest() -> None:
    plain = {"x": X}
    assert len({str(digest(b)) for b in (plain, Frozen(plain), Encoding(plain))}) == 3
    assert digest(Encoding({"x": X})) != digest(Encoding({"x": X + 1}))
    assert digest(Pair(X, Y)) != digest(Pair(Y, X))
    assert digest(Encoding({"a": X, "b": Y})) != digest(Encoding({"b": Y, "a": X}))


def test_entries_are_named_by_key_or_field() -> None:
    batch = [Example(Encoding({"input_ids": X})), Pair(X.clone(), Y)]
    assert set(flatten(batch, where="batch", data=True)) == {
        "",
        "0/inputs/input_ids",
        "1/inputs",
        "1/labels",
    }


def test_an_item_that_cannot_be_captured_is_named_by_its_path() -> None:
    with pytest.raises(UncapturedState) as caught:
        batch_leaves(Example(Encoding({"lines": iter("ab")})))
    assert caught.value.where == "batch/inputs/lines"


def test_a_mapping_that_goes_on_for_ever_is_refused() -> None:
    class Endless(Frozen):
        def __iter__(self) -> Iterator[str]:
            return itertools.repeat("x")

    with pytest.raises(UncapturedState, match="another number of keys than its length"):
        batch_leaves([Endless({"x": X})])


def test_a_container_of_a_class_that_contains_itself_is_refused() -> None:
    batch = Encoding({})
    batch["self"] = batch
    with pytest.raises(UncapturedState, match="contains itself"):
        batch_leaves(batch)


@given(
    st.recursive(
        st.one_of(st.integers(), st.text(), st.just(X)),
        lambda inner: st.one_of(
            st.dictionaries(st.text(), inner, max_size=3).map(Encoding),
            st.dictionaries(st.integers(), inner, max_size=3),
            st.tuples(inner, inner).map(lambda pair: Pair(*pair)),
            st.tuples(inner, inner).map(lambda pair: Example(*pair)),
            st.lists(inner, max_size=3),
        ),
        max_leaves=8,
    )
)
def test_nested_batches_come_back(batch: Any) -> None:
    assert digest(unflatten(flatten(batch, where="batch", data=True))) == digest(batch)


def test_only_classes_of_the_three_kinds_are_found_by_name_and_only_loaded_ones() -> None:
    module = Encoding.__module__
    assert loaded_class(f"{module}.Encoding") is Encoding
    assert loaded_class("torch.nn.utils.rnn.PackedSequence") is PackedSequence
    for name in ("subprocess.Popen", "torch.nn.modules.linear.Linear", "numpy.ndarray"):
        assert loaded_class(name) is None
    for name in (f"{module}.X", f"{module}.Nothing", "not_loaded.Thing", "Encoding", "", "."):
        assert loaded_class(name) is None


@pytest.mark.parametrize(
    ("known", "forged", "message"),
    [
        (Example.__qualname__, "Another", "of a class that is not loaded here"),
        ("inputs", "outputs", "no Example of these items"),
    ],
)
def test_a_forged_class_or_field_is_a_format_error(known: str, forged: str, message: str) -> None:
    text = flatten(Example(1, 2), where="batch", data=True)[""]
    assert isinstance(text, bytes)
    with pytest.raises(FormatError, match=message):
        unflatten({"": text.replace(known.encode(), forged.encode())})


def test_numbers_of_numpy_are_items_like_others() -> None:
    batch = Encoding({"ids": np.arange(3), "n": np.float32(1.5)})
    assert digest(unflatten(flatten(batch, where="batch", data=True))) == digest(batch)
