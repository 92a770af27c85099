"""Averages of a model that a script keeps in a dict or list of tensors, and not in a module.

Such an average follows the model without ever being it. So a collection of tensors of the
parameters' shapes is looked at before two steps that follow each other: what is the same object,
lies near the parameters, went a part of its way to them and is what they are at neither of them,
was averaged in between. A copy for one step (as of the weights before a perturbation) is what the
model was; what a step makes anew is another object; gradients lie elsewhere; and what each step
writes anew from the parameters (with noise, of a coarser kind, a few steps further) goes as far as
they are away.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from auditkit.observe.state.reach import is_library_class, reachable

#: How many tensors of each are compared, the smallest ones.
_N_COMPARED = 8

#: The distance to the parameters, as a part of their own length, that is near.
_NEAR = 0.5

#: The most that an average goes of its way to the parameters: a mean of two goes half of it (and
#: rounds).
_LARGEST_PART = 0.51

#: Objects that are looked at of what one registered object holds.
_MOST_HELD = 1_000

#: What torch itself keeps on modules and optimizers.
_BOOKKEEPING = frozenset({*vars(nn.Module()), *vars(SGD([torch.zeros(1)], lr=0.1))})

_Values = list[Tensor]


class KeptAverages:
    """Looks at collections of tensors before two steps in a row.

    Args:
        model: What they may be averages of.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._names: list[str] = []
        self._shapes: dict[str, torch.Size] = {}
        #: Containers and memory that a checkpoint holds.
        self._kept: set[int] = set()
        self._addresses: set[int] = set()
        #: By path, for one step only: each may be as large as the model.
        self._held: list[tuple[str, Any, _Values]] = []
        self._before: _Values = []
        self._step = 0

    @property
    def is_waiting(self) -> bool:
        """Whether the next step is to be looked at, too."""
        return bool(self._held)

    def begin(self, step: int, registered: Iterable[object]) -> None:
        """Collections are about to be given, as they are before a step.

        Args:
            step: Its number.
            registered: All that is registered; what these hold themselves is in a checkpoint.
        """
        parameters = dict(self._model.named_parameters())
        self._names = sorted(parameters, key=lambda name: parameters[name].numel())[:_N_COMPARED]
        self._shapes = {name: parameter.shape for name, parameter in parameters.items()}
        owners = [*registered]
        owners += _held_by(owners)
        self._kept = {id(one) for one in owners}
        self._addresses = {tensor.data_ptr() for tensor in _tensors_of(owners)}
        self._held, self._before, self._step = [], self._values(parameters), step

    def add(self, path: str, value: object) -> None:
        """Hold a collection if it may be an average."""
        tensors = None if id(value) in self._kept else self._by_name(value)
        if tensors is not None:
            self._held.append((path, value, self._values(tensors)))

    def moved(self, step: int) -> list[tuple[str, Any]]:
        """Path and object of those that were averaged since the step before; lets go of all."""
        held, self._held = self._held, []
        if not held or step != self._step + 1:
            return []
        now = self._values(dict(self._model.named_parameters()))
        found = []
        for path, value, before in held:
            tensors = self._by_name(value)
            if tensors is None:
                continue
            values, kinds = self._values(tensors), [tensors[name].dtype for name in self._names]
            is_copy = any(_equal(values, _as_kept(own, kinds)) for own in (now, self._before))
            part = _distance(values, before) / max(_distance(now, before), sys.float_info.min)
            is_near = _distance(values, now) < _NEAR * _length(now)
            if not is_copy and is_near and 0 < part <= _LARGEST_PART:
                found.append((path, value))
        return found

    def _by_name(self, value: object) -> Mapping[str, Tensor] | None:
        """Its tensors by the names of the parameters, in memory of their own; None if they lack."""
        shapes = self._shapes
        if type(value) in (list, tuple):
            items: list[Any] = list(value)  # type: ignore[call-overload]
            if len(items) != len(shapes):
                return None
            tensors = dict(zip(shapes, items, strict=True))
        elif isinstance(value, dict):  # a class of the user's own may answer in its own way
            tensors = {name: dict.get(value, name) for name in shapes}
            if any(one is None for one in tensors.values()) and dict.__len__(value) == len(shapes):
                tensors = dict(zip(shapes, dict.values(value), strict=True))  # by other names
        else:
            return None
        is_fit = bool(shapes) and all(
            type(tensors[name]) in (Tensor, nn.Parameter) and tensors[name].shape == shape
            for name, shape in shapes.items()
        )
        return tensors if is_fit and self._is_apart(tensors[name] for name in shapes) else None

    def _is_apart(self, tensors: Iterable[Tensor]) -> bool:
        return all(
            tensor.layout is torch.strided
            and not tensor.is_meta
            and not tensor.requires_grad  # another model is trained
            and tensor.is_floating_point()
            and tensor.data_ptr() not in self._addresses
            for tensor in tensors
        )

    def _values(self, tensors: Mapping[str, Tensor]) -> _Values:
        with torch.no_grad():
            return [
                tensors[name].detach().to("cpu", torch.float64, copy=True) for name in self._names
            ]


def _held_by(registered: Sequence[object]) -> Iterator[object]:
    """What plain attributes of models and optimizers lead to; they are captured by themselves.

    Of an installed layer it is what containers of its own hold, and not what other objects do.
    """
    for number, owner in enumerate(registered):
        if not isinstance(owner, (nn.Module, Optimizer)):
            continue
        kind: type = type(owner)
        is_own = isinstance(owner, Optimizer) or not is_library_class(kind)
        roots = {
            f"{number}.{name}": value
            for name, value in vars(owner).items()
            if name not in _BOOKKEEPING
            and (is_own or (name[:1] != "_" and isinstance(value, (dict, list, tuple))))
        }
        yield from (value for _, value in reachable(roots, registered, limit=_MOST_HELD))


def _tensors_of(owners: Iterable[object]) -> Iterator[Tensor]:
    """Tensors that these hold themselves and that lie in memory."""
    for owner in owners:
        found: list[Any] = [*getattr(owner, "__dict__", {}).values()]
        if isinstance(owner, nn.Module):
            found += [*owner._parameters.values(), *owner._buffers.values()]
        elif isinstance(owner, Optimizer):
            states = [one for one in owner.state.values() if isinstance(one, dict)]
            found += chain.from_iterable(one.values() for one in states)
        elif isinstance(owner, (dict, list, tuple)):
            found += owner.values() if isinstance(owner, dict) else owner
        for one in found:
            if type(one) in (Tensor, nn.Parameter) and one.layout is torch.strided:
                yield one


def _equal(some: _Values, others: _Values) -> bool:
    return all(map(torch.equal, some, others))


def _as_kept(values: _Values, kinds: Iterable[torch.dtype]) -> _Values:
    """What copies of them are that may be of coarser kinds."""
    return [one.to(kind).to(one.dtype) for one, kind in zip(values, kinds, strict=True)]


def _distance(some: _Values, others: _Values) -> float:
    return _length([a - b for a, b in zip(some, others, strict=True)])


def _length(values: _Values) -> float:
    return math.sqrt(sum(float(one.square().sum()) for one in values))
