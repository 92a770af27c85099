"""What a program was when it was built: the measure of what training changed.

Perturbations go back to it (*as newly built*), plain attributes are compared with it, and a
structure that has grown since is refused before anything is restored from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from auditkit.errors import UncapturedState
from auditkit.observe.machine.distributed import SyncFlags
from auditkit.observe.state.attributes import Attributes, Scope, module_scopes, optimizer_scopes
from auditkit.observe.state.groups import saved_groups
from auditkit.observe.state.modules import SAME_OBJECTS
from auditkit.observe.values.codec import Leaves, pack, unpack

#: What :class:`auditkit.observe.machine.distributed.SyncFlags` holds.
_SYNC_FLAGS = frozenset({"require_forward_param_sync"})


@dataclass(frozen=True)
class AsBuilt:
    """A program's objects as they were built.

    Attributes:
        attributes: Their plain attributes.
        state: The optimizer's groups, and slots that its constructor made, by component.
        shapes: Shape and dtype of the model's parameters, by name.
        layers: Names of the model's layers.
        scheduler: The scheduler's state; empty where there is none.
    """

    attributes: Attributes
    state: Mapping[str, Leaves]
    shapes: Mapping[str, str]
    layers: frozenset[str]
    scheduler: Leaves

    def hyper_parameters(self, component: str) -> list[dict[str, Any]]:
        """A copy of an optimizer's groups, their parameters by name."""
        return saved_groups(self.state[component])

    def refuse_growth(self, model: nn.Module) -> None:
        """Refuse a model that a newly built one could not take the state of.

        Raises:
            UncapturedState: Naming what was added, removed or replaced.
        """
        shapes, layers = shapes_of(model), layers_of(model)
        changed = sorted(
            {*(shapes.keys() ^ self.shapes.keys()), *(layers ^ self.layers)}
            or {name for name in shapes if shapes[name] != self.shapes[name]}
        )
        if changed:
            raise UncapturedState(
                f"{changed[0] or 'the model'} was added, removed or replaced while training",
                component="params",
                hint=SAME_OBJECTS,
            )


def frozen(state: Mapping[str, Leaves]) -> dict[str, Leaves]:
    """Components in memory of their own."""
    return dict(unpack(*pack(state)))


def shapes_of(model: nn.Module) -> dict[str, str]:
    """Shape and dtype of every parameter by name."""
    return {
        name: f"{tuple(parameter.shape)} {parameter.dtype}"
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }


def layers_of(model: nn.Module) -> frozenset[str]:
    """Names of all layers."""
    return frozenset(name for name, _ in model.named_modules())


def attributes_of(
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    others: Collection[object],
) -> Attributes:
    """The plain attributes of a program.

    Args:
        modules: By path.
        optimizers: By path.
        others: Further registered objects, whose state is their own business.
    """
    has_flags = any(isinstance(other, SyncFlags) for other in others)
    hidden = _SYNC_FLAGS if has_flags else frozenset[str]()
    known = [*map(id, others), *map(id, modules.values()), *map(id, optimizers.values())]
    scopes: list[Scope] = []
    for path, module in modules.items():
        scopes.extend(module_scopes(path, module, hidden, known))
    for path, optimizer in optimizers.items():
        scopes.extend(optimizer_scopes(path, optimizer, known))
    parameters = {id(member) for o in optimizers.values() for member in _members(o)}
    return Attributes(list(_once(scopes)), parameters)


def _members(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    return (member for group in optimizer.param_groups for member in group["params"])


def _once(scopes: list[Scope]) -> Iterator[Scope]:
    """Each object by the first path that leads to it."""
    seen: set[int] = set()
    for scope in scopes:
        key = id(scope.get())
        if key not in seen:
            seen.add(key)
            yield scope
