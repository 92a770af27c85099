"""Batches of classes that somebody else wrote: their items count, and their class by name."""

from __future__ import annotations

import enum
import itertools
import random
import threading
import types
import warnings
from collections import OrderedDict, UserDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
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


class Nested:
    """As a detector's NestedTensor: a plain object."""

    def __init__(self, tensors: Any, mask: Any = None) -> None:
        self.tensors, self.mask = tensors, mask


class Instances(Nested):
    """As a detector's Instances: a plain object that looks attributes up, and slots."""

    __slots__ = ("_fields",)

    def __init__(self, size: Any, fields: Any) -> None:
        object.__setattr__(self, "_fields", fields)
        super().__init__(size)

    def __setattr__(self, name: str, value: Any) -> None:
        self._fields[name] = value

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


class Layout(enum.Enum):
    CORNERS = "xyxy"
    CENTRE = "cxcywh"


class Boxes(Tensor):
    """As a BoundingBoxes of torchvision: elements, and attributes beside them."""

    layout_of: Layout


def boxes(layout: Layout) -> Boxes:
    made = X.clone().as_subclass(Boxes)
    made.layout_of = layout
    return made


def sparse(layout: torch.layout) -> Tensor:
    blocks = (2, 2) if layout in (torch.sparse_bsr, torch.sparse_bsc) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that some of them are new
        return torch.eye(4).to_sparse(layout=layout, blocksize=blocks)


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
    Nested(X, [Nested(Y)]),
    Instances((2, 3), {"boxes": X}),
    types.SimpleNamespace(x=X, n=1),
    Layout.CENTRE,
    boxes(Layout.CENTRE),
]
LAYOUTS = [
    torch.sparse_coo,
    torch.sparse_csr,
    torch.sparse_csc,
    torch.sparse_bsr,
    torch.sparse_bsc,
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
    with pytest.raises(UncapturedState, match=r"cannot be captured|a tensor subclass"):
        flatten(batch, where="extras/mine")


def test_another_item_and_another_class_have_another_digest() -> None:
    plain = {"x": X}
    assert len({str(digest(b)) for b in (plain, Frozen(plain), Encoding(plain))}) == 3
    assert digest(Encoding({"x": X})) != digest(Encoding({"x": X + 1}))
    assert digest(Pair(X, Y)) != digest(Pair(Y, X))
    assert digest(Encoding({"a": X, "b": Y})) != digest(Encoding({"b": Y, "a": X}))


def test_attributes_of_objects_and_tensors_count() -> None:
    assert digest(Nested(X, Y)) == digest(Nested(X.clone(), Y.clone()))
    assert len({str(digest(b)) for b in (Nested(X, Y), Nested(X, Y + 1), Nested(X + 1, Y))}) == 3
    assert digest(boxes(Layout.CENTRE)) == digest(boxes(Layout.CENTRE))
    others = boxes(Layout.CORNERS), X, boxes(Layout.CENTRE) + 1
    assert digest(boxes(Layout.CENTRE)) not in [digest(other) for other in others]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_sparse_batch_is_its_indices_and_values(layout: torch.layout) -> None:
    batch = {"adjacency": sparse(layout), "x": X}
    again = unflatten(flatten(batch, where="batch", data=True))
    assert again["adjacency"].layout is layout
    assert torch.equal(again["adjacency"].to_dense(), torch.eye(4))
    assert digest(again) == digest(batch)
    assert digest({**batch, "adjacency": sparse(layout) * 2}) != digest(batch)


def test_whether_a_sparse_tensor_is_coalesced_is_kept() -> None:
    twice = torch.sparse_coo_tensor(
        torch.tensor([[0, 0], [1, 1]]), torch.tensor([1.0, 2.0]), (2, 2), check_invariants=True
    )
    again = unflatten(flatten(twice, where="batch", data=True))
    assert not again.is_coalesced()
    assert torch.equal(again.coalesce().to_dense(), twice.to_dense())
    assert digest(twice) != digest(twice.coalesce())


@pytest.mark.parametrize(
    ("known", "forged"),
    [("sparse_coo", "strided"), ("_indices", "_values"), ("[4,4]", "[2,2]"), ("true", "7")],
)
def test_a_forged_sparse_tensor_is_a_format_error(known: str, forged: str) -> None:
    leaves = flatten(sparse(torch.sparse_coo), where="batch", data=True)
    text = leaves[""]
    assert isinstance(text, bytes)
    assert known.encode() in text
    with pytest.raises(FormatError, match=r"no sparse tensor|does not name|no tensor"):
        unflatten({**leaves, "": text.replace(known.encode(), forged.encode(), 1)})


class Drawn(random.Random):
    """Keeps its numbers where Python code does not."""


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Drawn(0), "Drawn"),
        (Path("data"), "Path"),
        (threading.Lock(), "lock"),
        (torch.Generator(), "Generator"),
        (np.random.default_rng(0), "Generator"),
        (type("Rows", (list,), {})(), "Rows"),
        (torch.SymInt.__new__(torch.SymInt), "SymInt"),
        (torch.nn.Linear(1, 1), "Linear"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_may_hold_more_than_attributes_is_refused(value: Any, name: str) -> None:
    with pytest.raises(UncapturedState, match=name) as caught:
        batch_leaves(Nested(X, value))
    assert caught.value.where == "batch/mask"
    assert "Nested cannot be captured" in caught.value.message


class Slotted:
    """Says of every name that it has it, as a proxy does."""

    __slots__ = ("first", "second")
    first: Any

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


class Hiding(Nested):
    def __getattribute__(self, name: str) -> Any:
        return {} if name == "__dict__" else super().__getattribute__(name)


class Guarded(Nested):
    @property
    def inputs(self) -> Any:
        raise AssertionError

    @inputs.setter
    def inputs(self, value: Any) -> None:
        raise AssertionError


class Again(Slotted):
    __slots__ = ("first",)


class Space(types.SimpleNamespace):
    pass


def filled(made: Any, **attributes: Any) -> Any:
    made.__dict__.update(attributes)
    return made


def test_attributes_are_read_and_put_back_without_asking_the_class() -> None:
    slotted = Slotted()
    slotted.first = 1
    for value in (slotted, filled(Guarded.__new__(Guarded), inputs=1, labels=2), Space(a=1)):
        back = unflatten(flatten(value, where="batch", data=True), where="batch")
        assert type(back) is type(value)
        assert digest(back) == digest(value)
    hidden = [Hiding.__new__(Hiding), Hiding.__new__(Hiding)]
    object.__setattr__(hidden[0], "inputs", 1)
    object.__setattr__(hidden[1], "inputs", 2)
    assert digest(hidden[0]) != digest(hidden[1])


def test_slots_of_one_name_in_two_classes_are_refused() -> None:
    value = Again()
    value.first = 1
    dict(vars(Slotted))["first"].__set__(value, 2)
    with pytest.raises(UncapturedState, match="two attributes of one name"):
        flatten(value, where="batch", data=True)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_a_sparse_tensor_that_requires_a_gradient_is_refused(layout: torch.layout) -> None:
    value = sparse(layout).requires_grad_()
    with pytest.raises(UncapturedState, match="requires a gradient"):
        flatten(value, where="batch", data=True)


def test_objects_that_share_others_over_and_over_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("auditkit.observe.values.flatten._MOST_CONTAINERS", 1000)
    value: Any = types.SimpleNamespace(x=1)
    for _ in range(60):
        value = types.SimpleNamespace(left=value, right=value)
    with pytest.raises(UncapturedState, match="data of more than 1,000 containers"):
        flatten(value, where="batch", data=True)
    flatten([[n] for n in range(2000)], where="state")


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


def test_only_classes_of_these_kinds_are_found_by_name_and_only_loaded_ones() -> None:
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
