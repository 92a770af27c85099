"""Find state that no snapshot would hold, and name it, instead of leaving a silent gap.

Two searches, each over what the program's objects reach: random generators that nobody
registered (at the start), and plain python attributes that changed between the start and the
fork (a queue's pointer kept as an ``int`` on a module is in no ``state_dict``). Both may miss
what hides well; the replica then drifts from the control.
"""

from __future__ import annotations

import cmath
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from auditkit.errors import UncapturedState
from auditkit.observe.loader.samplers import sampler_generators
from auditkit.observe.machine.distributed import SyncFlags
from auditkit.observe.rng.streams import is_generator, is_global_generator
from auditkit.observe.state.components import TrainingObjects
from auditkit.observe.state.modules import ModuleState
from auditkit.observe.state.reach import is_library_class, reachable
from auditkit.observe.values.codec import flatten
from auditkit.observe.values.digests import digest_leaves
from auditkit.records.digest import EVIDENCE_RECIPE

_SCALARS = (bool, int, float, complex, str, bytes, type(None))
_CONTAINERS = (list, tuple, dict, set, frozenset, deque, np.ndarray, Tensor)

#: What torch itself keeps on every module and every optimizer: hooks, bookkeeping, and state
#: that has a component.
_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
#: What :class:`auditkit.observe.machine.distributed.SyncFlags` holds.
_SYNC_FLAGS = frozenset({"require_forward_param_sync"})
_OPTIMIZER_ATTRIBUTES = frozenset(
    [*vars(torch.optim.SGD([torch.zeros(1)], lr=0.1)), "_opt_called", "step"]
)


def refuse_unregistered_generators(
    objects: TrainingObjects, loader: DataLoader[Any], functions: Mapping[str, Any]
) -> None:
    """Refuse generators that the program holds and that no component records.

    Args:
        objects: The training objects; their extras are the registered ones.
        loader: The loader; generators of its samplers are kept with the data position.
        functions: The program's callables by name (loss, step ...), whose closures are searched.

    Raises:
        UncapturedState: Naming the first one found and how to register it.
    """
    known = list(sampler_generators(loader).values())
    # What a registered object holds is that object's own business.
    known.extend(extra for extra in objects.extras.values() if not isinstance(extra, nn.Module))
    roots: dict[str, Any] = {}
    for root, module in _module_roots(objects).items():
        # Each layer by itself: models are nested deeper than a search goes.
        for name, layer in module.named_modules():
            roots[f"{root}.{name}" if name else root] = layer
    roots["optimizer"] = objects.optimizer
    for name in ("dataset", "collate_fn", "worker_init_fn", "sampler", "batch_sampler"):
        roots[f"loader.{name}"] = getattr(loader, name)
    roots.update(functions)
    for path, value in reachable(roots, known):
        if not is_generator(value) or is_global_generator(value):
            continue
        kind = type(value)
        raise UncapturedState(
            f"{path} is a {kind.__module__}.{kind.__qualname__} whose state no snapshot would hold",
            component="rng",
            hint=_registration_hint(path, loader),
        )


def plain_attributes(objects: TrainingObjects) -> dict[str, object]:
    """Values kept as plain attributes, which no ``state_dict`` holds.

    Numbers and text on any layer; on layers whose class is the user's own also arrays, tensors
    and containers, and names that begin with an underscore. Left out are layers with a
    ``get_extra_state`` and tensors that are parameters, buffers or results with a graph.

    Args:
        objects: The training objects; all modules and the optimizer are looked at.

    Returns:
        Values by path. Compare a later call with :func:`refuse_changed_attributes`.
    """
    found: dict[str, object] = {}
    has_sync_flags = any(isinstance(extra, SyncFlags) for extra in objects.extras.values())
    shared = _MODULE_ATTRIBUTES | (_SYNC_FLAGS if has_sync_flags else frozenset())
    for root, module in _module_roots(objects).items():
        addresses = {
            tensor.data_ptr()
            for tensor in ModuleState(module).whole().values()
            if isinstance(tensor, Tensor) and tensor.layout is torch.strided and not tensor.is_meta
        }
        for name, layer in module.named_modules():
            if type(layer).get_extra_state is nn.Module.get_extra_state:
                path = f"{root}.{name}" if name else root
                hidden = shared | _reparametrized_weights(layer)
                found.update(_plain_values(path, layer, hidden, addresses))
    found.update(_plain_values("optimizer", objects.optimizer, _OPTIMIZER_ATTRIBUTES, set()))
    return found


def refuse_changed_attributes(before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Refuse a program whose plain attributes changed while it trained.

    Raises:
        UncapturedState: Naming the first attribute that changed.
    """
    for path in sorted(set(before) | set(after)):
        old, new = before.get(path), after.get(path)
        if type(old) is type(new) and (old == new or _is_nan(old)):
            continue
        raise UncapturedState(
            f"{path} changed from {old!r} to {new!r} during training and is in no state_dict",
            component="modules",
            hint="make it a buffer, return it from get_extra_state/set_extra_state, or keep it "
            "in an extra",
        )


def _is_nan(value: object) -> bool:
    return isinstance(value, (float, complex)) and cmath.isnan(value)


@dataclass(frozen=True, repr=False)
class _Content:
    """A container or array, by its kind and digest."""

    kind: str
    digest: bytes

    def __repr__(self) -> str:
        return f"a {self.kind} with the digest {self.digest.hex()[:8]}"


def _module_roots(objects: TrainingObjects) -> dict[str, nn.Module]:
    return {
        "model": objects.model,
        **{f"averaged[{name!r}]": module for name, module in objects.averaged.items()},
        **{
            f"extras[{name!r}]": extra
            for name, extra in objects.extras.items()
            if isinstance(extra, nn.Module)
        },
    }


def _plain_values(
    path: str, owner: Any, hidden: frozenset[str], addresses: set[int]
) -> dict[str, object]:
    is_library = is_library_class(owner.__class__)
    found: dict[str, object] = {}
    for name, value in vars(owner).items():
        if name in hidden or (is_library and name.startswith("_")):
            continue
        if isinstance(value, _SCALARS):
            found[f"{path}.{name}"] = value
        elif isinstance(value, _CONTAINERS) and not is_library:
            content = _content(value, addresses)
            if content is not None:
                found[f"{path}.{name}"] = content
    return found


def _content(value: object, addresses: set[int]) -> _Content | None:
    try:
        leaves = flatten(value, where="attribute")
    except UncapturedState:  # it holds objects, or results that still have a graph
        return None
    tensors = [leaf for leaf in leaves.values() if isinstance(leaf, Tensor)]
    if any(tensor.numel() and tensor.data_ptr() in addresses for tensor in tensors):
        return None
    return _Content(type(value).__name__, digest_leaves(EVIDENCE_RECIPE, leaves))


def _reparametrized_weights(layer: nn.Module) -> frozenset[str]:
    """Weights that pruning and the older weight and spectral norm compute in every forward."""
    endings = ("_orig", "_v", "_g")
    return frozenset(
        name.removesuffix(ending)
        for name in layer._parameters
        for ending in endings
        if name.endswith(ending)
    )


def _registration_hint(path: str, loader: DataLoader[Any]) -> str:
    name, in_loader = path.rpartition(".")[2], path.startswith("loader.")
    following = f"extras={{{name!r}: auditkit.PerSample(<that generator>)}}"
    if in_loader and loader.num_workers:
        return (
            "worker processes draw from copies that cannot be read; draw from random, "
            f"numpy.random or torch, or, in a study, let it be seeded for every sample: {following}"
        )
    hint = f"register it: extras={{{name!r}: <that generator>}}"
    if not in_loader:
        return hint
    return (
        f"{hint}; so it follows the position, and a study that puts samples in another order gives "
        f"them other numbers; or let it follow the sample, in a study: {following}"
    )
