from __future__ import annotations

import math
import os
import random
import struct
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from auditkit.errors import FormatError, UncapturedState
from auditkit.formats.canonical import dumps, loads
from auditkit.observe.values import codec
from auditkit.observe.values.codec import flatten, pack, unflatten, unpack
from auditkit.observe.values.digests import digest_leaves
from auditkit.observe.values.tensors import DTYPES, Leaves, host_bytes, memory_offset
from auditkit.records.digest import COMMITMENT_RECIPE
from auditkit.records.tensor import RawTensor

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


def through_a_file(leaves: Leaves) -> dict[str, Tensor | bytes]:
    """Pack, write the JSON as bytes, unpack; check that nothing moves in a second round."""
    tensors, meta = pack({"a/b~c": leaves})
    text = dumps(meta)
    back = unpack(tensors, loads(text, what="meta"))["a/b~c"]
    again, meta_again = pack({"a/b~c": back})
    assert dumps(meta_again) == text
    assert {key: freeze(raw) for key, raw in again.items()} == {
        key: freeze(raw) for key, raw in tensors.items()
    }
    assert digest_leaves(COMMITMENT_RECIPE, back) == digest_leaves(COMMITMENT_RECIPE, leaves)
    for name, leaf in back.items():
        if isinstance(leaf, Tensor):
            before = leaves[name]
            assert isinstance(before, Tensor)
            assert leaf.data_ptr() % 64 == memory_offset(leaf)
            assert leaf.data_ptr() % 64 == (memory_offset(before) if leaf.numel() else 0)
    return back


def freeze(raw: RawTensor) -> RawTensor:
    return replace(raw, data=bytes(raw.data))


def round_trip(tree: object) -> Any:
    leaves = flatten(tree, where="tree")
    direct = unflatten(leaves)
    assert_same(tree, direct)
    back = unflatten(through_a_file(leaves))
    assert_same(tree, back)
    again = flatten(back, where="tree")
    assert again[""] == leaves[""]
    assert digest_leaves(COMMITMENT_RECIPE, again) == digest_leaves(COMMITMENT_RECIPE, leaves)
    return back


def assert_same(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(left, Tensor):
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        assert left.requires_grad == right.requires_grad
        assert bytes(host_bytes(left)) == bytes(host_bytes(right))
    elif isinstance(left, np.ndarray):
        assert (left.dtype.str, left.shape, left.tobytes()) == (
            right.dtype.str,
            right.shape,
            right.tobytes(),
        )
        assert right.flags.f_contiguous == left.flags.f_contiguous or not left.flags.forc
    elif isinstance(left, np.generic):
        assert left.dtype == right.dtype
        assert left.tobytes() == right.tobytes()
    elif isinstance(left, float):
        assert struct.pack("<d", left) == struct.pack("<d", right)
    elif isinstance(left, complex):
        assert_same([left.real, left.imag], [right.real, right.imag])
    elif isinstance(left, dict):
        assert_same(list(left.keys()), list(right.keys()))
        assert_same(list(left.values()), list(right.values()))
        assert getattr(left, "default_factory", 0) == getattr(right, "default_factory", 0)
        assert_same(getattr(left, "_metadata", None), getattr(right, "_metadata", None))
    elif isinstance(left, (list, tuple, deque)):
        assert len(left) == len(right)
        assert getattr(left, "maxlen", 0) == getattr(right, "maxlen", 0)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, (set, frozenset)):
        assert left == right  # and types, by the encoding of the second round
    else:
        assert left == right


def bits(pattern: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<Q", pattern))[0]
    return value


NAN_PAYLOAD = bits(0x7FF8_0000_DEAD_BEEF)
SIGNALLING = bits(0xFFF0_0000_0000_0001)
FLOATS = [0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, NAN_PAYLOAD, SIGNALLING, 5e-324, 1e308]
SCALARS: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**53 - 1,
    2**53,
    -(2**53),
    2**63,
    -(2**200),
    2**20000,
    *FLOATS,
    *(complex(a, b) for a in FLOATS for b in FLOATS),
    "",
    "é\x00\u2028\U0001f600",
    "lone \ud800 surrogate",
    "9007199254740993",
    b"",
    b"\x00\xff",
    bytearray(b"ab"),
    torch.float32,
    torch.qint8,
    torch.device("cpu"),
    torch.device("cuda:3"),
    torch.Size([]),
    torch.Size([2, 0, 5]),
    np.float64(NAN_PAYLOAD),
    np.float32(-0.0),
    np.float16(1.5),
    np.int8(-3),
    np.uint64(2**64 - 1),
    np.bool_(True),
    np.complex64(1 - 2j),
    np.datetime64("2024-01-02T03", ("s", 25)),
    np.frombuffer(struct.pack("<q", -(2**63)), "<m8")[0],  # NaT without a unit, by no constructor
    np.str_("a\x00"),
    np.bytes_(b"a\x00"),
]


@pytest.mark.parametrize("value", SCALARS, ids=lambda value: type(value).__name__)
def test_scalars(value: object) -> None:
    round_trip(value)
    round_trip([value, (value,), {"key": value}])


@pytest.mark.parametrize(
    "tree",
    [
        [],
        (),
        {},
        set(),
        frozenset(),
        deque(),
        {"$": "none", "entry": [1]},
        {"$": "tensor", "entry": "x"},
        {0: "int", "0": "str", None: 1, True: 2, (1, "a", (None,)): 3, 1.5: 4, b"b": 5},
        {"z": 1, "a": 2, "m": 3},
        {2**60: 1, str(2**60): 2, -1: 3, "-1": 4, "": 5, "~": 6, "/": 7, "\ud800": 8},
        {torch.float32: 1, torch.device("cpu"): 2, torch.Size([1]): 3, frozenset({1}): 4},
        {float("nan"): 1, np.float64(2.5): 2, np.str_("x"): 3},
        OrderedDict([("b", 1), ("a", 2)]),
        Counter({7: 2, 3: 1}),
        defaultdict(list, {"a": [1]}),
        defaultdict(None, {"a": 1}),
        defaultdict(int),
        deque([1, (2,)], maxlen=3),
        deque(maxlen=0),
        {3, 1, 2},
        pytest.param({"b", "a", 1, None, (1, 2), 2.5}, id="a set of several kinds"),
        frozenset({frozenset({1}), frozenset()}),
        list(range(-8, 24)),
        tuple(range(40)),
        [2**63] * 20,
        [True] * 20,
        [1] * 15 + [1.0],
        [0, -(2**63), 2**63 - 1] * 6,
        random.Random(1).getstate(),
        np.random.RandomState(1).get_state(),
        np.random.RandomState(1).get_state(legacy=False),
        *(
            kind(5).state
            for kind in (np.random.PCG64, np.random.MT19937, np.random.SFC64, np.random.Philox)
        ),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_containers(tree: object) -> None:
    round_trip(tree)
    round_trip({"deeper": [tree, (tree, 1)]})


def test_generators_resume() -> None:
    generator = np.random.default_rng(3)
    generator.random(5)
    saved = round_trip(generator.bit_generator.state)
    expected = generator.random(5)
    generator.bit_generator.state = saved
    assert generator.random(5).tobytes() == expected.tobytes()
    python = random.Random(3)
    python.gauss(0, 1)
    saved = round_trip(python.getstate())
    expected_next = python.gauss(0, 1)
    python.setstate(saved)
    assert python.gauss(0, 1) == expected_next
    state = torch.get_rng_state()
    assert torch.equal(round_trip({"state": state})["state"], state)


def test_arrays() -> None:
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    arrays: list[Any] = [
        base,
        base.T,
        base[:, ::2],
        np.asfortranarray(base),
        base.astype(">f8"),
        base > 3,
        np.array(3.0),
        np.empty((0, 3), np.int16),
        np.array(["a", "bcd"]),
        np.array([b"a", b""]),
        np.array(["2024-01-01", "NaT"], "M8[D]"),
        np.array([NAN_PAYLOAD, SIGNALLING, -0.0]),
        base.astype(np.complex128),
        np.broadcast_to(np.arange(3), (2, 3)),
    ]
    back = round_trip({"arrays": arrays})["arrays"]
    assert all(array.flags.writeable for array in back)
    round_trip(base)


def test_tensors() -> None:
    base = torch.randn(2, 3, 4, 5)
    z = torch.randn(3, 2, dtype=torch.complex128)
    with torch.inference_mode():
        inference = torch.randn(3)
    tree = {
        "dtypes": [
            torch.randint(0, 2, (3, 16), dtype=torch.uint8).view(dtype) for dtype in DTYPES.values()
        ],
        "layer.weight": nn.Parameter(torch.randn(3, 4)),
        "frozen": nn.Parameter(torch.randn(3), requires_grad=False),
        "leaf": torch.randn(3, requires_grad=True),
        "nan": torch.tensor([NAN_PAYLOAD, -0.0, 5e-324], dtype=torch.float64),
        ("tuple", 1): [torch.tensor(1.0), torch.empty(0, 3), torch.empty(2, 0)],
        0: torch.tensor(1),
        "0": torch.tensor(2),
        "": {"": torch.tensor(3), "~": torch.tensor(4), "a/b": torch.tensor(5)},
        None: torch.tensor(6),
        "views": [base[:, 1], base[..., ::2], z.conj(), z.mH, z.conj().imag],
        "expanded": torch.randn(3, 1).expand(3, 4),
        "inference": inference,
    }
    back = round_trip(tree)
    assert type(back["layer.weight"]) is nn.Parameter
    assert back["inference"].is_inference() is False
    round_trip(torch.randn(3))
    round_trip(np.arange(3))


def test_strides_are_kept_where_they_are_dense() -> None:
    base = torch.randn(2, 3, 4, 5)
    last = base.contiguous(memory_format=torch.channels_last)
    odd = torch.randn(3).as_strided((3, 1, 1), (1, 77, 5))
    dense = [base, last, base.permute(3, 1, 0, 2), base.to(torch.bfloat16).mT, odd]
    for tensor, back in zip(dense, round_trip(dense), strict=True):
        assert back.stride() == tensor.stride()
        assert back.data_ptr() % 64 == 0
    sparse = [base[..., ::2], torch.randn(3, 1).expand(3, 4)]
    assert all(back.is_contiguous() for back in round_trip(sparse))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.complex128])
def test_a_view_begins_as_far_behind_an_alignment_as_it_did(dtype: torch.dtype) -> None:
    """Where memory begins decides which vector instructions run, and so decides bits."""
    base = torch.arange(300).to(dtype)
    views = {
        "row": base[3:],
        "far": base[288 // dtype.itemsize + 3 :],
        "turned": base[7:19].view(3, 4).t(),
        "whole": base,
        "empty": base[300:],
    }
    tensors, meta = pack({"c": views})
    specs: Any = meta["components"]
    assert {name: spec.get("offset", 0) for name, spec in specs["c"].items()} == {
        "row": 3 * dtype.itemsize % 64,
        "far": (288 // dtype.itemsize + 3) * dtype.itemsize % 64,
        "turned": 7 * dtype.itemsize % 64,
        "whole": 0,
        "empty": 0,
    }
    back: Any = unpack(tensors, meta)["c"]
    for name, view in views.items():
        assert torch.equal(back[name], view)
        assert back[name].stride() == view.stride()
        assert back[name].data_ptr() % 64 == specs["c"][name].get("offset", 0)


def test_a_copy_is_no_view_of_anything() -> None:
    weight = nn.Parameter(torch.zeros(3))
    leaves = flatten({"w": weight}, where="x")
    tensors, meta = pack({"c": leaves})
    back: Any = unflatten(leaves)
    with torch.no_grad():
        weight.fill_(7)
    assert back["w"].tolist() == [0, 0, 0]
    assert unpack(tensors, meta)["c"]["w"].tolist() == [0, 0, 0]  # type: ignore[union-attr]
    weight.data.resize_(10)  # reading the memory must not have pinned it
    back["w"].data.resize_(10)


def test_exact_aliases_stay_aliases() -> None:
    weight = nn.Parameter(torch.randn(3, 4))
    base = torch.randn(6)
    tree = {
        "tied": [weight, weight],
        "data": weight.data,
        "apart": weight.detach().clone(),
        "part": [base[:3], base[1:4], base[:3]],
        "empty": [torch.empty(0), torch.empty(0)],
    }
    back = round_trip(tree)
    assert back["tied"][0] is back["tied"][1]
    assert back["data"].data_ptr() == back["tied"][0].data_ptr()
    assert back["apart"].data_ptr() != back["data"].data_ptr()
    first, second, third = back["part"]
    assert first.data_ptr() == third.data_ptr() != second.data_ptr()
    assert back["empty"][0] is not back["empty"][1]


def test_paths_name_the_entries() -> None:
    tree = {"state": {0: {"exp_avg": torch.ones(1)}}, "a/b": [torch.ones(1)], "": torch.ones(1)}
    assert set(flatten(tree, where="x")) == {"", "state/0/exp_avg", "a~1b/0", "~s"}
    assert set(flatten(torch.ones(1), where="x")) == {"", "~"}


def test_module_metadata_survives() -> None:
    state = nn.BatchNorm1d(3).state_dict()
    back = round_trip({"average": state})["average"]
    assert back._metadata == state._metadata  # type: ignore[attr-defined]
    nn.BatchNorm1d(3).load_state_dict(back)


def optimizers() -> list[Any]:
    o = torch.optim
    return [
        lambda p: o.SGD(p, lr=0.1, momentum=0.9),
        o.Adam,
        lambda p: o.AdamW(p, amsgrad=True, lr=torch.tensor(0.01)),
        o.RMSprop,
        o.Adagrad,
        o.Adadelta,
        o.ASGD,
        o.Rprop,
        o.NAdam,
        o.RAdam,
        o.Adamax,
        o.Adafactor,
        lambda p: o.LBFGS(p, max_iter=2),
    ]


@pytest.mark.parametrize("index", range(len(optimizers())))
def test_optimizers(index: int) -> None:
    model = nn.Linear(3, 2)
    optimizer = optimizers()[index](model.parameters())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = model(torch.ones(4, 3)).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    for _ in range(2):
        optimizer.step(closure)
    round_trip(optimizer.state_dict())


def test_schedulers_and_scaler() -> None:
    optimizer = torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1)
    s = torch.optim.lr_scheduler
    schedulers: list[Any] = [
        s.StepLR(optimizer, 2),
        s.MultiStepLR(optimizer, [2, 2, 5]),
        s.CosineAnnealingLR(optimizer, 5),
        s.ReduceLROnPlateau(optimizer),
        s.OneCycleLR(optimizer, 0.1, 10),
        s.LambdaLR(optimizer, lambda epoch: 0.5),
        s.SequentialLR(optimizer, [s.ConstantLR(optimizer), s.LinearLR(optimizer)], [3]),
        s.CyclicLR(optimizer, 0.1, 0.2, cycle_momentum=False),
    ]
    for scheduler in schedulers:
        round_trip(scheduler.state_dict())
    round_trip(torch.amp.GradScaler("cpu").state_dict())


KEYS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(), max_size=4)
    | st.binary(max_size=3)
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=2).map(tuple) | st.frozensets(inner, max_size=2),
    max_leaves=4,
)
TENSORS = st.builds(
    lambda name, shape, seed: (
        torch.randint(
            0,
            2 if name == "bool" else 256,
            (math.prod(shape) * DTYPES[name].itemsize,),
            dtype=torch.uint8,
            generator=torch.Generator().manual_seed(seed),
        )
        .view(DTYPES[name])
        .view(shape)
    ),
    st.sampled_from(sorted(set(DTYPES))),
    st.lists(st.integers(0, 3), max_size=3),
    st.integers(0, 99),
)
LEAVES = KEYS | st.floats() | st.complex_numbers() | TENSORS
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict)
        | st.dictionaries(KEYS, inner, max_size=3).map(lambda d: defaultdict(list, d))
        | st.lists(inner, max_size=3).map(lambda items: deque(items, 5))
        | st.sets(KEYS, max_size=3)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(TREES)
def test_any_tree(tree: object) -> None:
    round_trip(tree)


@settings(deadline=None, max_examples=100)
@given(st.lists(KEYS, max_size=6, unique_by=lambda key: (type(key), repr(key))))
def test_any_keys_give_separate_entries(keys: list[Any]) -> None:
    tree = [{key: torch.ones(1)} for key in keys]
    names = [next(iter(set(flatten(one, where="x")) - {""})) for one in tree]
    assert len(set(names)) == len({flatten(key, where="x")[""] for key in keys})


SCRIPT = """
import hashlib, torch
from auditkit.formats.canonical import dumps
from auditkit.observe.values.codec import flatten, pack
state = {
    "b": flatten({"set": {"x", "y", "zz", 1, None}, "w": torch.arange(5.)}, where="b"),
    "a/c": flatten([frozenset("abcdef"), list(range(2000))], where="a"),
}
tensors, meta = pack(state)
digest = hashlib.sha256(dumps(meta))
for key, raw in tensors.items():
    digest.update(f"{key} {raw.dtype} {raw.shape}".encode() + bytes(raw.data))
assert list(tensors) == sorted(tensors)
found = digest.hexdigest()
"""


def test_the_same_state_gives_the_same_bytes_in_every_process() -> None:
    here: dict[str, Any] = {}
    exec(SCRIPT, here)  # noqa: S102 # it is ours
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    elsewhere = subprocess.run(
        [sys.executable, "-c", f"{SCRIPT}print(found)"],
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    assert elsewhere.split() == [here["found"]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_on_a_gpu_come_back_on_the_host() -> None:
    x = torch.randn(2, 3, 4, 5, device="cuda").contiguous(memory_format=torch.channels_last)
    tree = {"x": x, "y": nn.Parameter(x[0].clone()), "z": x}
    back: Any = unflatten(through_a_file(flatten(tree, where="tree")))
    assert back["x"].is_cpu
    assert torch.equal(back["x"], x.cpu())
    assert back["x"].stride() == x.stride()
    assert back["x"] is back["z"]


@pytest.mark.parametrize(
    "leaves",
    [
        {"x": torch.eye(2).to_sparse()},
        {"x": b"not json"},
        {"x": b""},
        {"x": b'{"b":1,"a":1}'},
        {"x": b"1 "},
        {"\ud800": torch.ones(1)},
        {"x": torch.empty(0, 2**53)},
    ],
    ids=lambda leaves: ascii(leaves)[:30],
)
def test_pack_refuses_what_a_file_cannot_hold(leaves: Leaves) -> None:
    with pytest.raises(UncapturedState) as caught:
        pack({"component": leaves})
    assert "component" in str(caught.value.where)


def test_unknown_dtype_of_a_newer_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, meta = pack({"c": {"x": torch.ones(1)}})
    monkeypatch.setattr("auditkit.observe.values.codec.DTYPES", {})
    with pytest.raises(FormatError):
        unpack(tensors, meta)


def test_a_text_that_did_not_change_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[bytes] = []

    def read(data: bytes, *, what: str) -> object:
        reads.append(data)
        return loads(data, what=what)

    monkeypatch.setattr(codec, "loads", read)
    first, second = ({"c": {"": dumps(["text", n])}} for n in (0, 1))
    assert pack(first) == pack(first)
    assert pack(second) == pack(second)
    long = {"c": {"": dumps(["x" * 2**17])}}
    assert pack(long) == pack(long)
    assert [len(data) > 2**16 for data in reads] == [False, False, True, True]
