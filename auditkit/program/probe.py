"""The probe: a fixed set of examples on which branches are compared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from auditkit.errors import ProgramError
from auditkit.formats.quote import class_of
from auditkit.observe.values.classes import items_of, kind_of, of_items
from auditkit.program.real_outputs import as_tensor, check_kind, checked_targets
from auditkit.records.output_kinds import CLASSES, OutputKindName
from auditkit.records.plan_values import shown

#: Stands for a label that is left out, whatever the probe's own ``ignore_index``.
IGNORED = -100

#: Rows that are passed at once, and positions where there is no label a row.
_ROWS = 512
_POSITIONS = 1024


#: What to do about labels of other shapes and kinds.
_PIXELS = (
    "lay positions in a row: labels.flatten(1), and of scores (N, C, H, W) "
    "predict=lambda model, x: model(x).flatten(2).transpose(1, 2)"
)
_NUMBERS = (
    "real numbers are of Probe(inputs, targets, outputs='regression'); of yes-or-no labels, one or "
    "several an example, give labels.long() and the logits z of both answers: "
    "predict=lambda model, x: torch.stack([torch.zeros_like(z := model(x)), z], -1)"
)


@dataclass(frozen=True)
class Probe:
    """A fixed set of examples on which branches are compared.

    Attributes:
        inputs: What the model is called with: a tensor ``(N, ...)``, or tensors of N rows each
            in dicts, tuples and other mappings, such as a tokenizer's ``BatchEncoding``.
        labels: Class indices: int64 ``(N,)``, one a row, or ``(N, T)``, one a position of every
            row, as of a language model's tokens; positions that hold ``ignore_index`` are left
            out. Where ``outputs`` are real numbers, the targets: floating point ``(N,)`` or
            ``(N, ...)``. None for distances between branches and nothing else.
        predict: ``predict(model, inputs)`` gives class scores ``(N, C)``, or ``(N, T, C)`` by
            position: logits or, where ``probabilities`` is true, probabilities. By default
            ``model(**inputs)`` where the inputs are a mapping whose keys ``forward`` takes, else
            ``model(inputs)``; where the result is no tensor, its ``logits``.
        probabilities: Whether ``predict`` gives probabilities instead of logits.
        batch_size: Rows that are passed at once. By default 512 and, where there is no label a
            row, as many as hold 1,024 positions (at least one). What is not N rows long is passed
            whole.
        of: The name of one of ``Program.averaged``, which is then asked in the model's place.
        ignore_index: Marks positions without a label.
        outputs: ``classes``; ``regression`` where ``predict`` or the model gives real numbers
            ``(N, ...)``, told by errors and by differences in units of the seeds' spread; or
            ``embedding``, where it gives ``(N, D)`` without a right answer, told by how examples
            lie to each other.
    """

    inputs: Any
    labels: Tensor | None = None
    predict: Callable[[nn.Module, Any], Tensor] | None = None
    probabilities: bool = False
    batch_size: int | None = None
    of: str | None = None
    ignore_index: int = -100
    outputs: OutputKindName = "classes"

    def __post_init__(self) -> None:
        check_kind(self.outputs, probabilities=self.probabilities)
        self._check_kinds()
        size: Any = self.batch_size
        is_whole = isinstance(size, Integral) and not isinstance(size, bool)
        if size is not None and not (is_whole and size >= 1):
            raise ProgramError(
                f"Probe.batch_size must be a whole number of at least 1, not {shown(size)}"
            )
        if self.labels is None and self.n_rows == 0:
            raise ProgramError("Probe.inputs hold no example", expected="at least one row")
        if self.outputs != CLASSES:
            object.__setattr__(self, "labels", checked_targets(self.labels, self.outputs))
            return
        if self.labels is None:
            return
        labels = as_tensor(self.labels, "labels")
        if labels.ndim not in (1, 2) or labels.numel() == 0 or labels.is_floating_point():
            raise ProgramError(
                "Probe.labels must hold one class index an example, or one a position",
                expected="int64 (N,) or (N, T)",
                found=f"{labels.dtype} {tuple(labels.shape)}",
                hint=_PIXELS if labels.ndim > 2 and not labels.is_floating_point() else _NUMBERS,
            )
        labels = labels.detach().to("cpu", torch.int64)
        if labels.ndim == 1 and bool((labels == self.ignore_index).any()):
            raise ProgramError(
                f"a label of the probe is Probe.ignore_index, {self.ignore_index}, which leaves "
                "out positions and no rows",
                hint="leave such rows out of inputs and labels, or give another ignore_index",
            )
        if labels.ndim == 2:
            known = labels[labels != self.ignore_index]
            if len(known) == 0:
                raise ProgramError("every label of the probe is Probe.ignore_index")
            if int(known.min()) < 0:
                raise ProgramError(
                    "a probe label is no class index",
                    found=int(known.min()),
                    hint="positions to leave out hold Probe(ignore_index=...), -100 by default",
                )
            labels = labels.masked_fill(labels == self.ignore_index, IGNORED)
        object.__setattr__(self, "labels", labels)

    def _check_kinds(self) -> None:
        if self.predict is not None and not callable(self.predict):
            raise ProgramError("Probe.predict is no function", found=class_of(self.predict))
        if not isinstance(self.of, (str, NoneType)):
            raise ProgramError("Probe.of is no name", found=class_of(self.of))
        index: Any = self.ignore_index
        if isinstance(index, bool) or not isinstance(index, Integral):
            raise ProgramError(f"Probe.ignore_index must be a whole number, not {shown(index)}")
        if not -(2**63) <= int(index) < 2**63:
            raise ProgramError("Probe.ignore_index must be a number of 64 bits")

    @property
    def by_position(self) -> bool:
        """Whether there is a label a position."""
        return self.outputs == CLASSES and self.labels is not None and self.labels.ndim == 2

    @property
    def targets(self) -> Tensor | None:
        """float64 ``(N, D)``: what is right where outputs are real numbers."""
        return None if self.outputs == CLASSES else self.labels

    @property
    def known_labels(self) -> Tensor:
        """int64 ``(M,)``: the labels of all rows or positions that have one."""
        if self.labels is None or self.outputs != CLASSES:
            return torch.empty(0, dtype=torch.int64)
        return self.labels[self.labels != IGNORED] if self.by_position else self.labels

    @property
    def n_rows(self) -> int | None:
        """N, by the labels or else by the inputs; None where these do not tell."""
        if self.labels is not None:
            return len(self.labels)
        lengths = {shape[:1] for shape in _shapes(self.inputs)}
        return lengths.pop()[0] if len(lengths) == 1 and () not in lengths else None

    def parts(self) -> Iterator[Any]:
        """The inputs, ``batch_size`` rows at a time where every tensor of them has N rows."""
        return (inputs for _, inputs in self.slices())

    def slices(self) -> Iterator[tuple[slice, Any]]:
        """The same, each with the rows that it is of."""
        n_rows = self.n_rows
        if n_rows is None or not _has_rows(self.inputs, n_rows):
            yield slice(None), self.inputs
            return
        size = self.batch_size or self._rows_at_once()
        for start in range(0, n_rows, size):
            rows = slice(start, start + size)
            yield rows, _rows(self.inputs, n_rows, rows)

    def _rows_at_once(self) -> int:
        if self.outputs != CLASSES or (self.labels is not None and self.labels.ndim == 1):
            return _ROWS
        shapes = [shape for shape in _shapes(self.inputs) if len(shape) > 1]
        lengths = [shape[1] for shape in shapes] if self.labels is None else [self.labels.shape[1]]
        return max(1, _POSITIONS // max(lengths, default=1)) if lengths else _ROWS

    def scores(self, model: nn.Module, inputs: Any) -> Tensor:
        """Class scores of some inputs, as ``predict`` or the model gives them.

        Raises:
            ProgramError: When they are no tensor.
        """
        found: Any = self.predict(model, inputs) if self.predict else _forward(model, inputs)
        scores = found if self.predict else getattr(found, "logits", found)
        if not isinstance(scores, Tensor):
            raise ProgramError(
                f"the probe gives {class_of(scores)}, not a tensor of class scores",
                hint="give Probe(predict=...)",
            )
        return scores.detach()


def _forward(model: nn.Module, inputs: Any) -> Any:
    return model(**inputs) if _takes_keys(model, inputs) else model(inputs)


def _takes_keys(model: nn.Module, inputs: Any) -> bool:
    if not isinstance(inputs, Mapping) or not all(isinstance(key, str) for key in inputs):
        return False
    try:
        inspect.signature(model.forward).bind(**inputs)
    except (TypeError, ValueError):  # other names; or no signature to look at
        return False
    return True


def _has_rows(inputs: Any, n_rows: int) -> bool:
    """Whether there are tensors or arrays in it, and all of them have that many rows."""
    shapes = list(_shapes(inputs))
    return bool(shapes) and all(shape[:1] == (n_rows,) for shape in shapes)


def _shapes(tree: Any) -> Iterator[tuple[int, ...]]:
    if isinstance(tree, Tensor | np.ndarray):
        yield tuple(tree.shape)
    elif type(tree) in (list, tuple):
        for item in tree:
            yield from _shapes(item)
    elif kind_of(type(tree)):
        for _, item in items_of(tree):
            yield from _shapes(item)


def _rows(tree: Any, n_rows: int, chosen: slice) -> Any:
    if isinstance(tree, Tensor | np.ndarray):
        return tree[chosen]
    if type(tree) in (list, tuple):
        if len(tree) == n_rows and not list(_shapes(tree)):  # texts, say, one a row
            return tree[chosen]
        return type(tree)(_rows(item, n_rows, chosen) for item in tree)
    if kind_of(type(tree)):
        items = items_of(tree)
        values = [_rows(item, n_rows, chosen) for _, item in items]
        return of_items(type(tree), [key for key, _ in items], values)
    return tree
