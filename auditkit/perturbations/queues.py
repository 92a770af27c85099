"""What a queue, a bank or a replay buffer holds: cleared, shuffled, made older (source S4).

A queue is a named group of the model's buffers, or an extra: a module, or an object whose
``state_dict`` holds tensors. Rows lie along ``dim``; what has one element is a pointer or a count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from auditkit.errors import NothingToPerturb
from auditkit.formats.seeds import derive_seed
from auditkit.observe.rng.streams import Generator
from auditkit.observe.state.components import TrainingObjects
from auditkit.observe.state.named_groups import group_tensors
from auditkit.observe.state.state_dicts import load_state, state_of
from auditkit.perturbations.base import Perturbation, nothing_yet
from auditkit.perturbations.copying import tensors_of
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import ParameterValue

Tensors = Mapping[str, Tensor]
Parameters = Mapping[str, ParameterValue]


class QueueClear(Perturbation):
    """Every tensor of the queue := 0, a pointer in it included."""

    declaration = DECLARATIONS["queue-clear"]

    def apply(self, objects: TrainingObjects, parameters: Parameters, seed: int) -> None:
        """Fill with zeros."""
        queue = _queue(objects, parameters)
        queue.become({name: torch.zeros_like(value) for name, value in queue.tensors.items()})


class QueueShuffle(Perturbation):
    """The rows in an order drawn from (seed, ``draw``); labels go with their rows."""

    declaration = DECLARATIONS["queue-shuffle"]

    def apply(self, objects: TrainingObjects, parameters: Parameters, seed: int) -> None:
        """Permute the rows of all tensors that have as many, alike."""
        queue, dim = _queue(objects, parameters), int(parameters.get("dim", 0))
        rows, n_rows = queue.rows(dim)
        drawn = derive_seed(seed, "queue-shuffle", int(parameters["draw"])) & 0xFFFFFFFF
        order = torch.from_numpy(np.random.RandomState(drawn).permutation(n_rows))
        queue.become({name: _taken(value, order, dim) for name, value in rows.items()})


class QueueStale(Perturbation):
    """The newer half of a ring := its older half, so that nothing in it is recent."""

    declaration = DECLARATIONS["queue-stale"]

    def apply(self, objects: TrainingObjects, parameters: Parameters, seed: int) -> None:
        """Overwrite the rows that were written last; the pointer says which they are."""
        queue, dim = _queue(objects, parameters), int(parameters.get("dim", 0))
        rows, n_rows = queue.rows(dim)
        pointer = _pointer(objects, queue, str(parameters.get("pointer", "")))
        # Where the pointer stands is the row that is written next, the oldest.
        by_age = (np.arange(n_rows) + pointer) % n_rows
        half = n_rows // 2
        order = np.arange(n_rows)
        order[by_age[n_rows - half :]] = by_age[:half]
        taken = torch.from_numpy(order)
        queue.become({name: _taken(value, taken, dim) for name, value in rows.items()})


def _taken(value: Tensor, order: Tensor, dim: int) -> Tensor:
    return value.detach().index_select(dim, order.to(value.device))


@dataclass(frozen=True)
class _Queue:
    """A queue's tensors, and how they are written.

    Attributes:
        component: Where they are.
        tensors: By name.
        write: Writes some of them.
    """

    component: str
    tensors: Tensors
    write: Callable[[Tensors], None]

    def rows(self, dim: int) -> tuple[dict[str, Tensor], int]:
        """What has rows along a dimension, and how many."""
        found = {name: value for name, value in self.tensors.items() if value.numel() > 1}
        counts = {value.shape[dim] if value.ndim > dim else 0 for value in found.values()}
        if len(counts) != 1 or max(counts) < 2:  # one row has no order
            shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in found.items())
            raise NothingToPerturb(
                f"{self.component} has no rows along dimension {dim}: {shapes or 'nothing'}",
                component=self.component,
                hint="dim= says where the rows lie; a group may leave out what has others",
            )
        return found, counts.pop()

    def become(self, values: Tensors) -> None:
        """Write values.

        Raises:
            NothingToPerturb: When they are what is there.
        """
        if all(torch.equal(value, self.tensors[name]) for name, value in values.items()):
            raise nothing_yet(f"{self.component} is already what it would become", self.component)
        self.write(values)


def _queue(objects: TrainingObjects, parameters: Parameters) -> _Queue:
    name = str(parameters["name"])
    extra = objects.extras.get(name)
    of_extra = extra is not None and not isinstance(extra, (Generator, torch.optim.Optimizer))
    if of_extra and name not in objects.groups:
        component = f"extras/{name}"
        if isinstance(extra, nn.Module):
            tensors = tensors_of(extra)
            return _with_tensors(component, tensors, lambda values: _copy(tensors, values))
        leaves = state_of(extra, component)
        held = {key: value for key, value in leaves.items() if isinstance(value, Tensor)}
        return _with_tensors(
            component, held, lambda values: load_state(extra, {**leaves, **values}, component)
        )
    if name in objects.groups and not of_extra:
        grouped = group_tensors(objects.model, objects.groups, name)
        section = "buffers" if set(grouped) & set(dict(objects.model.named_buffers())) else "params"
        component = f"{section}/{name}"
        return _with_tensors(component, grouped, lambda values: _copy(grouped, values))
    known = ", ".join(sorted({*objects.groups, *objects.extras})) or "none"
    raise NothingToPerturb(
        f"{'two queues are' if of_extra else 'no queue is'} called {name!r}",
        component=f"buffers/{name}",
        hint=f"groups and extras: {known}; name the buffers that it is: "
        "Program(groups={'queue': 'queue*'})",
    )


def _with_tensors(component: str, tensors: Tensors, write: Callable[[Tensors], None]) -> _Queue:
    if not tensors:
        raise NothingToPerturb(f"{component} holds no tensor", component=component)
    return _Queue(component, tensors, write)


def _copy(live: Tensors, values: Tensors) -> None:
    with torch.no_grad():
        for name, value in values.items():
            live[name].copy_(value)


def _pointer(objects: TrainingObjects, queue: _Queue, name: str) -> int:
    """The row that is written next: a whole number of one element, in the queue or the model."""
    buffers = dict(objects.model.named_buffers())
    among = {name: buffers.get(name, queue.tensors.get(name))} if name else dict(queue.tensors)
    found = _whole_numbers(among)
    if len(found) == 1:
        return next(iter(found.values()))
    known = _whole_numbers({**buffers, **queue.tensors})
    which = f"one of {', '.join(sorted(known))}" if known else "of which there is none"
    raise NothingToPerturb(
        f"{queue.component}: {'several pointers' if found else 'no pointer'} of one whole number",
        component=queue.component,
        expected=name or None,
        hint=f"queue-stale needs to know which row is written next: pointer=NAME of a buffer that "
        f"holds one whole number, {which}",
    )


def _whole_numbers(tensors: Mapping[str, Tensor | None]) -> dict[str, int]:
    """Tensors of one whole number, by name: what a pointer can be."""
    return {
        name: int(value)
        for name, value in tensors.items()
        if value is not None and value.numel() == 1 and not value.is_floating_point()
    }
