"""The user's hooks: functions that torch calls and that no attribute of the user's names."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from auditkit.observe.state.frames import OWN_PACKAGE
from auditkit.observe.state.reach import is_library_module

_HOOKS = "_hooks"

#: Where a tensor keeps those that are called with its gradient.
TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def hooks_by_name(modules: Mapping[str, nn.Module], optimizer: object) -> dict[str, Any]:
    """What the user's hooks are or belong to, by what they hang on and their function.

    Args:
        modules: Models by name, whose layers and parameters are looked at.
        optimizer: Looked at, too.
    """
    found: dict[str, Any] = {}
    for owner, hook in _hooks(modules, optimizer):
        if _is_users(hook):
            held = hook.__self__ if isinstance(hook, types.MethodType) else hook
            found.setdefault(f"{owner}'s hook {_name(hook)}", held)
    return found


def _hooks(modules: Mapping[str, nn.Module], optimizer: object) -> Iterator[tuple[str, Any]]:
    for root, module in modules.items():
        for name, weight in module.named_parameters():
            for kind in TENSOR_HOOKS:
                hooks = getattr(weight, kind, None) or {}
                yield from ((f"{root}.{name}", hook) for hook in hooks.values())
        for name, layer in module.named_modules():
            path = f"{root}.{name}" if name else root
            yield from ((path, hook) for hook in _attached(layer))
    yield from (("optimizer", hook) for hook in _attached(optimizer))


def _attached(owner: object) -> Iterator[Any]:
    for name, hooks in vars(owner).items():
        if name.endswith(_HOOKS) and isinstance(hooks, Mapping):
            yield from filter(callable, hooks.values())


def _is_users(hook: Any) -> bool:
    while isinstance(hook, functools.partial):
        hook = hook.func
    module = getattr(hook, "__module__", None)
    if not isinstance(module, str):
        return False  # nothing tells whose it is
    if module.partition(".")[0] == OWN_PACKAGE:
        return False
    return not is_library_module(sys.modules.get(module))


def _name(hook: Any) -> str:
    while isinstance(hook, functools.partial):
        hook = hook.func
    if isinstance(hook, types.MethodType):
        return f"{type(hook.__self__).__name__}.{hook.__name__}"
    return getattr(hook, "__name__", type(hook).__name__)
