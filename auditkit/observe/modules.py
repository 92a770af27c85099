"""The state of a module as components, and back.

A module's state is more than its ``state_dict``: non-persistent buffers, train/eval flags and
``requires_grad`` are in none, and BatchNorm's buffers are told apart because perturbations
and estimands speak of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from auditkit.errors import RestoreMismatch, UncapturedState
from auditkit.observe.codec import Leaves, flatten, unflatten

#: Entry of a module's flags inside a component that holds a whole module.
_FLAGS = "#flags"


def parameters(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter by name, tied ones under each of their names."""
    return dict(module.named_parameters(remove_duplicate=False))


def batchnorm_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Buffers of BatchNorm layers by name: running statistics and batch counts."""
    return {name: buffer for name, buffer, owner in _buffers(module) if _is_batchnorm(owner)}


def other_buffers(module: nn.Module) -> dict[str, Tensor]:
    """All other buffers by name, persistent or not."""
    return {name: buffer for name, buffer, owner in _buffers(module) if not _is_batchnorm(owner)}


def has_batchnorm(module: nn.Module) -> bool:
    """Whether a BatchNorm layer keeps running statistics."""
    return any(
        _is_batchnorm(layer) and layer.running_mean is not None for layer in module.modules()
    )


def flags(module: nn.Module) -> Leaves:
    """Train/eval flag of every module, ``requires_grad`` of every parameter, extra state."""
    tree: dict[str, object] = {
        "training": {name: layer.training for name, layer in module.named_modules()},
        "requires_grad": {
            name: parameter.requires_grad
            for name, parameter in module.named_parameters(remove_duplicate=False)
        },
    }
    extra = {
        name: layer.get_extra_state()
        for name, layer in module.named_modules()
        if type(layer).get_extra_state is not nn.Module.get_extra_state
    }
    if extra:
        tree["extra_state"] = extra
    return flatten(tree, where="modules")


def restore_flags(module: nn.Module, leaves: Leaves) -> None:
    """Put flags and extra state back.

    Raises:
        RestoreMismatch: When the module has other layers or parameters than the snapshot.
    """
    tree = unflatten(leaves)
    layers = dict(module.named_modules())
    tensors = parameters(module)
    _same_names("modules", layers, tree["training"])
    _same_names("requires_grad", tensors, tree["requires_grad"])
    for name, training in tree["training"].items():
        layers[name].training = training
    for name, needed in tree["requires_grad"].items():
        tensors[name].requires_grad_(needed)
    for name, state in tree.get("extra_state", {}).items():
        layers[name].set_extra_state(state)


def whole_module(module: nn.Module) -> Leaves:
    """A module as one component: parameters, all buffers, flags (for averages and extras)."""
    buffers = {name: buffer for name, buffer, _ in _buffers(module)}
    state: dict[str, Tensor | bytes] = {**parameters(module), **buffers}
    for name, value in flags(module).items():
        state[f"{_FLAGS}{name}"] = value
    return state


def restore_whole_module(module: nn.Module, leaves: Leaves, component: str) -> None:
    """Inverse of :func:`whole_module`.

    Raises:
        RestoreMismatch: When names, shapes or dtypes differ.
    """
    own = {k.removeprefix(_FLAGS): v for k, v in leaves.items() if k.startswith(_FLAGS)}
    tensors = {
        k: v for k, v in leaves.items() if not k.startswith(_FLAGS) and isinstance(v, Tensor)
    }
    names = set(parameters(module))
    copy_tensors(component, parameters(module), {k: v for k, v in tensors.items() if k in names})
    restore_buffers(
        component,
        module,
        {k: v for k, v in tensors.items() if k not in names},
        batchnorm=None,
    )
    restore_flags(module, own)


def restore_buffers(
    component: str, module: nn.Module, saved: Leaves, *, batchnorm: bool | None
) -> None:
    """Put buffers back: BatchNorm's, the others' (``batchnorm=False``) or all (None).

    A buffer that changed its shape since the factory ran (a queue that grows) is replaced;
    one that is None in the snapshot becomes None.

    Raises:
        RestoreMismatch: When the snapshot has a buffer that the module has not.
    """
    remaining = dict(saved)
    for path, layer in module.named_modules(remove_duplicate=False):
        if batchnorm is not None and _is_batchnorm(layer) != batchnorm:
            continue
        for name in list(layer._buffers):
            full = f"{path}.{name}" if path else name
            value = remaining.pop(full, None)
            live = layer._buffers[name]
            if isinstance(value, Tensor) and live is not None and _same_form(live, value):
                _copy(live, value)
            elif value is None or isinstance(value, Tensor):
                device = live.device if live is not None else None
                layer._buffers[name] = None if value is None else value.to(device)
    if remaining:
        raise RestoreMismatch(
            f"the program has no buffer {min(remaining)!r}", component=component
        )


def copy_tensors(component: str, live: Mapping[str, Tensor], saved: Leaves) -> None:
    """Copy saved values into live tensors of the same names, shapes and dtypes.

    Raises:
        RestoreMismatch: When names, shapes or dtypes differ.
    """
    _same_names(component, live, saved)
    done: set[int] = set()
    for name, tensor in live.items():
        value = saved[name]
        if not isinstance(value, Tensor) or not _same_form(tensor, value):
            raise RestoreMismatch(
                f"{name} has another shape or dtype",
                component=component,
                expected=f"{tuple(tensor.shape)} {tensor.dtype}",
                found=getattr(value, "shape", type(value).__name__),
            )
        if id(tensor) not in done:
            _copy(tensor, value)
            done.add(id(tensor))


def _copy(live: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        if live.stride() == value.stride() or live.device != value.device:
            live.copy_(value)
        else:  # the memory layout changes bits, so it is part of the state
            live.data = value.clone()


def _same_form(live: Tensor, value: Tensor) -> bool:
    return live.shape == value.shape and live.dtype == value.dtype


def _same_names(component: str, live: Mapping[str, object], saved: Mapping[str, object]) -> None:
    missing, unknown = set(live) - set(saved), set(saved) - set(live)
    if missing or unknown:
        name = min(missing or unknown)
        side = "the snapshot" if missing else "the program"
        raise RestoreMismatch(
            f"{side} has no {name!r}",
            component=component,
            hint="the factory must build the same objects for the same seed",
        )


def _is_batchnorm(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm)


def _buffers(module: nn.Module) -> Iterator[tuple[str, Tensor, nn.Module]]:
    for path, layer in module.named_modules(remove_duplicate=False):
        for name, buffer in layer._buffers.items():
            if buffer is None:
                continue
            if buffer.is_sparse:
                raise UncapturedState(
                    "a sparse buffer cannot be captured", component=f"{path}.{name}"
                )
            yield (f"{path}.{name}" if path else name), buffer, layer
