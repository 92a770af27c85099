"""The probe: a fixed set of examples on which branches are compared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from auditkit.errors import ProgramError
from auditkit.formats.quote import class_of
from auditkit.observe.values.classes import items_of, kind_of, of_items


@dataclass(frozen=True)
class Probe:
    """A fixed set of examples on which branches are compared.

    Attributes:
        inputs: What the model is called with: a tensor ``(N, ...)``, or tensors of N rows each
            in dicts, tuples and other mappings, such as a tokenizer's ``BatchEncoding``.
        labels: int64 ``(N,)``, class indices.
        predict: ``predict(model, inputs)`` gives class scores ``(N, C)``: logits or, where
            ``probabilities`` is true, probabilities. By default ``model(**inputs)`` where the
            inputs are a mapping whose keys ``forward`` takes, else ``model(inputs)``; where the
            result is no tensor, its ``logits``.
        probabilities: Whether ``predict`` gives probabilities instead of logits.
        batch_size: Rows that are passed at once. What is not N rows long is passed whole.
        of: The name of one of ``Program.averaged``, which is then asked in the model's place.
    """

    inputs: Any
    labels: Tensor
    predict: Callable[[nn.Module, Any], Tensor] | None = None
    probabilities: bool = False
    batch_size: int = 512
    of: str | None = None

    def __post_init__(self) -> None:
        labels = torch.as_tensor(self.labels)
        if labels.ndim != 1 or len(labels) == 0 or labels.is_floating_point():
            raise ProgramError(
                "Probe.labels must hold one class index an example",
                expected="int64 (N,)",
                found=f"{labels.dtype} {tuple(labels.shape)}",
            )
        object.__setattr__(self, "labels", labels.detach().to("cpu", torch.int64))

    def parts(self) -> Iterator[Any]:
        """The inputs, ``batch_size`` rows at a time where every tensor of them has N rows."""
        n_rows = len(self.labels)
        if not _has_rows(self.inputs, n_rows):
            yield self.inputs
            return
        for start in range(0, n_rows, self.batch_size):
            yield _rows(self.inputs, n_rows, slice(start, start + self.batch_size))

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
