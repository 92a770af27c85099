"""The files of a run as tensors: traces, orders and outcome tables, both ways.

No torch, and nothing is opened here: ``auditkit.files.store`` reads and writes the tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.errors import FormatError
from auditkit.formats.flat_order import Order
from auditkit.formats.ordering import LARGEST, Batch, flat_from_table, is_full, to_table
from auditkit.formats.outcome_names import (
    COLUMNS,
    LABELS,
    is_labels,
    is_real,
    is_targets,
    labels_name,
    probe_of,
    split_column,
    split_measure,
    targets_name,
)
from auditkit.formats.stored_order import StoredOrder, tables
from auditkit.records.digest import EVIDENCE_BYTES
from auditkit.records.evidence import Column, Trace
from auditkit.records.tensor import FileColumn, FileTensor, RawTensor

Tensors = Mapping[str, RawTensor]

#: Tensors of which some may stay in their file.
StoredTensors = Mapping[str, RawTensor | FileTensor]

#: Columns that a trace file holds beside the components.
_STEP, _LOSS = "step", "loss_bits"

#: Tensors of an order file.
_ORDER, _CONTENT = "order", "content"

_PADDED_OTHERWISE = "the order table is padded with something else than -1"


def trace_to_tensors(trace: Trace) -> dict[str, RawTensor]:
    """A trace as tensors: ``step`` int64 (n,), ``loss_bits`` uint64 (n,), uint8 (n, 16) each."""
    rows = trace.n_rows
    steps = np.arange(trace.first_step, trace.first_step + rows, dtype="<i8")
    tensors = {
        _STEP: RawTensor("int64", (rows,), steps.tobytes()),
        _LOSS: RawTensor("uint64", (rows,), trace.loss_bits[:]),
    }
    for name, column in trace.columns.items():
        tensors[name] = RawTensor("uint8", (rows, EVIDENCE_BYTES), column[:])
    return tensors


def trace_from_tensors(tensors: StoredTensors, *, what: str) -> Trace:
    """Inverse of :func:`trace_to_tensors`; what stays in a file is read there when it is needed.

    Raises:
        FormatError: When columns are missing, have other shapes, or steps are not consecutive.
    """
    steps = _tensor_of(tensors, _STEP, "int64", what)
    losses = _tensor_of(tensors, _LOSS, "uint64", what)
    if len(steps.shape) != 1 or steps.shape[0] == 0 or losses.shape != steps.shape:
        raise FormatError("a trace needs step (n,) and loss_bits (n,)", where=what)
    n_rows, columns = steps.shape[0], {}
    first = _first_of_consecutive(steps, what)
    for name, tensor in tensors.items():
        if name in (_STEP, _LOSS):
            continue
        if tensor.dtype != "uint8" or tensor.shape != (n_rows, EVIDENCE_BYTES):
            raise FormatError(
                f"column {name!r} has another shape",
                expected=f"uint8 ({n_rows}, {EVIDENCE_BYTES})",
                found=f"{tensor.dtype} {tensor.shape}",
                where=what,
            )
        columns[name] = _column(tensor)
    return Trace(first, _column(losses), columns)


def _first_of_consecutive(steps: RawTensor | FileTensor, what: str) -> int:
    """The first of steps that are counted up by one from there."""
    first, row = 0, 0
    for piece in steps.pieces():
        numbers = np.frombuffer(piece, dtype="<i8")
        first = first or int(numbers[0])
        is_other = numbers - np.arange(row, row + len(numbers)) != first
        if is_other.any() or numbers.min() < 1:  # counting wraps around to what is below 1
            at = int(np.argmax(is_other) if is_other.any() else np.argmin(numbers))
            text = f"steps are not consecutive: row {row + at} is step {numbers[at]}"
            raise FormatError(text, where=what)
        row += len(numbers)
    return first


def _column(tensor: RawTensor | FileTensor) -> Column:
    return FileColumn(tensor) if isinstance(tensor, FileTensor) else bytes(tensor.data)


def order_to_tensors(
    batches: list[Batch], content: bytes | None, difficulty: Sequence[float] | None = None
) -> dict[str, RawTensor]:
    """An order as tensors: ``order`` int64 (steps, longest batch, 2), padded with -1.

    Args:
        batches: One int64 ``(B, 2)`` a step; empty batches for an iterable dataset.
        content: For an iterable dataset, one 16-byte digest a step; stored as ``content``.
        difficulty: Of every sample of the window, where a branch is ordered by it.
    """
    table = to_table(batches).astype("<i8")
    tensors = {_ORDER: RawTensor("int64", table.shape, table.tobytes())}
    if content is not None:
        shape = (len(batches), EVIDENCE_BYTES)
        tensors[_CONTENT] = RawTensor("uint8", shape, content)
    if difficulty is not None:
        numbers = np.asarray(difficulty, dtype="<f8")
        tensors["difficulty"] = RawTensor("float64", numbers.shape, numbers.tobytes())
    return tensors


@dataclass(frozen=True)
class OrderFile:
    """The control's data order.

    Attributes:
        flat: (epoch, index) of the samples of each of steps 1..T.
        content: For an iterable dataset, a 16-byte digest a step; None otherwise.
        difficulty: Of every sample of the window in the control's order, as the program gives it;
            None where no branch is ordered by it.
    """

    flat: Order
    content: bytes | None
    difficulty: tuple[float, ...] | None = None

    @cached_property
    def batches(self) -> list[Batch]:
        """int64 ``(B, 2)`` of (epoch, index) for each of steps 1..T."""
        return self.flat.batches()


def order_from_tensors(tensors: StoredTensors, *, what: str) -> OrderFile:
    """Inverse of :func:`order_to_tensors`; what stays in a file is read there when it is needed.

    Raises:
        FormatError: When the table has another shape, padding in front of samples, or more of it
            than the longest batch needs.
    """
    table = _tensor_of(tensors, _ORDER, "int64", what)
    if len(table.shape) != 3 or table.shape[2] != 2:
        raise FormatError(f"order has shape {table.shape}, not (steps, batch, 2)", where=what)
    if table.n_bytes == 0 and _CONTENT not in tensors:
        # Batches without samples take no bytes, so that only content bounds their number.
        raise FormatError("the order table holds no samples", where=what)
    content = None
    if _CONTENT in tensors:
        digests = tensors[_CONTENT]
        if digests.shape != (table.shape[0], EVIDENCE_BYTES) or digests.dtype != "uint8":
            raise FormatError(f"content has shape {digests.shape}", where=what)
        content = _column(digests)[:]
    if isinstance(table, FileTensor) and table.n_bytes:
        order: Order = StoredOrder.whole(table)
        _check_padding(tables(table), table.shape[1], what)
    else:
        array = array_of(tensors, _ORDER, "int64", what=what)
        order = flat_from_table(array)
        _check_padding([array], table.shape[1], what)
    extra = set(tensors) - {_ORDER, _CONTENT, "difficulty"}
    if extra:
        raise FormatError(f"unknown tensor {min(extra)!r}", where=what)
    return OrderFile(order, content, _difficulty(tensors, what))


def _check_padding(parts: Iterable[NDArray[np.int64]], width: int, what: str) -> None:
    """Whether a table, given in parts, is padded behind its samples, and only there."""
    longest = 0
    for table in parts:
        if is_full(table):
            longest = width if len(table) else longest
            continue
        is_sample = table[:, :, 0] >= 0
        if np.any(is_sample[:, 1:] & ~is_sample[:, :-1]) or np.any(table[~is_sample] != -1):
            raise FormatError(_PADDED_OTHERWISE, where=what)
        longest = max(longest, int(is_sample.sum(axis=1).max(initial=0)))
    if width != longest:  # the same batches would have many files
        raise FormatError(
            "the order table is wider than its longest batch",
            expected=longest,
            found=width,
            where=what,
        )


def _difficulty(tensors: StoredTensors, what: str) -> tuple[float, ...] | None:
    if "difficulty" not in tensors:
        return None
    numbers = array_of(tensors, "difficulty", "float64", what=what)
    if numbers.ndim != 1 or not (np.abs(numbers) <= LARGEST).all():
        raise FormatError(f"difficulties are not (samples,) numbers up to {LARGEST:g}", where=what)
    return tuple(numbers.tolist())


@dataclass(frozen=True)
class Outcome:
    """Probe results of one branch.

    Attributes:
        labels: int64 ``(N,)``; of a probe with labels a position those of its M positions that
            have one. Empty where the probe has no labels, and where probes have names.
        tables: float32 ``(N, C)`` of class probabilities by ``t0``, ``t0+W``, ``T``, a plan's
            further times and, where the model has BatchNorm, the same with ``/recalibrated``. Of
            a probe that is looked at by position there is a column ``(M,)`` each instead, such as
            ``T:tv``; of named probes ``T@NAME``, and ``labels@NAME``; of measures ``T=NAME``,
            float64 ``(1,)``. Outputs that are no probabilities are float32 ``(N, D)``, as
            ``T:regression``, beside ``targets`` float64 ``(N, D)``. See
            :mod:`auditkit.formats.outcome_names`.
    """

    labels: NDArray[np.int64]
    tables: Mapping[str, NDArray[Any]]

    def labels_of(self, probe: str) -> NDArray[Any]:
        """The labels or targets of a probe; empty where it has none."""
        if targets_name(probe) in self.tables:
            return self.tables[targets_name(probe)]
        named = self.tables.get(labels_name(probe), np.empty(0, dtype=np.int64))
        return named if probe else self.labels


def outcome_to_tensors(outcome: Outcome) -> dict[str, RawTensor]:
    """An outcome as tensors."""
    tensors = {}
    arrays = {LABELS: outcome.labels} if outcome.labels.size else {}
    for name, table in {**arrays, **outcome.tables}.items():
        dtype = _dtype_of(name)
        data = np.ascontiguousarray(table, dtype=np.dtype(dtype).newbyteorder("<"))
        tensors[name] = RawTensor(dtype, data.shape, data.tobytes())
    return tensors


def outcome_from_tensors(tensors: Tensors, *, what: str) -> Outcome:
    """Inverse of :func:`outcome_to_tensors`; the values themselves are check 4's business.

    Raises:
        FormatError: When shapes or dtypes differ from the layout.
    """
    arrays = {name: array_of(tensors, name, _dtype_of(name), what=what) for name in tensors}
    n_rows: dict[str, int] = {}  # by probe, of its labels if there are any
    for name in sorted(arrays, key=lambda name: (not is_labels(name), name)):
        array = arrays[name]
        if split_measure(name)[1]:
            if array.shape != (1,):
                raise FormatError(f"measure {name!r} has shape {array.shape}, not (1,)", where=what)
            continue
        is_flat_label = is_labels(name) and not is_targets(name)
        if is_flat_label and (array.ndim != 1 or len(array) == 0):
            raise FormatError(f"{name} have shape {array.shape}, not (N,) with N > 0", where=what)
        rows = n_rows.setdefault(probe_of(name), len(array) if array.ndim else 0)
        is_wide = is_real(name) or is_targets(name)
        is_flat = not is_wide and (is_labels(name) or split_column(name)[1] != "")
        least = 1 if is_wide else 2
        is_shaped = array.ndim == 1 if is_flat else array.ndim == 2 and array.shape[1] >= least
        if not is_shaped or len(array) != rows or rows == 0:
            shape = f"({rows},)" if is_flat else f"({rows}, C)"
            raise FormatError(f"outcome {name!r} has shape {array.shape}, not {shape}", where=what)
    labels = arrays.pop(LABELS, np.empty(0)).astype(np.int64)
    named = {
        name: array.astype(np.float64 if is_targets(name) else np.int64)
        for name, array in arrays.items()
        if is_labels(name)
    }
    return Outcome(labels, {**arrays, **named})


def _dtype_of(name: str) -> str:
    if is_targets(name):
        return "float64"
    if is_labels(name):
        return "int64"
    if split_measure(name)[1]:
        return "float64"
    return COLUMNS.get(split_column(name)[1], "float32")


def array_of(tensors: StoredTensors, name: str, dtype: str, *, what: str) -> NDArray[Any]:
    """A tensor as a read-only array.

    Raises:
        FormatError: When it is missing or has another dtype.
    """
    tensor = _tensor_of(tensors, name, dtype, what)
    data = _column(tensor)[:] if isinstance(tensor, FileTensor) else tensor.data
    flat = np.frombuffer(data, dtype=np.dtype(dtype).newbyteorder("<"))
    return flat.reshape(tensor.shape)


def _tensor_of(tensors: StoredTensors, name: str, dtype: str, what: str) -> RawTensor | FileTensor:
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != dtype:
        found = "nothing" if tensor is None else tensor.dtype
        raise FormatError(f"no tensor {name!r}", expected=dtype, found=found, where=what)
    return tensor
