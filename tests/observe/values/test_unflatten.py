from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditkit.errors import FormatError
from auditkit.formats.canonical import dumps
from auditkit.observe.values.flatten import flatten
from auditkit.observe.values.tensors import Leaves
from auditkit.observe.values.unflatten import unflatten

X = torch.arange(4, dtype=torch.uint8)
HOSTILE: list[Any] = [
    1.5,
    {},
    {"$": "no such"},
    {"$": 1},
    {"$": ["dict"]},
    {"$": "dict", "keys": [1]},
    {"$": "dict", "keys": [1], "values": []},
    {"$": "dict", "keys": [1, 1], "values": [1, 1]},
    {"$": "dict", "keys": [[1]], "values": [1]},
    {"$": "dict", "keys": 1, "values": 1},
    {"$": "dict", "keys": [], "values": [], "more": 1},
    {"$": "OrderedDict", "keys": []},
    {"$": "OrderedDict", "keys": [], "values": [], "attributes": {}},
    {
        "$": "dict",
        "keys": [{"$": "tensor", "entry": "x", "parameter": False, "grad": False}],
        "values": [1],
    },
    {"$": "set", "items": [1, 1]},
    {"$": "set", "items": [[]]},
    {"$": "defaultdict", "keys": [], "values": [], "factory": "eval"},
    {"$": "defaultdict", "keys": [], "values": [], "factory": ["int"]},
    {"$": "deque", "items": [1, 2], "maxlen": 1},
    {"$": "deque", "items": [], "maxlen": True},
    {"$": "deque", "items": [], "maxlen": -1},
    {"$": "tuple", "items": "ab"},
    {"$": "tuple", "items": None},
    {"$": "int", "hex": "0x10"},
    {"$": "int", "hex": 5},
    {"$": "ints", "of": "set", "text": "1"},
    {"$": "ints", "of": "list", "text": "1,,2"},
    {"$": "ints", "of": ["list"], "text": "1"},
    {"$": "ints", "of": "list", "text": "9" * 5000},
    {"$": "float", "bits": "00"},
    {"$": "float", "bits": "zz" * 8},
    {"$": "complex", "bits": "00" * 8},
    {"$": "str", "utf8": "ff"},
    {"$": "bytes", "hex": "0"},
    {"$": "bytes", "hex": "A0"},
    {"$": "size", "items": ["a"]},
    {"$": "size", "items": [{"$": "int", "hex": "f" * 40}]},
    {"$": "dtype", "name": "nn"},
    {"$": "dtype", "name": "__dict__"},
    {"$": "dtype", "name": 3},
    {"$": "device", "name": "toaster"},
    {"$": "device", "name": None},
    {"$": "tensor", "entry": "y", "parameter": False, "grad": False},
    {"$": "tensor", "entry": "", "parameter": False, "grad": False},
    {"$": "tensor", "entry": ["x"], "parameter": False, "grad": False},
    {"$": "tensor", "entry": "x", "parameter": 1, "grad": False},
    {"$": "tensor", "entry": "x", "parameter": False, "grad": True},
    {"$": "tensor", "entry": "x", "parameter": True, "grad": True},
    {"$": "ndarray", "entry": "x", "dtype": "|O", "shape": [1], "order": "C"},
    {"$": "ndarray", "entry": "x", "dtype": "<f4", "shape": [2], "order": "C"},
    {"$": "ndarray", "entry": "x", "dtype": "<f4", "shape": [-1], "order": "C"},
    {"$": "ndarray", "entry": "x", "dtype": "<f4", "shape": [True], "order": "C"},
    {"$": "ndarray", "entry": "x", "dtype": "<f4", "shape": [1], "order": ["C"]},
    {"$": "ndarray", "entry": "x", "dtype": "<f4", "shape": [1] * 65, "order": "C"},
    {"$": "ndarray", "entry": "e", "dtype": "<f4", "shape": [0, 2**52, 2**52], "order": "C"},
    {"$": "ndarray", "entry": "e", "dtype": "|S9999999999999", "shape": [0], "order": "C"},
    {"$": "ndarray", "entry": "e", "dtype": "<U999999999", "shape": [0], "order": "C"},
    {"$": "ndarray", "entry": "e", "dtype": "<M8[99999999999s]", "shape": [0], "order": "C"},
    {"$": "ndarray", "entry": "e", "dtype": "<M8[nonsense]", "shape": [0], "order": "C"},
    {"$": "ndarray", "entry": "u", "dtype": "<U1", "shape": [1], "order": "C"},
    {"$": "npscalar", "dtype": "<f8", "hex": "00"},
    {"$": "npscalar", "dtype": "|S2", "hex": "0000"},
    {"$": "npscalar", "dtype": None, "hex": "00"},
    {"$": "npstr", "value": 3},
]


@pytest.mark.parametrize("node", HOSTILE, ids=lambda node: ascii(node)[:60])
def test_hostile_structures_are_format_errors(node: object) -> None:
    leaves = {"x": X, "e": X[:0], "u": torch.full((4,), 255, dtype=torch.uint8)}
    with pytest.raises(FormatError):
        unflatten(
            {
                "": dumps(
                    [
                        node,
                        *(
                            {"$": "tensor", "entry": e, "parameter": False, "grad": False}
                            for e in leaves
                        ),
                    ]
                ),
                **leaves,
            }
        )


@pytest.mark.parametrize(
    "leaves",
    [
        {},
        {"": torch.ones(1)},
        {"": b"{"},
        {"": b"null", "extra": torch.ones(1)},
        {"": b"[" * 1000 + b"]" * 1000},
        {"": dumps({"$": "tensor", "entry": "x", "parameter": False, "grad": False}), "x": b"1"},
    ],
)
def test_leaves_that_are_no_tree_are_format_errors(leaves: Leaves) -> None:
    with pytest.raises(FormatError):
        unflatten(leaves)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 99)
    | st.text(max_size=3)
    | st.sampled_from(["x", "C", "<f4", "00"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.sampled_from(HOSTILE[1:]).flatmap(
            lambda node: st.fixed_dictionaries(
                {key: st.just(value) | inner for key, value in node.items()}
            )
        )
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(JSON)
def test_forged_structures_are_trees_or_format_errors(node: object) -> None:
    try:
        tree = unflatten({"": dumps(node), "x": X})
    except FormatError:
        return
    flatten(tree, where="forged")
