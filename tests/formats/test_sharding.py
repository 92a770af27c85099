from __future__ import annotations

from typing import Any

import pytest

from auditkit.errors import FormatError
from auditkit.formats.canonical import dumps
from auditkit.formats.chunk_digests import parts_of
from auditkit.formats.shard_parts import checkpoint_parts, parts_from_tensors, parts_to_tensors
from auditkit.formats.sharding import read_sharding, sharding_leaves
from auditkit.records.sharding import Shard, Sharding
from auditkit.records.tensor import RawTensor

SHARDING: Sharding = {"params": {"0.weight": Shard((5, 2), 3), "0.bias": Shard((5,), 5)}}
ENTRIES = {
    "0.weight": RawTensor("float32", (2, 2), bytes(range(16))),
    "0.bias": RawTensor("float32", (0,), b""),
}


def test_the_section_is_read_as_it_was_written() -> None:
    leaves = sharding_leaves(SHARDING)
    assert read_sharding(leaves["sharding"]) == SHARDING
    assert sharding_leaves({}) == {}
    assert read_sharding(None) == {}


@pytest.mark.parametrize(
    "tree",
    [
        [],
        {"params": []},
        {"params": {"w": 3}},
        {"params": {"w": {"first": 0}}},
        {"params": {"w": {"first": 0, "shape": [2], "more": 1}}},
        {"params": {"w": {"first": True, "shape": [2]}}},
        {"params": {"w": {"first": 3, "shape": [2]}}},
        {"params": {"w": {"first": 1, "shape": []}}},
        {"params": {"w": {"first": 0, "shape": [-2]}}},
        {"params": {"w": {"first": 0, "shape": ["2"]}}},
        {"params": {"w": {"first": 0, "shape": [2**52, 2**52]}}},
    ],
)
def test_a_section_that_is_none(tree: object) -> None:
    with pytest.raises(FormatError):
        read_sharding({"": dumps(tree)})


@pytest.mark.parametrize("section", [{}, {"": 3}, {"": b"{"}, {"": b"{}", "more": b"1"}])
def test_a_section_of_another_form(section: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        read_sharding(section)


def test_parts_are_read_as_they_were_written() -> None:
    parts = {"params": parts_of(ENTRIES, SHARDING["params"], "params")}
    assert parts["params"]["0.weight"].start == 24
    assert parts_from_tensors(*parts_to_tensors(parts)) == parts


@pytest.mark.parametrize("meta", [None, [], {"params": 3}, {"params": {"w": [1]}}])
def test_a_file_of_parts_that_is_none(meta: object) -> None:
    with pytest.raises(FormatError, match="no file of parts"):
        parts_from_tensors({}, meta)


def test_a_checkpoint_contributes_what_is_sharded_and_aliases_with_their_content() -> None:
    leaves = sharding_leaves({"params": {**SHARDING["params"], "tied": Shard((5, 2), 3)}})
    sections: dict[str, Any] = {
        "params": (ENTRIES, {"tied": "0.weight"}),
        "modules": ({"": b"{}"}, {}),
        "sharding": (leaves["sharding"], {}),
    }
    found = checkpoint_parts(sections)
    assert found.keys() == {"params"}
    assert found["params"]["tied"] == found["params"]["0.weight"]
    del sections["params"]
    with pytest.raises(FormatError, match="not there"):
        checkpoint_parts(sections)
    assert checkpoint_parts({}) == {}
