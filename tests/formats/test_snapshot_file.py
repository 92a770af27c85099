from __future__ import annotations

import copy
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditkit.errors import FormatError
from auditkit.formats.canonical import dumps, loads
from auditkit.formats.snapshot_file import (
    FORMAT,
    contiguous_strides,
    is_dense,
    raw_components,
    read_components,
    tensor_key,
)
from auditkit.observe.values.codec import pack, unpack
from auditkit.observe.values.tensors import Leaves
from auditkit.records.tensor import RawTensor

TIED = torch.randn(2, 3)
STATE: dict[str, Leaves] = {
    "params": {"w": TIED, "z": TIED, "last": torch.randn(2, 3, 4, 5).permute(0, 2, 3, 1)},
    "optimizer/exp_avg": {"0.w/x": torch.randn(2, dtype=torch.complex64), "e": torch.empty(0, 2)},
    "rng/python": {"": dumps(list(range(3000))), "small": dumps({"$": "dict"})},
    "empty": {},
}


def packed() -> tuple[dict[str, RawTensor], Any]:
    tensors, meta = pack(STATE)
    return tensors, loads(dumps(meta), what="meta")


def test_the_layout_is_the_documented_one() -> None:
    tensors, meta = packed()
    assert meta["format"] == FORMAT
    assert {key: (raw.dtype, raw.shape, raw.n_bytes) for key, raw in tensors.items()} == {
        "optimizer~1exp_avg/0.w/x": ("uint8", (16,), 16),
        "optimizer~1exp_avg/e": ("float32", (0, 2), 0),
        "params/last": ("float32", (2, 4, 5, 3), 480),
        "params/w": ("float32", (2, 3), 24),
        "rng~1python/": ("uint8", (13891,), 13891),
    }
    assert meta["components"] == {
        "empty": {},
        "optimizer/exp_avg": {
            "0.w/x": {"dtype": "complex64", "shape": [2]},
            "e": {"dtype": "float32", "shape": [0, 2]},
        },
        "params": {
            "last": {"dtype": "float32", "shape": [2, 4, 5, 3], "stride": [60, 5, 1, 20]},
            "w": {"dtype": "float32", "shape": [2, 3]},
            "z": {"alias": "w"},
        },
        "rng/python": {"": {"json_bytes": 13891}, "small": {"json": {"$": "dict"}}},
    }


def test_raw_components_have_the_content() -> None:
    parts = raw_components(*packed())
    entries, aliases = parts["params"]
    assert aliases == {"z": "w"}
    assert set(entries) == {"w", "last"}
    assert parts["rng/python"][0]["small"] == b'{"$":"dict"}'
    moment = parts["optimizer/exp_avg"][0]["0.w/x"]
    assert isinstance(moment, RawTensor)
    assert (moment.dtype, moment.shape) == ("complex64", (2,))


def test_deep_json_is_stored_as_a_tensor() -> None:
    deep = b"[" * 60 + b"]" * 60
    tensors, meta = pack({"c": {"": deep}})
    assert set(tensors) == {"c/"}
    assert unpack(tensors, loads(dumps(meta), what="meta")) == {"c": {"": deep}}


@given(st.tuples(st.text("a/~01", max_size=4), st.text("a/~01", max_size=4)).map(tuple))
def test_keys_are_unambiguous(pair: tuple[str, str]) -> None:
    component, entry = pair
    escaped, _, found = tensor_key(component, entry).partition("/")
    assert found == entry
    assert escaped.replace("~1", "/").replace("~0", "~") == component


@given(st.lists(st.integers(0, 3), max_size=5), st.randoms(use_true_random=False))
def test_dense_strides_are_those_of_permutations(shape: list[int], random: Any) -> None:
    order = list(range(len(shape)))
    random.shuffle(order)
    tensor = torch.empty(shape).permute(order)
    sizes, stride = tuple(tensor.shape), tuple(tensor.stride())
    assert contiguous_strides(sizes) == torch.empty(sizes).stride()
    if 0 not in sizes:
        assert is_dense(sizes, stride)
    wider = tuple(2 * step for step in stride)
    assert is_dense(sizes, wider) == (math.prod(sizes) == 1)
    assert not is_dense((2, 2), (1, 1))
    assert not is_dense((1,), (2**53,))


def test_reading_needs_no_torch() -> None:
    modules = "auditkit.formats.snapshot_file, auditkit.formats.recipes"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
    )


Edit = tuple[str, Any]


def forged(path: list[str], value: Any) -> Any:
    """The meta with another value at a path; ... removes it."""
    meta = copy.deepcopy(packed()[1])
    node = meta
    for key in path[:-1]:
        node = node[key]
    if value is ...:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return meta


W = ["components", "params", "w"]
LAST = ["components", "params", "last"]
Z = ["components", "params", "z"]
JSON = ["components", "rng/python", ""]
E = ["components", "optimizer/exp_avg", "e"]


@pytest.mark.parametrize(
    "meta",
    [
        None,
        [],
        "text",
        {},
        {1: 2},
        {"format": FORMAT},
        {"format": FORMAT, "components": []},
        {"format": FORMAT, "components": {}},
        {"format": FORMAT, "components": {"params": 3}},
        forged(["format"], "auditkit-snapshot/2"),
        forged(["more"], 1),
        forged(["components", "params"], ...),
        forged(W, ...),
        forged(W, None),
        forged(W, {}),
        forged([*W, "more"], 1),
        forged([*W, "dtype"], ...),
        forged([*W, "dtype"], 3),
        forged([*W, "dtype"], ["float32"]),
        forged([*W, "dtype"], "float33"),
        forged([*W, "dtype"], "int32"),
        forged([*W, "dtype"], "complex64"),
        forged([*W, "dtype"], "alias-v1"),
        forged([*W, "shape"], [3, 2]),
        forged([*W, "shape"], [6]),
        forged([*W, "shape"], [2, 4]),
        forged([*W, "shape"], [-2, -3]),
        forged([*W, "shape"], [2, 3.0]),
        forged([*W, "shape"], [2, "3"]),
        forged([*W, "shape"], [True, 6]),
        forged([*W, "shape"], "23"),
        forged([*W, "shape"], None),
        forged([*W, "shape"], [2, 3] + [1] * 63),
        forged([*W, "offset"], 0),
        forged([*W, "offset"], 64),
        forged([*W, "offset"], -4),
        forged([*W, "offset"], 6),
        forged([*W, "offset"], 4.0),
        forged([*W, "offset"], True),
        forged([*W, "offset"], "4"),
        forged([*E, "offset"], 4),
        forged([*Z, "offset"], 4),
        forged([*W, "stride"], [3, 1]),
        forged([*W, "stride"], [1, 1]),
        forged([*W, "stride"], [1]),
        forged([*W, "stride"], [0, 0]),
        forged([*W, "stride"], [-3, -1]),
        forged([*W, "stride"], [2**52, 1]),
        forged([*W, "stride"], {"0": 1}),
        forged([*LAST, "stride"], [60, 5, 1, 21]),
        forged([*LAST, "stride"], [60, 5, 1, 2**60]),
        forged([*E, "shape"], [0, 2**60]),
        forged([*E, "shape"], [0, 2**52, 2**52]),
        forged([*E, "stride"], [7, 7]),
        forged([*Z, "alias"], "nothing"),
        forged([*Z, "alias"], "z"),
        forged([*Z, "alias"], ["w"]),
        forged(W, {"alias": "last"}),
        forged([*LAST[:-1], "a"], {"alias": "w"}),
        forged([*LAST[:-1], "zz"], {"alias": "z"}),
        forged([*E[:-1], "f"], {"alias": "e"}),
        forged(["components", "rng/python", "x"], {"alias": "small"}),
        forged(W, {"json": 1}),
        forged(["components", "params", "new"], {"json": math.nan}),
        forged(["components", "params", "new"], {"json": "\ud800"}),
        forged(["components", "params", "new"], {"json": b"bytes"}),
        forged(["components", "params", "new"], {"dtype": "uint8", "shape": [0]}),
        forged([*JSON, "json_bytes"], 5),
        forged([*JSON, "json_bytes"], "13891"),
        forged(JSON, {"dtype": "uint8", "shape": [13892]}),
        forged(["components", "other"], {"w": {"dtype": "float32", "shape": [2, 3]}}),
    ],
)
def test_hostile_metas_are_format_errors(meta: object) -> None:
    tensors, _ = packed()
    with pytest.raises(FormatError):
        raw_components(tensors, meta)
    with pytest.raises(FormatError):
        unpack(tensors, meta)


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        ("params/w", None),
        ("params/w", RawTensor("float32", (2, 3), bytes(23))),
        ("params/w", RawTensor("float32", (2, 3), bytes(25))),
        ("params/w", RawTensor("float32", (6,), bytes(24))),
        ("params/w", RawTensor("uint8", (24,), bytes(24))),
        ("params/new", RawTensor("float32", (1,), bytes(4))),
        ("params/z", RawTensor("float32", (2, 3), bytes(24))),
        ("rng~1python/small", RawTensor("uint8", (2,), b"{}")),
        ("rng~1python/", RawTensor("uint8", (13891,), bytes(13891))),
        ("rng~1python/", RawTensor("uint8", (13891,), b"1" + b" " * 13890)),
        ("optimizer~1exp_avg/0.w/x", RawTensor("complex64", (2,), bytes(16))),
    ],
)
def test_hostile_tensors_are_format_errors(key: str, raw: RawTensor | None) -> None:
    tensors, meta = packed()
    if raw is None:
        del tensors[key]
    else:
        tensors[key] = raw
    with pytest.raises(FormatError):
        raw_components(tensors, meta)
    with pytest.raises(FormatError):
        unpack(tensors, meta)


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 2**54)
    | st.sampled_from(["float32", "w", "z", "last", "uint8", "complex64"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["dtype", "shape", "stride", "offset", "alias", "json", "json_bytes"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=5,
)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([W, LAST, Z, JSON, E, W[:2], W[:1]]), st.data())
def test_forged_metas_are_snapshots_or_format_errors(path: list[str], data: st.DataObject) -> None:
    if len(path) == 3 and data.draw(st.booleans()):
        path = [*path, data.draw(st.sampled_from(["dtype", "shape", "stride", "offset", "json"]))]
    meta = forged(path, data.draw(VALUES))
    tensors, _ = packed()
    try:
        unpack(tensors, meta)
    except FormatError:
        return
    read_components(tensors, meta)
