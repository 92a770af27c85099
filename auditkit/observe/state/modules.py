"""The state of a module as components, and back.

A module's state is more than its ``state_dict``: non-persistent buffers, train/eval flags and
``requires_grad`` are in none, and BatchNorm's buffers are told apart because perturbations
and estimands speak of them.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from auditkit.errors import RestoreMismatch, UncapturedState
from auditkit.observe.state.glance import Glance, are_same
from auditkit.observe.state.live_tensors import copy_over, same_form, same_memory_form
from auditkit.observe.state.sharded import kept_part
from auditkit.observe.values.codec import Leaves, flatten, unflatten
from auditkit.observe.values.stored import TENSORS, Saved, StoredTensor, copied, loaded
from auditkit.observe.values.tensors import KeptLeaves

#: What a layer is, as far as its tree and its tensors go.
_FACTS: Any = operator.attrgetter("__class__", "_modules", "_parameters", "_buffers")
_TRAINING: Any = operator.attrgetter("training")
_REQUIRES_GRAD: Any = operator.attrgetter("requires_grad")

#: Entry of a module's flags inside a component that holds a whole module.
_FLAGS = "#flags"

#: What to do where a snapshot names other things than the program has.
SAME_OBJECTS = (
    "the factory must build the same objects for the same seed, and training must add, rename "
    "or remove none before t0; a loop of its own must have them before its first batch, where "
    "rec.step is past the step that changes them"
)


class ModuleState:
    """A module's state as components, asked for at every step.

    The tree of layers is walked once and walked again when it is not the same any more: a
    layer added, removed, replaced or of another class. Tensors and flags are looked at at every
    call, since programs replace buffers, freeze parameters and unfreeze them; as long as all of
    them are the very same objects, so are the components.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._flags: tuple[list[bool], KeptLeaves] = ([], KeptLeaves())
        self._whole: tuple[object, KeptLeaves] = (None, KeptLeaves())
        self._parameters: dict[str, Tensor] = {}
        self._walk()

    @property
    def extra_state(self) -> bool:
        """Whether a layer has a ``get_extra_state`` of its own."""
        return bool(self._with_extra_state)

    @property
    def layers(self) -> Iterable[nn.Module]:
        """Every layer once, as they were when they were asked for last."""
        return self._unique_layers.values()

    def parameters(self) -> dict[str, Tensor]:
        """Every parameter by name, tied ones under each of their names."""
        self._refresh()
        return self._parameters

    def components(self) -> tuple[dict[str, Tensor], dict[str, Leaves]]:
        """The parameters as above, and with them what else of the module is a component.

        ``batchnorm`` are the buffers of BatchNorm layers (running statistics and batch counts),
        ``buffers`` all others, persistent or not, and ``modules`` the train/eval flag of every
        layer, ``requires_grad`` of every parameter, and extra state.
        """
        self._refresh()
        return self._parameters, {
            "params": self._params,
            "batchnorm": self._batchnorm,
            "buffers": self._others,
            "modules": self._flags_now(),
        }

    def whole(self) -> Leaves:
        """The module as one component: parameters, all buffers, flags."""
        self._refresh()
        flags = self._flags_now()
        if self._whole[0] is not flags:
            texts = {f"{_FLAGS}{name}": value for name, value in flags.items()}
            leaves = {**self._parameters, **_buffers(self._layers), **texts}
            self._whole = flags, KeptLeaves(leaves)
        return self._whole[1]

    def _flags_now(self) -> KeptLeaves:
        training = list(map(_TRAINING, self._unique_layers.values()))
        grad_flags = list(map(_REQUIRES_GRAD, self._parameters.values()))
        key, known = [*training, *grad_flags], self._flags[0]
        # by identity: a program's own 1 equals True, and is another text
        is_known = len(key) == len(known) and are_same(key, known)
        if is_known and not self._with_extra_state:
            return self._flags[1]
        tree: dict[str, object] = {
            "training": dict(zip(self._unique_layers, training, strict=True)),
            "requires_grad": dict(zip(self._parameters, grad_flags, strict=True)),
        }
        if self._with_extra_state:
            tree["extra_state"] = {
                name: layer.get_extra_state() for name, layer in self._with_extra_state.items()
            }
        self._flags = key, KeptLeaves(flatten(tree, where="modules"))
        return self._flags[1]

    def _refresh(self) -> None:
        """Walk the tree again where it is another, and its tensors where one of them is."""
        if not (are_same(self._facts_now(), self._facts) and self._children.holds()):
            self._walk()
        elif not self._members.holds():
            self._collect()

    def _facts_now(self) -> list[object]:
        return [*chain.from_iterable(map(_FACTS, self._unique_layers.values()))]

    def _walk(self) -> None:
        _refuse_scripted(self._module)
        layers = list(self._module.named_modules(remove_duplicate=False))
        self._layers = [(f"{path}." if path else "", layer) for path, layer in layers]
        self._unique_layers = dict(self._module.named_modules())
        self._with_extra_state = {
            name: layer
            for name, layer in self._unique_layers.items()
            if type(layer).get_extra_state is not nn.Module.get_extra_state
        }
        self._facts = self._facts_now()
        self._children = Glance(layer._modules for layer in self._unique_layers.values())
        self._collect()

    def _collect(self) -> None:
        layers = self._unique_layers.values()
        self._members = Glance(
            held for layer in layers for held in (layer._parameters, layer._buffers)
        )
        before = self._parameters
        self._parameters = {
            prefix + name: kept_part(before.get(prefix + name), parameter)
            for prefix, layer in self._layers
            for name, parameter in layer._parameters.items()
            if parameter is not None
        }
        self._params = KeptLeaves(self._parameters)
        own: list[tuple[str, nn.Module]] = []
        others: list[tuple[str, nn.Module]] = []
        for layer in self._layers:
            (own if _is_batchnorm(layer[1]) else others).append(layer)
        self._batchnorm, self._others = KeptLeaves(_buffers(own)), KeptLeaves(_buffers(others))
        # no name is in their keys
        self._flags, self._whole = ([], KeptLeaves()), (None, KeptLeaves())


def parameters(module: nn.Module) -> dict[str, Tensor]:
    """See :meth:`ModuleState.parameters`."""
    return ModuleState(module).parameters()


def batchnorm_layers(module: nn.Module) -> list[nn.Module]:
    """BatchNorm layers that keep running statistics."""
    return [
        layer
        for layer in module.modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    ]


def has_batchnorm(module: nn.Module) -> bool:
    """Whether a BatchNorm layer keeps running statistics."""
    return bool(batchnorm_layers(module))


def restore_flags(module: nn.Module, leaves: Leaves, component: str = "modules") -> None:
    """Put flags and extra state back.

    Raises:
        RestoreMismatch: When the module has other layers or parameters than the snapshot, or
            refuses the extra state.
    """
    tree: Any = unflatten(leaves)
    layers = dict(module.named_modules())
    tensors = parameters(module)
    try:
        training, grad_flags = tree["training"], tree["requires_grad"]
        extra = tree.get("extra_state", {})
    except (AttributeError, KeyError, TypeError) as error:
        raise RestoreMismatch("the snapshot has no such flags", component=component) from error
    same_names(component, layers, training)
    same_names(component, tensors, grad_flags)
    same_names(component, layers, {**dict.fromkeys(layers), **extra})
    for name, flag in training.items():
        layers[name].training = flag
    for name, flag in grad_flags.items():
        tensors[name].requires_grad_(flag)
    for name, state in extra.items():
        try:
            layers[name].set_extra_state(state)
        except Exception as error:  # whatever the user's own layer raises is reported as ours
            raise RestoreMismatch(
                f"set_extra_state of {name or 'the module'} raised {type(error).__name__}: {error}",
                component=component,
            ) from error


def restore_whole_module(module: nn.Module, leaves: Saved, component: str) -> None:
    """Inverse of :meth:`ModuleState.whole`.

    Raises:
        RestoreMismatch: When names, shapes or dtypes differ.
    """
    own = {k.removeprefix(_FLAGS): v for k, v in leaves.items() if k.startswith(_FLAGS)}
    tensors = {k: v for k, v in leaves.items() if not k.startswith(_FLAGS)}
    live = parameters(module)
    copy_tensors(component, live, {k: v for k, v in tensors.items() if k in live})
    buffers = {k: v for k, v in tensors.items() if k not in live}
    restore_buffers(component, module, buffers, batchnorm=None)
    restore_flags(module, loaded(own), component)


def restore_buffers(
    component: str, module: nn.Module, saved: Saved, *, batchnorm: bool | None
) -> None:
    """Put buffers back: BatchNorm's, the others' (``batchnorm=False``) or all (None).

    A buffer that changed its form since the factory ran (a queue that grows) is replaced; one
    that is None in the snapshot becomes None. Buffers that were one tensor are one again.

    Raises:
        RestoreMismatch: When the snapshot has a buffer that the module has not.
    """
    placed: dict[int, Tensor] = {}  # by the identity of the saved tensor
    remaining = dict(saved)
    device = next((tensor.device for tensor in parameters(module).values()), None)
    for path, layer in module.named_modules(remove_duplicate=False):
        if batchnorm is not None and _is_batchnorm(layer) != batchnorm:
            continue
        for name, live in list(layer._buffers.items()):
            value = remaining.pop(f"{path}.{name}" if path else name, None)
            if isinstance(value, TENSORS):
                if id(value) not in placed:
                    placed[id(value)] = _restored_buffer(live, value, device, placed)
                layer._buffers[name] = placed[id(value)]
            else:
                layer._buffers[name] = None
    if remaining:
        raise RestoreMismatch(f"the program has no buffer {min(remaining)!r}", component=component)


def gradients(trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradients that have not been cleared, by the parameter's name."""
    return {
        name: gradient
        for name, parameter in trained.items()
        if (gradient := parameter.grad) is not None
    }


def restore_gradients(trained: Mapping[str, Tensor], saved: Saved) -> None:
    """Put gradients back; one that is there is written over, since it may be part of a larger one.

    Raises:
        RestoreMismatch: When the program has no such parameter.
    """
    for name in saved:
        if name not in trained:
            raise RestoreMismatch(f"the program has no parameter {name!r}", component="grad")
    for name, parameter in trained.items():
        value, live = saved.get(name), parameter.grad
        if not isinstance(value, TENSORS):
            parameter.grad = None
        elif type(live) is Tensor and same_memory_form(live, value):
            copy_over(live, value)
        else:
            parameter.grad = copied(value, parameter.device)


def copy_tensors(component: str, live: Mapping[str, Tensor], saved: Saved) -> None:
    """Copy saved values into live tensors of the same names, shapes and dtypes.

    Raises:
        RestoreMismatch: When names, shapes or dtypes differ.
    """
    same_names(component, live, saved)
    done: set[int] = set()
    for name, tensor in live.items():
        value = saved[name]
        if not isinstance(value, TENSORS) or not same_form(tensor, value):
            raise RestoreMismatch(
                f"{name} has another shape or dtype",
                component=component,
                expected=f"{tuple(tensor.shape)} {tensor.dtype}",
                found=f"{tuple(value.shape)} {value.dtype}"
                if isinstance(value, TENSORS)
                else type(value).__name__,
            )
        if id(tensor) not in done:
            copy_over(tensor, value)
            done.add(id(tensor))


def same_names(component: str, live: Mapping[str, object], saved: Mapping[str, object]) -> None:
    """Refuse a snapshot that names other things than the program has.

    Raises:
        RestoreMismatch: Naming the first of them.
    """
    missing, unknown = set(live) - set(saved), set(saved) - set(live)
    if missing or unknown:
        name = min(missing or unknown)
        lacking = "the snapshot" if missing else "the program"
        raise RestoreMismatch(
            f"{lacking} has no {name!r}",
            component=component,
            hint=SAME_OBJECTS,
        )


def _restored_buffer(
    live: Tensor | None,
    value: Tensor | StoredTensor,
    device: torch.device | None,
    placed: Mapping[int, Tensor],
) -> Tensor:
    is_placed = any(live is other for other in placed.values())
    if live is not None and not is_placed and same_form(live, value):
        copy_over(live, value)
        return live
    # A copy always: training writes into buffers, and the snapshot must stay what it is.
    return copied(value, device if live is None else live.device)


def _refuse_scripted(module: nn.Module) -> None:
    """Refuse compiled layers, whose state lies where no Python attribute leads.

    Raises:
        UncapturedState: Naming the first of them.
    """
    for path, layer in module.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise UncapturedState(
                f"{f'the layer {path}' if path else 'the module'} is a torch.jit scripted or "
                "traced module, whose state cannot be captured",
                component="modules",
                hint="train the module that it was made of, and script it afterwards",
            )


def _is_batchnorm(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm)


def _buffers(layers: list[tuple[str, nn.Module]]) -> dict[str, Tensor]:
    return {
        prefix + name: buffer
        for prefix, layer in layers
        if layer._buffers
        for name, buffer in layer._buffers.items()
        if buffer is not None
    }
