from __future__ import annotations

import contextlib
import itertools
import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from auditkit.errors import FormatError, JsonError
from auditkit.formats import tensor_file
from auditkit.records.tensor import RawTensor

SIZES = {name: size for name, (_, size) in tensor_file.CODES.items()} | dict(
    tensor_file.STORED_AS_BYTES
)


@st.composite
def raw_tensors(draw: st.DrawFn) -> RawTensor:
    dtype = draw(st.sampled_from(sorted(SIZES)))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    n_bytes = math.prod(shape) * SIZES[dtype]
    return RawTensor(dtype, shape, draw(st.binary(min_size=n_bytes, max_size=n_bytes)))


names = st.text(max_size=9).filter(lambda name: name != "__metadata__")
files = st.dictionaries(names, raw_tensors(), max_size=5)


def file_of(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def u8(begin: int, end: int) -> dict[str, Any]:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}


def as_bytes(tensors: dict[str, RawTensor]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (t.dtype, t.shape, bytes(t.data)) for name, t in tensors.items()}


@given(files, st.none() | st.dictionaries(st.text(), st.integers(0, 9)))
def test_tensors_and_metadata_round_trip(tensors: dict[str, RawTensor], metadata: Any) -> None:
    data = tensor_file.to_bytes(tensors, metadata)
    found, found_metadata = tensor_file.from_bytes(data, what="file")
    assert as_bytes(found) == as_bytes(tensors)
    assert found_metadata == metadata
    assert list(found) == sorted(tensors)


@given(files)
def test_safetensors_itself_accepts_every_file(tensors: dict[str, RawTensor]) -> None:
    data = tensor_file.to_bytes(tensors, {"k": 1})
    entries = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    assert {name for name, _ in entries} == set(tensors)


def test_numpy_users_can_read_the_file() -> None:
    arrays = {"a": np.arange(6, dtype="<i8").reshape(2, 3), "b": np.array([1.5], "<f4")}
    raw = {n: RawTensor(str(a.dtype), a.shape, a.tobytes()) for n, a in arrays.items()}
    found = safetensors.numpy.load(tensor_file.to_bytes(raw, {"step": 1}))
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_a_file_of_safetensors_can_be_read() -> None:
    array = np.arange(4, dtype="<f8")
    data = safetensors.numpy.save({"x": array}, {"format": "pt", "other": "text"})
    found, metadata = tensor_file.from_bytes(data, what="file")
    assert metadata is None
    assert np.array_equal(np.frombuffer(found["x"].data, "<f8"), array)


def test_a_dtype_without_code_keeps_its_name_and_shape() -> None:
    array = np.array([[1 + 2j, 3j]])
    raw = {"z": RawTensor("complex128", (1, 2), array.tobytes())}
    data = tensor_file.to_bytes(raw)
    assert safetensors.numpy.load(data)["z"].shape == (32,)
    found, metadata = tensor_file.from_bytes(data, what="file")
    assert metadata is None
    assert as_bytes(found) == as_bytes(raw)


def test_the_bytes_do_not_depend_on_the_order_of_insertion() -> None:
    tensors = {
        "a": RawTensor("int8", (1,), b"1"),
        "b": RawTensor("complex64", (1,), b"12345678"),
        "c": RawTensor("float16", (2,), b"1234"),
    }
    metadata = {"x": 1, "y": 2, "z": 3}
    found = {
        tensor_file.to_bytes(
            {name: tensors[name] for name in order},
            dict(reversed(metadata.items()) if turned else metadata.items()),
        )
        for order in itertools.permutations(tensors)
        for turned in (False, True)
    }
    assert len(found) == 1


def test_every_tensor_is_aligned_and_uncopied() -> None:
    tensors = {
        "a": RawTensor("int8", (3,), b"123"),
        "b": RawTensor("float64", (2,), bytes(16)),
        "c": RawTensor("bfloat16", (1,), b"ab"),
        "d": RawTensor("complex128", (1,), bytes(16)),
    }
    data = tensor_file.to_bytes(tensors, "note")
    found, _ = tensor_file.from_bytes(data, what="file")
    start = np.frombuffer(data, np.uint8).ctypes.data
    for tensor in found.values():
        view = memoryview(tensor.data)
        assert view.obj is data
        address = np.frombuffer(view, np.uint8).ctypes.data
        assert (address - start) % min(SIZES[tensor.dtype], 8) == 0


def test_any_contiguous_buffer_can_be_written() -> None:
    data = tensor_file.to_bytes(
        {
            "matrix": RawTensor("int32", (2, 2), np.arange(4, dtype="<i4").reshape(2, 2).data),
            "none": RawTensor("int32", (0, 5), np.zeros((0, 5), "<i4").data),
            "array": RawTensor("uint8", (2,), bytearray(b"xy")),
        }
    )
    found, _ = tensor_file.from_bytes(data, what="file")
    assert {name: t.n_bytes for name, t in found.items()} == {"matrix": 16, "none": 0, "array": 2}


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("__metadata__", RawTensor("uint8", (1,), b"x")),
        ("x", RawTensor("quint4x2", (1,), b"x")),
        ("x", RawTensor("float32", (2,), b"1234")),
        ("x", RawTensor("float32", (), b"")),
        ("x", RawTensor("uint8", (1,) * 65, b"x")),
        ("x", RawTensor("uint8", (-1, -1), b"x")),
    ],
)
def test_what_cannot_be_stored_is_refused(name: str, tensor: RawTensor) -> None:
    with pytest.raises(FormatError):
        tensor_file.to_bytes({name: tensor})


def test_metadata_without_json_form_is_refused() -> None:
    with pytest.raises(JsonError):
        tensor_file.to_bytes({}, {"x": math.nan})


HUGE = [2**31] * 3


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "too few"),
        (b"1234567", "too few"),
        ((2**63).to_bytes(8, "little") + b"{}", "longer"),
        ((3).to_bytes(8, "little") + b"{}", "longer"),
        (file_of(b""), "not JSON"),
        (file_of(b"[]"), "no JSON object"),
        (file_of(b" {}"), "no JSON object"),
        (file_of(b"{"), "not JSON"),
        (file_of(b'{"a":NaN}'), "NaN"),
        (file_of(b"[" * 10_000), "nested"),
        (file_of({}, b"rest"), "do not fill"),
        (file_of({"a": u8(0, 4)}, b"123"), "do not fill"),
        (file_of({"a": u8(0, 2)}, b"123"), "do not fill"),
        (file_of({"a": u8(1, 3)}, b"123"), "gap"),
        (file_of({"a": u8(0, 2), "b": u8(1, 3)}, b"123"), "overlap"),
        (file_of({"a": u8(0, 2), "b": u8(0, 2)}, b"12"), "overlap"),
        (file_of({"a": u8(0, 1), "b": u8(2, 3)}, b"123"), "gap"),
        (file_of(b'{"a":%s,"a":%s}' % ((json.dumps(u8(0, 1)).encode(),) * 2), b"1"), "duplicate"),
        (file_of({"a": {**u8(0, 1), "more": 1}}, b"1"), "expected dtype"),
        (file_of({"a": {"dtype": "U8", "shape": [1]}}, b"1"), "expected dtype"),
        (file_of({"a": 1}), "expected dtype"),
        (file_of({"a": {**u8(0, 1), "dtype": "X9"}}, b"1"), "unknown dtype"),
        (file_of({"a": {**u8(0, 1), "dtype": []}}, b"1"), "unknown dtype"),
        (file_of({"a": {**u8(0, 1), "dtype": "F32"}}, b"1"), "do not fit"),
        (file_of({"a": {**u8(0, 1), "shape": [2]}}, b"1"), "do not fit"),
        (file_of({"a": {**u8(0, 1), "shape": HUGE}}, b"1"), "do not fit"),
        (file_of({"a": {**u8(0, 1), "shape": [-1]}}, b"1"), "expected a size"),
        (file_of({"a": {**u8(0, 1), "shape": [True]}}, b"1"), "expected a size"),
        (file_of({"a": {**u8(0, 1), "shape": [1.0]}}, b"1"), "expected a size"),
        (file_of({"a": {**u8(0, 1), "shape": "1"}}, b"1"), "expected sizes"),
        (file_of({"a": {**u8(0, 1), "shape": [1] * 65}}, b"1"), "expected sizes"),
        (file_of({"a": {**u8(0, 1), "data_offsets": [1, 0]}}, b"1"), "no range"),
        (file_of({"a": {**u8(0, 1), "data_offsets": [0]}}, b"1"), "no range"),
        (file_of({"__metadata__": []}), "strings to strings"),
        (file_of({"__metadata__": {"a": 1}}), "strings to strings"),
        (file_of({"__metadata__": {"auditkit": "{"}}), "not JSON"),
        (file_of({"__metadata__": {"auditkit": "{}"}}), "another shape"),
        (file_of({"__metadata__": {"auditkit": "1"}}), "another shape"),
    ],
)
def test_a_broken_file_is_a_format_error(data: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=r"^x\.safetensors: not a safetensors file: ") as caught:
        tensor_file.from_bytes(data, what="x.safetensors")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "forms",
    [
        [],
        {"b": {"dtype": "complex64", "shape": [1]}},
        {"a": {"dtype": "complex64", "shape": [2]}},
        {"a": {"dtype": "float64", "shape": [1]}},
        {"a": {"dtype": [], "shape": [1]}},
        {"a": {"dtype": "complex64"}},
        {"a": 1},
    ],
)
def test_a_true_form_that_does_not_fit_is_a_format_error(forms: object) -> None:
    text = json.dumps({"metadata": None, "stored_as_bytes": forms})
    data = file_of({"a": u8(0, 8), "__metadata__": {"auditkit": text}}, bytes(8))
    with pytest.raises(FormatError):
        tensor_file.from_bytes(data, what="x")


@given(st.binary(max_size=100))
def test_any_bytes_give_tensors_or_format_error(data: bytes) -> None:
    for candidate in (data, file_of(data), file_of(b'{"a":' + data + b"}", data)):
        with contextlib.suppress(FormatError):
            tensor_file.from_bytes(candidate, what="fuzz")


@given(files, st.data())
def test_a_changed_byte_gives_tensors_or_format_error(
    tensors: dict[str, RawTensor], data: st.DataObject
) -> None:
    file = bytearray(tensor_file.to_bytes(tensors, {"k": 1}))
    file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FormatError):
        tensor_file.from_bytes(file, what="fuzz")


def test_reading_and_verifying_load_no_torch() -> None:
    modules = (
        *("formats.canonical", "formats.schema", "formats.tensor_file", "files.store"),
        *("files.artifacts", "signing.signatures", "signing.trust", "signing.keys"),
    )
    imports = ", ".join(f"auditkit.{name}" for name in modules)
    code = f"import sys, {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
