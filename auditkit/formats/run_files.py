"""The files of a run as tensors: traces, orders and outcome tables, both ways.

No torch, and nothing is opened here: ``auditkit.files.store`` reads and writes the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.errors import FormatError
from auditkit.formats.flat_order import FlatOrder
from auditkit.formats.ordering import LARGEST, Batch, flat_from_table, to_table
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
from auditkit.records.digest import EVIDENCE_BYTES
from auditkit.records.evidence import Trace
from auditkit.records.tensor import RawTensor

Tensors = Mapping[str, RawTensor]

#: Columns that a trace file holds beside the components.
_STEP, _LOSS = "step", "loss_bits"

_PADDED_OTHERWISE = "the order table is padded with something else than -1"


def trace_to_tensors(trace: Trace) -> dict[str, RawTensor]:
    """A trace as tensors: ``step`` int64 (n,), ``loss_bits`` uint64 (n,), uint8 (n, 16) each."""
    rows = trace.n_rows
    steps = np.arange(trace.first_step, trace.first_step + rows, dtype="<i8")
    tensors = {
        _STEP: RawTensor("int64", (rows,), steps.tobytes()),
        _LOSS: RawTensor("uint64", (rows,), trace.loss_bits),
    }
    for name, column in trace.columns.items():
        tensors[name] = RawTensor("uint8", (rows, EVIDENCE_BYTES), column)
    return tensors


def trace_from_tensors(tensors: Tensors, *, what: str) -> Trace:
    """Inverse of :func:`trace_to_tensors`.

    Raises:
        FormatError: When columns are missing, have other shapes, or steps are not consecutive.
    """
    steps = array_of(tensors, _STEP, "int64", what=what)
    losses = array_of(tensors, _LOSS, "uint64", what=what)
    if steps.ndim != 1 or len(steps) == 0 or losses.shape != steps.shape:
        raise FormatError("a trace needs step (n,) and loss_bits (n,)", where=what)
    first = int(steps[0])
    is_other = steps != first + np.arange(len(steps))  # wraps around to what is below 1
    if is_other.any() or steps.min() < 1:
        row = int(np.argmax(is_other) if is_other.any() else np.argmin(steps))
        raise FormatError(f"steps are not consecutive: row {row} is step {steps[row]}", where=what)
    columns: dict[str, bytes] = {}
    for name, tensor in tensors.items():
        if name in (_STEP, _LOSS):
            continue
        if tensor.dtype != "uint8" or tensor.shape != (len(steps), EVIDENCE_BYTES):
            raise FormatError(
                f"column {name!r} has another shape",
                expected=f"uint8 ({len(steps)}, {EVIDENCE_BYTES})",
                found=f"{tensor.dtype} {tensor.shape}",
                where=what,
            )
        columns[name] = bytes(tensor.data)
    return Trace(int(steps[0]), losses.astype("<u8").tobytes(), columns)


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
    tensors = {"order": RawTensor("int64", table.shape, table.tobytes())}
    if content is not None:
        shape = (len(batches), EVIDENCE_BYTES)
        tensors["content"] = RawTensor("uint8", shape, content)
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

    flat: FlatOrder
    content: bytes | None
    difficulty: tuple[float, ...] | None = None

    @cached_property
    def batches(self) -> list[Batch]:
        """int64 ``(B, 2)`` of (epoch, index) for each of steps 1..T."""
        return self.flat.batches()


def order_from_tensors(tensors: Tensors, *, what: str) -> OrderFile:
    """Inverse of :func:`order_to_tensors`.

    Raises:
        FormatError: When the table has another shape, padding in front of samples, or more of it
            than the longest batch needs.
    """
    table = array_of(tensors, "order", "int64", what=what)
    if table.ndim != 3 or table.shape[2] != 2:
        raise FormatError(f"order has shape {table.shape}, not (steps, batch, 2)", where=what)
    if table.size == 0 and "content" not in tensors:
        # Batches without samples take no bytes, so that only content bounds their number.
        raise FormatError("the order table holds no samples", where=what)
    content = None
    if "content" in tensors:
        digests = tensors["content"]
        if digests.shape != (len(table), EVIDENCE_BYTES) or digests.dtype != "uint8":
            raise FormatError(f"content has shape {digests.shape}", where=what)
        content = bytes(digests.data)
    flat = flat_from_table(table)
    if len(flat.pairs) < len(table) * table.shape[1] or not len(flat.pairs):
        _check_padding(table, what)
    elif flat.pairs[:, 0].min() < 0:
        raise FormatError(_PADDED_OTHERWISE, where=what)
    extra = set(tensors) - {"order", "content", "difficulty"}
    if extra:
        raise FormatError(f"unknown tensor {min(extra)!r}", where=what)
    return OrderFile(flat, content, _difficulty(tensors, what))


def _check_padding(table: NDArray[np.int64], what: str) -> None:
    is_sample = table[:, :, 0] >= 0
    if np.any(is_sample[:, 1:] & ~is_sample[:, :-1]) or np.any(table[~is_sample] != -1):
        raise FormatError(_PADDED_OTHERWISE, where=what)
    longest = int(is_sample.sum(axis=1).max(initial=0))
    if table.shape[1] != longest:  # the same batches would have many files
        raise FormatError(
            "the order table is wider than its longest batch",
            expected=longest,
            found=table.shape[1],
            where=what,
        )


def _difficulty(tensors: Tensors, what: str) -> tuple[float, ...] | None:
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


def array_of(tensors: Tensors, name: str, dtype: str, *, what: str) -> NDArray[Any]:
    """A tensor as a read-only array.

    Raises:
        FormatError: When it is missing or has another dtype.
    """
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != dtype:
        found = "nothing" if tensor is None else tensor.dtype
        raise FormatError(f"no tensor {name!r}", expected=dtype, found=found, where=what)
    flat = np.frombuffer(tensor.data, dtype=np.dtype(dtype).newbyteorder("<"))
    return flat.reshape(tensor.shape)
