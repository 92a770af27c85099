from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from auditkit.errors import FormatError
from auditkit.formats import stored_order, tensor_file
from auditkit.formats.ordering import Batch
from auditkit.formats.run_files import (
    Outcome,
    array_of,
    order_from_tensors,
    order_to_tensors,
    outcome_from_tensors,
    outcome_to_tensors,
    trace_from_tensors,
    trace_to_tensors,
)
from auditkit.records import tensor
from auditkit.records.evidence import Trace
from auditkit.records.tensor import FileTensor, RawTensor

names = st.text("abcdefgh/_:0", min_size=1, max_size=12).filter(
    lambda name: name not in ("step", "loss_bits")
)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    rows = draw(st.integers(1, 5))
    column = st.binary(min_size=16 * rows, max_size=16 * rows)
    return Trace(
        draw(st.integers(1, 2**62)),
        draw(st.binary(min_size=8 * rows, max_size=8 * rows)),
        draw(st.dictionaries(names, column, max_size=4)),
    )


@st.composite
def orders(draw: st.DrawFn) -> list[Batch]:
    sizes = draw(st.lists(st.integers(0, 4), max_size=5))
    indices = hnp.from_dtype(np.dtype(np.int64), min_value=-(2**63), max_value=2**63 - 1)
    epochs = hnp.from_dtype(np.dtype(np.int64), min_value=0, max_value=2**63 - 1)
    found = []
    for size in sizes:
        batch = np.empty((size, 2), dtype=np.int64)
        batch[:, 0] = draw(hnp.arrays(np.int64, size, elements=epochs))
        batch[:, 1] = draw(hnp.arrays(np.int64, size, elements=indices))
        found.append(batch)
    return found


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    n, classes = draw(st.integers(1, 4)), draw(st.integers(2, 3))
    floats = st.floats(width=32, allow_nan=True)
    table = hnp.arrays(np.float32, (n, classes), elements=floats)
    times = st.sampled_from(["t0", "t0+W", "T", "t0/recalibrated", "T/recalibrated"])
    labels = draw(hnp.arrays(np.int64, n))
    return Outcome(labels, draw(st.dictionaries(times, table, max_size=4)))


def through_a_file(tensors: dict[str, RawTensor]) -> dict[str, RawTensor]:
    """Written and read, so that the tensors are views of unaligned bytes."""
    return tensor_file.from_bytes(tensor_file.to_bytes(tensors), what="file")[0]


@given(traces())
def test_a_trace_survives(trace: Trace) -> None:
    again = trace_from_tensors(through_a_file(trace_to_tensors(trace)), what="trace")
    assert again == trace
    assert again.first_difference(trace) is None


@given(orders(), st.booleans())
def test_an_order_survives(batches: list[Batch], iterable: bool) -> None:
    content = bytes(range(16)) * len(batches) if iterable else None
    tensors = through_a_file(order_to_tensors(batches, content))
    if not iterable and not any(map(len, batches)):
        with pytest.raises(FormatError, match="no samples"):
            order_from_tensors(tensors, what="order")
        return
    again = order_from_tensors(tensors, what="order")
    assert len(again.batches) == len(batches)
    for here, there in zip(again.batches, batches, strict=True):
        assert here.dtype == np.int64
        assert np.array_equal(here, there)
    assert again.content == content


@given(outcomes())
def test_an_outcome_survives_bit_for_bit(outcome: Outcome) -> None:
    again = outcome_from_tensors(through_a_file(outcome_to_tensors(outcome)), what="outcome")
    assert np.array_equal(again.labels, outcome.labels)
    assert set(again.tables) == set(outcome.tables)
    for name, table in outcome.tables.items():
        assert again.tables[name].tobytes() == table.tobytes()
        assert again.tables[name].shape == table.shape


def test_predictions_and_targets_survive_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    tables: dict[str, Any] = {
        "targets@x": rng.normal(size=(4, 1)),
        "T@x:regression": rng.normal(size=(4, 1)).astype(np.float32),
        "T:embedding": rng.normal(size=(5, 7)).astype(np.float32),
    }
    written = outcome_to_tensors(Outcome(np.empty(0, dtype=np.int64), tables))
    again = outcome_from_tensors(through_a_file(written), what="outcome")
    assert {name: table.tobytes() for name, table in again.tables.items()} == {
        name: table.tobytes() for name, table in tables.items()
    }
    assert again.labels_of("x").tobytes() == tables["targets@x"].tobytes()
    assert again.labels_of("").size == 0


def test_the_layout_is_the_one_of_the_design() -> None:
    tensors = trace_to_tensors(Trace(4, bytes(16), {"params": bytes(32)}))
    assert {name: (t.dtype, t.shape) for name, t in tensors.items()} == {
        "step": ("int64", (2,)),
        "loss_bits": ("uint64", (2,)),
        "params": ("uint8", (2, 16)),
    }
    batches = [np.array([[0, 5], [0, 3]]), np.array([[1, 9]])]
    order = order_to_tensors(batches, None)["order"]
    assert (order.dtype, order.shape) == ("int64", (2, 2, 2))
    table = np.frombuffer(order.data, dtype="<i8").reshape(order.shape)
    assert table.tolist() == [[[0, 5], [0, 3]], [[1, 9], [-1, -1]]]


def raw(dtype: str, shape: tuple[int, ...], values: Any = 0) -> RawTensor:
    array = np.broadcast_to(np.asarray(values, dtype=dtype), shape)
    return RawTensor(dtype, shape, np.ascontiguousarray(array).tobytes())


GOOD_TRACE = {
    "step": raw("int64", (2,), [3, 4]),
    "loss_bits": raw("uint64", (2,)),
    "params": raw("uint8", (2, 16)),
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"step": None}, "no tensor 'step'"),
        ({"loss_bits": None}, "no tensor 'loss_bits'"),
        ({"step": raw("int32", (2,), [3, 4])}, "expected int64, found int32"),
        ({"loss_bits": raw("float64", (2,))}, "expected uint64, found float64"),
        ({"loss_bits": raw("uint64", (3,))}, "needs step"),
        ({"loss_bits": raw("uint64", (2, 1))}, "needs step"),
        ({"step": raw("int64", ()), "loss_bits": raw("uint64", ())}, "needs step"),
        ({"step": raw("int64", (0,)), "loss_bits": raw("uint64", (0,))}, "needs step"),
        ({"step": raw("int64", (2, 1), 3)}, "needs step"),
        ({"step": raw("int64", (2,), [3, 5])}, "row 1 is step 5"),
        ({"step": raw("int64", (2,), [4, 3])}, "row 1 is step 3"),
        ({"step": raw("int64", (2,), [0, 1])}, "row 0 is step 0"),
        ({"step": raw("int64", (2,), [-1, 0])}, "row 0 is step -1"),
        ({"step": raw("int64", (2,), [2**63 - 1, -(2**63)])}, "not consecutive"),
        ({"params": raw("uint8", (2, 15))}, "column 'params' has another shape"),
        ({"params": raw("uint8", (3, 16))}, "column 'params' has another shape"),
        ({"params": raw("uint8", (32,))}, "column 'params' has another shape"),
        ({"params": raw("int8", (2, 16))}, "column 'params' has another shape"),
    ],
)
def test_a_trace_of_another_shape_is_refused(
    change: dict[str, RawTensor | None], says: str
) -> None:
    tensors = {k: v for k, v in {**GOOD_TRACE, **change}.items() if v is not None}
    trace_from_tensors(GOOD_TRACE, what="t")
    with pytest.raises(FormatError, match=says) as caught:
        trace_from_tensors(tensors, what="some.trace")
    assert str(caught.value).startswith("some.trace: ")
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({}, "no tensor 'order'"),
        ({"order": raw("int32", (1, 1, 2))}, "expected int64, found int32"),
        ({"order": raw("int64", (2, 2))}, "has shape"),
        ({"order": raw("int64", (2, 2, 3))}, "has shape"),
        ({"order": raw("int64", (1, 2, 2), [[-1, -1], [0, 1]])}, "padded with something else"),
        ({"order": raw("int64", (1, 2, 2), [[0, 1], [-1, 0]])}, "padded with something else"),
        ({"order": raw("int64", (1, 2, 2), [[0, 1], [-2, -1]])}, "padded with something else"),
        ({"order": raw("int64", (1, 2, 2), [[0, 1], [-1, -1]])}, "wider than its longest batch"),
        ({"order": raw("int64", (2, 1, 2), -1)}, "wider than its longest batch"),
        (
            {"order": raw("int64", (1, 1, 2), -1), "content": raw("uint8", (1, 16))},
            "wider than its longest batch",
        ),
        ({"order": raw("int64", (1, 1, 2)), "content": raw("uint8", (2, 16))}, "content has shape"),
        ({"order": raw("int64", (1, 1, 2)), "content": raw("uint8", (16,))}, "content has shape"),
        ({"order": raw("int64", (1, 1, 2)), "content": raw("int8", (1, 16))}, "content has"),
        ({"order": raw("int64", (1, 1, 2)), "more": raw("int64", ())}, "unknown tensor 'more'"),
    ],
)
def test_an_order_of_another_shape_is_refused(tensors: dict[str, RawTensor], says: str) -> None:
    with pytest.raises(FormatError, match=says):
        order_from_tensors(tensors, what="order")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": None, "T/recalibrated": raw("float32", (3, 3))}, "has shape"),
        ({"T:tv": raw("float32", (2,))}, "expected float64, found float32"),
        ({"T:tv": raw("float64", (3,))}, r"'T:tv' has shape \(3,\), not \(2,\)"),
        ({"T:predicted": raw("int32", (2, 1))}, "'T:predicted' has shape"),
        ({"labels": raw("int32", (2,))}, "expected int64, found int32"),
        ({"labels": raw("int64", (2, 1))}, "labels have shape"),
        ({"T": raw("float64", (2, 3))}, "expected float32, found float64"),
        ({"T": raw("float32", (3, 3))}, r"outcome 'T' has shape \(3, 3\), not \(2, C\)"),
        ({"T": raw("float32", (2, 0))}, "outcome 'T' has shape"),
        ({"T": raw("float32", (2,))}, "outcome 'T' has shape"),
        ({"T": raw("float32", ())}, "outcome 'T' has shape"),
        ({"T:regression": raw("float32", (2, 0))}, "'T:regression' has shape"),
        ({"T:embedding": raw("float32", (2,))}, "'T:embedding' has shape"),
        ({"T:embedding": raw("float64", (2, 3))}, "expected float32, found float64"),
        ({"targets@x": raw("float32", (2, 1))}, "expected float64, found float32"),
        ({"targets@x": raw("float64", (2,))}, "'targets@x' has shape"),
        ({"targets@x": raw("float64", (2, 1)), "T@x:regression": raw("float32", (3, 1))}, "has sh"),
    ],
)
def test_an_outcome_of_another_shape_is_refused(
    change: dict[str, RawTensor | None], says: str
) -> None:
    good = {"labels": raw("int64", (2,)), "T": raw("float32", (2, 3))}
    tensors = {k: v for k, v in {**good, **change}.items() if v is not None}
    outcome_from_tensors(good, what="o")
    with pytest.raises(FormatError, match=says):
        outcome_from_tensors(tensors, what="outcome")


any_tensor = st.builds(
    lambda dtype, shape: raw(dtype, tuple(shape)),
    st.sampled_from(["int64", "uint64", "uint8", "float32", "int32"]),
    st.lists(st.integers(0, 16), max_size=3),
)
any_file = st.dictionaries(
    st.sampled_from(["step", "loss_bits", "order", "content", "labels", "T", "params"]), any_tensor
)


@given(any_file)
def test_any_tensors_are_read_or_refused(tensors: dict[str, RawTensor]) -> None:
    for read in (trace_from_tensors, order_from_tensors, outcome_from_tensors):
        try:
            assert read(tensors, what="fuzz") is not None
        except FormatError:
            continue


def stored(tensors: Mapping[str, RawTensor]) -> dict[str, FileTensor]:
    """The same tensors, as those of a file that are read when they are asked for."""
    return tensor_file.from_file(*_file_of(tensor_file.to_bytes(tensors)), what="x")[0]


def _file_of(data: bytes) -> tuple[tensor_file.Read, int]:
    return lambda start, n_bytes: data[start : start + n_bytes], len(data)


@pytest.fixture(scope="module")
def small_pieces() -> Iterator[None]:
    """Little of a file is in memory at a time."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (stored_order, tensor):
            patch.setattr(module, "PIECE_BYTES", 40)
        yield


@pytest.mark.usefixtures("small_pieces")
@given(any_file)
def test_what_stays_in_a_file_is_read_or_refused_alike(tensors: dict[str, RawTensor]) -> None:
    for read in (trace_from_tensors, order_from_tensors):
        texts = []
        for given_as in (tensors, stored(tensors)):
            try:
                texts.append(type(read(given_as, what="fuzz")).__name__)
            except FormatError as error:
                texts.append(str(error))
        assert texts[0] == texts[1]


@pytest.mark.usefixtures("small_pieces")
@given(traces())
def test_a_trace_that_stays_in_its_file_is_the_one_in_memory(trace: Trace) -> None:
    found = trace_from_tensors(stored(trace_to_tensors(trace)), what="x")
    assert (found.first_step, found.n_rows) == (trace.first_step, trace.n_rows)
    assert found.first_difference(trace) is None
    assert {name: column[:] for name, column in found.columns.items()} == trace.columns
    assert found.loss_bits[:] == trace.loss_bits


@pytest.mark.usefixtures("small_pieces")
@given(st.lists(st.integers(-2, 3), min_size=12, max_size=12), st.integers(0, 4), st.integers(0, 4))
def test_an_order_that_stays_in_its_file_is_the_one_in_memory(
    values: list[int], first: int, stop: int
) -> None:
    tensors = {"order": raw("int64", (3, 2, 2), np.reshape(values, (3, 2, 2)))}
    try:
        expected = order_from_tensors(tensors, what="fuzz").flat
    except FormatError as refused:
        with pytest.raises(FormatError, match=re.escape(str(refused))):
            order_from_tensors(stored(tensors), what="fuzz")
        return
    found = order_from_tensors(stored(tensors), what="fuzz").flat
    for one, other in ((found, expected), (found.part(first, stop), expected.part(first, stop))):
        assert len(one) == len(other)
        assert np.array_equal(one.pairs, other.pairs)
        assert np.array_equal(one.sizes, other.sizes)
        assert np.array_equal(one.ends, other.ends)
        assert all(map(np.array_equal, one.batches(), other.batches()))


@given(st.lists(st.integers(-3, 3), min_size=8, max_size=8))
def test_any_order_table_is_read_back_to_itself_or_refused(values: list[int]) -> None:
    table = raw("int64", (2, 2, 2), np.reshape(values, (2, 2, 2)))
    try:
        order = order_from_tensors({"order": table}, what="fuzz")
    except FormatError:
        return
    assert order_to_tensors(order.batches, None)["order"] == table


def test_an_array_is_a_view_that_cannot_be_written() -> None:
    array = array_of({"x": raw("int64", (2,), [1, 2])}, "x", "int64", what="x")
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 9
