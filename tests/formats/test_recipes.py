from __future__ import annotations

import hashlib
import re
import struct
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from auditkit.errors import FormatError, UsageError
from auditkit.formats import recipes
from auditkit.formats.flat_order import FlatOrder
from auditkit.records.digest import COMMITMENT_RECIPE, EVIDENCE_RECIPE
from auditkit.records.tensor import RawTensor

FLOATS = RawTensor("float32", (2,), struct.pack("<2f", 1.0, -2.0))
SEVEN = RawTensor("int64", (), struct.pack("<q", 7))
NONE = b'{"$":"none"}'


def record(name: str, dtype: str, shape: tuple[int, ...], content: bytes) -> bytes:
    parts = [struct.pack("<I", len(name.encode())), name.encode()]
    parts += [struct.pack("<I", len(dtype)), dtype.encode(), struct.pack("<I", len(shape))]
    parts += [struct.pack("<Q", size) for size in shape]
    return b"".join([*parts, struct.pack("<Q", len(content)), content])


STREAMS = {"A": b""}
STREAMS["B"] = (
    record("a", "int64", (), bytes(SEVEN.data))
    + record("b", "float32", (2,), bytes(FLOATS.data))
    + record("c", "json-v1", (), NONE)
)
STREAMS["C"] = STREAMS["B"] + record("d", "alias-v1", (), b"b")
STREAMS["D"] = record("order", "int64", (2, 2), struct.pack("<4q", 0, 5, 1, 3))


@pytest.mark.parametrize(
    ("recipe", "reference"),
    [
        (EVIDENCE_RECIPE, xxhash.xxh3_128_digest),
        (COMMITMENT_RECIPE, lambda data: hashlib.sha256(data).digest()),
    ],
)
def test_digests_equal_an_independent_encoding(recipe: str, reference: object) -> None:
    entries: dict[str, RawTensor | bytes] = {"c": NONE, "b": FLOATS, "a": SEVEN}
    found = {
        "A": recipes.digest_raw(recipe, {}, {}),
        "B": recipes.digest_raw(recipe, entries, {}),
        "C": recipes.digest_raw(recipe, entries, {"d": "b"}),
        "D": recipes.order_digest(recipe, np.array([[0, 5], [1, 3]], np.int64)),
    }
    assert callable(reference)
    assert found == {name: reference(stream) for name, stream in STREAMS.items()}


def test_the_docstring_has_the_test_vectors() -> None:
    text = recipes.__doc__ or ""
    for name, stream in STREAMS.items():
        block = re.search(rf"    {name}  xxh3-128  (\w+)\n       sha256    (\w+)", text)
        assert block is not None
        digests = (xxhash.xxh3_128_hexdigest(stream), hashlib.sha256(stream).hexdigest())
        assert block.groups() == digests


def test_order_digest_is_the_digest_of_one_entry() -> None:
    order = np.arange(10, dtype=np.int64).reshape(5, 2)
    entries = {"order": RawTensor("int64", (5, 2), order.astype("<i8").tobytes())}
    expected = recipes.digest_raw(COMMITMENT_RECIPE, entries, {})
    assert recipes.order_digest(COMMITMENT_RECIPE, order) == expected
    assert recipes.order_digest(COMMITMENT_RECIPE, np.asfortranarray(order)) == expected
    assert recipes.order_digest(COMMITMENT_RECIPE, order.astype(">i8")) == expected
    assert recipes.order_digest(COMMITMENT_RECIPE, order[::-1]) != expected
    wrong: list[Any] = [order.astype(np.int32), order.astype("u8"), order[:, :1], order.ravel()]
    for bad in wrong:
        with pytest.raises(UsageError):
            recipes.order_digest(COMMITMENT_RECIPE, bad)


def _order(n_samples: int) -> Any:
    return np.arange(2 * n_samples, dtype=np.int64).reshape(n_samples, 2) + n_samples


@pytest.mark.parametrize(
    "order",
    [
        [],
        [_order(4)] * 3 + [_order(4) + 1],
        [_order(4), _order(4), _order(2), _order(0), _order(3)],
        [_order(0), _order(0)],
        [np.asfortranarray(_order(3)), _order(6)[::2]],
        [_order(3).astype(">i8"), _order(3)],
    ],
)
@pytest.mark.parametrize("at_once", [1, 2, 1024])
def test_digests_of_many_orders_are_those_of_each(
    monkeypatch: pytest.MonkeyPatch, order: list[Any], at_once: int
) -> None:
    monkeypatch.setattr(recipes, "_ORDERS_AT_ONCE", at_once)
    expected = b"".join(recipes.order_digest(EVIDENCE_RECIPE, step) for step in order)
    assert recipes.order_digests(FlatOrder.of(order)) == expected


def test_names_sort_as_their_utf8_does() -> None:
    names = ["é", "z", "\U0001f600", "\uffff", "a/b", "a.b", ""]
    entries = dict.fromkeys(names, SEVEN)
    stream = b"".join(
        record(name, "int64", (), bytes(SEVEN.data))
        for name in sorted(names, key=lambda name: name.encode())
    )
    assert recipes.digest_raw(COMMITMENT_RECIPE, entries, {}) == hashlib.sha256(stream).digest()


@given(
    st.lists(
        st.tuples(
            st.text(max_size=3),
            st.sampled_from(["uint8", "int8", "json-v1"]),
            st.binary(max_size=4),
        ),
        min_size=2,
        max_size=2,
    )
)
def test_unequal_entries_have_unequal_streams(pair: list[tuple[str, str, bytes]]) -> None:
    def digest(name: str, dtype: str, content: bytes) -> bytes:
        leaf = content if dtype == "json-v1" else RawTensor(dtype, (len(content),), content)
        return recipes.digest_raw(EVIDENCE_RECIPE, {name: leaf}, {})

    assert (pair[0] == pair[1]) == (digest(*pair[0]) == digest(*pair[1]))


def test_shape_and_dtype_enter() -> None:
    data = bytes(24)
    tensors = [
        RawTensor("float32", (6,), data),
        RawTensor("float32", (2, 3), data),
        RawTensor("float32", (3, 2), data),
        RawTensor("int32", (6,), data),
        RawTensor("float64", (3,), data),
        RawTensor("float32", (6, 1), data),
        RawTensor("float32", (0,), b""),
        RawTensor("float32", (0, 1), b""),
        RawTensor("float32", (), bytes(4)),
        RawTensor("float32", (1,), bytes(4)),
    ]
    digests = {recipes.digest_raw(COMMITMENT_RECIPE, {"x": raw}, {}) for raw in tensors}
    assert len(digests) == len(tensors)


@pytest.mark.parametrize(
    ("entries", "aliases"),
    [
        ({"x": RawTensor("float33", (1,), bytes(4))}, {}),
        ({"x": RawTensor("json-v1", (4,), bytes(4))}, {}),
        ({"x": RawTensor("float32", (2,), bytes(4))}, {}),
        ({"x": RawTensor("float32", (-1, -1), bytes(4))}, {}),
        ({"\ud800": SEVEN}, {}),
        ({"x": SEVEN}, {"y": "z"}),
        ({"x": SEVEN}, {"x": "x"}),
        ({"x": SEVEN}, {"a": "x"}),
        ({"x": SEVEN, "y": SEVEN}, {"y": "x"}),
        ({"x": NONE}, {"y": "x"}),
        ({"x": RawTensor("int64", (0,), b"")}, {"y": "x"}),
        ({"x": SEVEN}, {"y": "x", "z": "y"}),
    ],
)
def test_hostile_components_are_refused(
    entries: dict[str, RawTensor | bytes], aliases: dict[str, str]
) -> None:
    with pytest.raises(FormatError):
        recipes.digest_raw(COMMITMENT_RECIPE, entries, aliases)


def test_unknown_recipes_are_refused() -> None:
    for name in ("sha256/tensor-v2", "md5/tensor-v1", "sha256", ""):
        with pytest.raises(FormatError):
            recipes.hasher(name)
    with pytest.raises(FormatError):
        recipes.frame("x", "int64", (2**64,), 0)
