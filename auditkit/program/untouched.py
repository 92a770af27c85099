"""Whether a function of the user's left training as it was: its state, its hooks, its methods."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from auditkit.errors import ProbeDisturbance
from auditkit.observe.state.attributes import ATTRIBUTES
from auditkit.observe.state.components import TrainingObjects
from auditkit.observe.state.hooks import TENSOR_HOOKS
from auditkit.observe.values.digests import digest_leaves
from auditkit.program.session import Session
from auditkit.records.digest import EVIDENCE_RECIPE

#: Stands among the components for what no snapshot holds: which code runs.
MACHINERY = "hooks and methods"

_HOOKS = "_hooks"

#: Modules that hold hooks of all modules and optimizers; torch.optim hides the second of them.
_SHARED = tuple(map(importlib.import_module, ("torch.nn.modules.module", "torch.optim.optimizer")))


def fingerprint(session: Session) -> dict[str, bytes]:
    """Digests of the state, and of the code that is attached to it."""
    state = {
        name: digest_leaves(EVIDENCE_RECIPE, leaves)
        for name, leaves in session.state().items()
        if not name.startswith(ATTRIBUTES)  # a layer may count its calls, or keep its last output
    }
    return {**state, MACHINERY: machinery(session.objects)}


def machinery(objects: TrainingObjects) -> bytes:
    """What decides which code runs: classes, hooks, and methods that were replaced.

    It tells two moments of one process apart, and means nothing in another.
    """
    held = [objects.model, *objects.averaged.values(), *objects.extras.values()]
    layers = [layer for one in held if isinstance(one, nn.Module) for layer in one.modules()]
    weights = [weight for layer in layers for weight in layer.parameters(recurse=False)]
    owners = (*layers, objects.optimizer)
    parts = [*map(_attached, owners), *map(_on_tensor, weights), _on_everything()]
    return repr([list(part) for part in parts]).encode()


def _attached(owner: Any) -> Iterator[object]:
    yield id(type(owner))
    for name, value in vars(owner).items():
        if isinstance(value, Mapping) and name.endswith(_HOOKS):
            yield name, [id(hook) for hook in value.values()]
        elif name in ("forward", "step"):
            yield name, id(value)


def _on_tensor(weight: Tensor) -> Iterator[object]:
    for name in TENSOR_HOOKS:
        yield [id(hook) for hook in (getattr(weight, name, None) or {}).values()]


def _on_everything() -> Iterator[object]:
    """Hooks that run for every module and optimizer there is."""
    for module in _SHARED:
        for name, value in vars(module).items():
            if name.startswith("_global") and name.endswith(_HOOKS) and isinstance(value, Mapping):
                yield name, [id(hook) for hook in value.values()]


def require_untouched(
    before: Mapping[str, bytes], after: Mapping[str, bytes], doing: str, hint: str
) -> None:
    """Require two fingerprints to be one.

    Raises:
        ProbeDisturbance: Naming the first component that differs.
    """
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            raise ProbeDisturbance(f"{doing} changed the training state", component=name, hint=hint)
