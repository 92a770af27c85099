"""Every step of every optimizer in this process, as torch tells of it: whose it is, and how many.

One hook for all of them, so that an optimizer is seen that nobody registered: one that replaced
the registered one, or one that works inside it. Nothing is added to any optimizer.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from auditkit.observe.state.components import TrainingObjects
from auditkit.observe.state.families import OptimizerFamily
from auditkit.observe.state.reach import reachable

#: Where to look for an optimizer inside a registered one, and how far.
_MAX_OBJECTS = 2_000


class OptimizerSteps:
    """Counts the steps since it was last reset.

    Args:
        objects: What is registered.
        on_step: Called after every step that trains registered parameters, with the ``id`` of the
            registered optimizer, or 0.

    Attributes:
        counts: Steps by ``id`` of the registered optimizer.
        others: Steps of optimizers that train nothing that is registered.
        unregistered: One that trains registered parameters and is not registered, described;
            None where there is none.
        thread: The thread that took the last step; None before.
    """

    def __init__(self, objects: TrainingObjects, on_step: Callable[[int], None]) -> None:
        self._on_step = on_step
        found = {"optimizer": objects.optimizer, **objects.extras}
        optimizers = [item for item in found.values() if isinstance(item, Optimizer)]
        # What they hold is captured with them.
        self._registered: dict[int, Optimizer] = {
            id(member): member
            for item in optimizers
            for member in OptimizerFamily(item).members.values()
        }
        self._named: Mapping[str, object] = found
        modules = (objects.model, *objects.extras.values())
        self._trained = frozenset(
            id(parameter)
            for module in modules
            if isinstance(module, nn.Module)
            for parameter in module.parameters()
        )
        self._strangers: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self.counts: dict[int, int] = {}
        self.others = 0
        self.unregistered: str | None = None
        self.thread: int | None = None
        self._handle: RemovableHandle | None = None

    def reset(self) -> None:
        """Count from zero."""
        if self._handle is None:
            self._handle = register_optimizer_step_post_hook(self._stepped)
        self.counts, self.others, self.unregistered = {}, 0, None

    def close(self) -> None:
        """Count no more."""
        if self._handle is not None:
            self._handle.remove()

    def _stepped(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        key = id(optimizer)
        if key not in self._registered:
            if optimizer in self._strangers or not self._trains_registered(optimizer):
                self._strangers.add(optimizer)
                self.others += 1
                return
            if self._holds_state(optimizer):
                self.unregistered = self.unregistered or self._describe(optimizer)
            key = 0  # it works for a registered one, whose steps are its own
        self.thread = threading.get_ident()
        self.counts[key] = self.counts.get(key, 0) + 1
        self._on_step(key)

    def _trains_registered(self, optimizer: Optimizer) -> bool:
        groups = optimizer.param_groups
        return any(
            id(parameter) in self._trained for group in groups for parameter in group["params"]
        )

    def _holds_state(self, optimizer: Optimizer) -> bool:
        """Whether it has slots or settings that no registered optimizer shares with it."""
        registered = self._registered.values()
        own_slots = bool(optimizer.state) and all(
            optimizer.state is not one.state for one in registered
        )
        shared = {id(group) for one in registered for group in one.param_groups}
        return own_slots or any(id(group) not in shared for group in optimizer.param_groups)

    def _describe(self, optimizer: Optimizer) -> str:
        kind = type(optimizer).__name__
        for path, value in reachable(self._named, (), limit=_MAX_OBJECTS):
            if value is optimizer:
                return (
                    f"{path} ({kind}) works inside a registered optimizer and keeps state of its "
                    "own, which no checkpoint holds; give it to wrap as a further optimizer: "
                    f"wrap(model, optimizer, {path}, loader)"
                )
        return (
            f"a {kind} trains the model, which is not the optimizer that wrap was given, and no "
            "checkpoint holds its state; keep one optimizer and change it "
            "(optimizer.param_groups[0]['lr'] = ..., optimizer.state.clear()), give all of them "
            "to wrap, or record each phase with a Recorder of its own"
        )
