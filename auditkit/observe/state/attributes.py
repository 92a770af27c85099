"""Plain attributes that training moves and no ``state_dict`` holds, as components and back.

A queue's pointer kept as an ``int``, an optimizer's counter in an object of its own, a list that
grows on an observer: what they are is not known, but that they are not what they were when the
program was built can be seen. So a component holds the attributes that differ from then, and
nothing else: ``attributes/modules`` of model, averages and extras, ``attributes/optimizer`` of
optimizers and what they hold. A value is plain where ``flatten`` can hold it. What hides well
(slots, globals, closures) is missed; the replica then drifts from the control.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import torch
from torch import Tensor, nn

from auditkit.errors import RestoreMismatch, UncapturedState
from auditkit.observe.state.glance import are_same
from auditkit.observe.state.holders import holders
from auditkit.observe.state.plain_values import (
    MISSING,
    KeptValue,
    changed,
    device_of,
    is_constant,
    is_immutable,
    is_plain,
    kept_value,
    move,
)
from auditkit.observe.state.reach import is_library_class
from auditkit.observe.state.shared_values import Change, write_all
from auditkit.observe.values.codec import Leaves, flatten, unflatten

#: Prefix of the components.
ATTRIBUTES: Final = "attributes/"
MODULES: Final = f"{ATTRIBUTES}modules"
OPTIMIZER: Final = f"{ATTRIBUTES}optimizer"

#: What torch itself keeps on every module and every optimizer: hooks, bookkeeping, and state
#: that has a component.
_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
_OPTIMIZER_ATTRIBUTES = frozenset(
    [*vars(torch.optim.SGD([torch.zeros(1)], lr=0.1)), "_opt_called", "step"]
)


@dataclass(frozen=True)
class Scope:
    """An object whose attributes are looked at.

    Attributes:
        component: Where they go.
        path: Of the object, for people and in the component.
        get: Gives the object that is there now.
        hidden: Attributes that have a component, or none of which is state.
        aliases: Addresses of tensors that have a component.
        owner: The object, where it can be no other one.
        is_extra: Whether it is of a module that was registered for its state.
    """

    component: str
    path: str
    get: Callable[[], Any]
    hidden: frozenset[str] = frozenset()
    aliases: frozenset[int] = frozenset()
    owner: Any = None
    is_extra: bool = False


class _Quick:
    """Names and values of one object that are compared by identity, and the names of the rest.

    Numbers, text, and tuples of nothing else: the same object has the same value.
    """

    def __init__(self, owner: Any, before: Mapping[str, KeptValue]) -> None:
        self.names = [name for name, kept in before.items() if is_immutable(kept)]
        self.values = [before[name].value for name in self.names]
        self.others = [name for name in before if name not in self.names]
        self.is_whole = None not in self.values  # None is also what is not there
        self.keys = frozenset(getattr(owner, "__dict__", ()))

    def is_same(self, live: Mapping[str, Any]) -> bool:
        """Whether all of them are the very same objects."""
        return are_same(map(live.get, self.names), self.values) and self.is_whole


class _AllQuick:
    """The same of many objects at once.

    Args:
        owners: Gives each object that is there now.
        quick: Of each.
    """

    def __init__(self, owners: list[Callable[[], Any]], quick: list[_Quick]) -> None:
        self._owners = owners
        self._sizes = [len(one.keys) for one in quick]
        # A single name would be given by itself, and not in a tuple.
        names = [[*one.names, one.names[0]] if one.names else [] for one in quick]
        self._places = [place for place, found in enumerate(names) if found]
        self._getters = [operator.itemgetter(*found) for found in names if found]
        self._values = [
            value for one in quick if one.names for value in (*one.values, one.values[0])
        ]
        self._is_known = not any(one.others for one in quick)

    def are_same(self) -> bool:
        """Whether nothing is another object, nothing is new, and nothing is looked at otherwise."""
        if not self._is_known:
            return False
        live = [getattr(owner(), "__dict__", {}) for owner in self._owners]
        if list(map(len, live)) != self._sizes:
            return False
        if len(self._places) < len(live):
            live = [live[place] for place in self._places]
        try:
            found = chain.from_iterable(map(operator.call, self._getters, live))
            return are_same(found, self._values)
        except KeyError:
            return False


class Attributes:
    """Compares plain attributes with what they were.

    Args:
        scopes: The objects; made when the program was built.
        parameters: ``id`` of every parameter: a key that is one is an address.

    Attributes:
        owners: The objects, where what they hold by identity tells whether anything has changed;
            None where it does not.
    """

    def __init__(self, scopes: list[Scope], parameters: Collection[int]) -> None:
        self._parameters = frozenset(parameters)
        self._scopes: list[tuple[Scope, dict[str, KeptValue]]] = []
        for scope in scopes:
            owner = scope.get()
            found = {name: kept_value(scope.aliases, value) for name, value in _named(scope, owner)}
            self._scopes.append((scope, found))
        # Most attributes are numbers that never change: asked for by identity, all at once.
        self._quick = [_Quick(scope.get(), before) for scope, before in self._scopes]
        owners = [scope.owner for scope, _ in self._scopes]
        is_told = not any(quick.others for quick in self._quick) and None not in owners
        self.owners = owners if is_told else None
        self._all = _AllQuick([scope.get for scope, _ in self._scopes], self._quick)

    def changed(self, *, strict: bool = False) -> dict[str, Leaves]:
        """Components of the attributes that differ from when the program was built.

        Args:
            strict: Whether what differs and is not plain is refused, and not left out.

        Raises:
            UncapturedState: Naming an attribute that cannot be captured.
        """
        if self._all.are_same():
            return {}
        values: dict[str, dict[str, Any]] = {}
        absent: dict[str, list[str]] = {}
        devices: dict[str, dict[str, str]] = {}
        for scope, name, value in self._differences():
            path = f"{scope.path}.{name}"
            if value is MISSING:
                absent.setdefault(scope.component, []).append(path)
            elif self._may_be_held(scope, path, value, strict=strict):
                values.setdefault(scope.component, {})[path] = value
                device = device_of(value)
                if device is not None:
                    devices.setdefault(scope.component, {})[path] = device
        return {
            component: flatten(
                {
                    "values": dict(sorted(values.get(component, {}).items())),
                    "absent": sorted(absent.get(component, ())),
                    "devices": dict(sorted(devices.get(component, {}).items())),
                },
                where=component,
            )
            for component in sorted({*values, *absent})
        }

    def are_told(self) -> bool:
        """Whether :meth:`changed` gives the same as long as all values are the very same objects.

        A list that came while training, say, grows and is the same object.
        """
        if self.owners is None:
            return False
        return self._all.are_same() or all(
            is_constant(value)
            for scope, before in self._scopes
            for name, value in _named(scope, scope.get())
            if name not in before or value is not before[name].value
        )

    def restore(self, state: Mapping[str, Leaves]) -> None:
        """Write attributes of a snapshot; all others become what they were built as.

        Raises:
            RestoreMismatch: When there is no such object any more.
        """
        self.reset(MODULES), self.reset(OPTIMIZER)
        scopes = {scope.path: scope for scope, _ in self._scopes}
        changes = []
        for component in (MODULES, OPTIMIZER):
            if component not in state:
                continue
            tree = unflatten(state[component], where=component)
            for path, value in tree["values"].items():
                device = tree["devices"].get(path)
                moved = value if device is None else move(value, device)
                changes.append((*_owner(scopes, path, component), moved))
            for path in tree["absent"]:
                owner, name = _owner(scopes, path, component)
                owner.pop(name, None)
        write_all([scope.get() for scope, _ in self._scopes], changes)

    def reset(self, component: str, kept: Collection[str] = ()) -> list[str]:
        """Make attributes what they were built as.

        Args:
            component: Which ones.
            kept: Names that stay as they are.

        Returns:
            The paths that were changed.
        """
        found: list[str] = []
        changes: list[Change] = []
        for scope, name, value in list(self._differences()):
            if scope.component != component or name in kept:
                continue
            owner, before = vars(scope.get()), self._scopes_of(scope).get(name)
            if before is None:
                del owner[name]
            elif value is MISSING or before.plain:
                changes.append((owner, name, before.copy()))
            else:
                continue
            found.append(f"{scope.path}.{name}")
        write_all([scope.get() for scope, _ in self._scopes], changes)
        return found

    def _scopes_of(self, wanted: Scope) -> dict[str, KeptValue]:
        return next(before for scope, before in self._scopes if scope is wanted)

    def _differences(self) -> Iterator[tuple[Scope, str, Any]]:
        for (scope, before), quick in zip(self._scopes, self._quick, strict=True):
            live = getattr(scope.get(), "__dict__", None)
            if live is None:
                continue
            is_same = quick.is_same(live)
            if not is_same:
                for name in quick.names:
                    value = live.get(name, MISSING)
                    if changed(scope.aliases, before[name], value):
                        yield scope, name, value
            for name in quick.others:
                value = live.get(name, MISSING)
                if changed(scope.aliases, before[name], value):
                    yield scope, name, value
            if len(live) != len(quick.keys) or not (is_same or live.keys() == quick.keys):
                yield from _new(scope, before)

    def _may_be_held(self, scope: Scope, path: str, value: Any, *, strict: bool) -> bool:
        what = None
        if isinstance(value, dict) and not self._parameters.isdisjoint(
            key for key in value if type(key) is int
        ):
            what = "is keyed by addresses of parameters"
        elif not is_plain(scope.aliases, value):
            what = f"became an instance of {type(value).__name__}, no plain value,"
        if what is None:
            return True
        if strict:
            raise UncapturedState(
                f"{path} {what} while training, which no snapshot would hold",
                component=scope.component,
                hint=_hint(scope, value),
            )
        return False


def module_scopes(
    path: str, module: nn.Module, hidden: Collection[str], known: Collection[int]
) -> Iterator[Scope]:
    """Every layer of a module, and what the user's own layers hold.

    Left out are layers with a ``get_extra_state``, which keep their own books.
    """
    aliases = _addresses([*module.parameters(), *module.buffers()])
    for name, layer in module.named_modules():
        if type(layer).get_extra_state is not nn.Module.get_extra_state:
            continue
        place = f"{path}.{name}" if name else path
        own = _MODULE_ATTRIBUTES | frozenset(hidden) | _reparametrized_weights(layer)
        yield Scope(
            MODULES, place, _constant(layer), own, aliases, layer, path.startswith("extras[")
        )
        if is_library_class(layer.__class__):
            continue
        for holder in holders(place, layer, own, known):
            if not is_library_class(holder.get().__class__):
                yield Scope(MODULES, holder.path, holder.get, frozenset(), aliases)


def optimizer_scopes(
    path: str, optimizer: torch.optim.Optimizer, known: Collection[int]
) -> Iterator[Scope]:
    """An optimizer and what it holds, other optimizers included."""
    members = [member for group in optimizer.param_groups for member in group["params"]]
    aliases = _addresses(members)
    yield Scope(OPTIMIZER, path, _constant(optimizer), _OPTIMIZER_ATTRIBUTES, aliases, optimizer)
    for holder in holders(path, optimizer, _OPTIMIZER_ATTRIBUTES, known):
        is_optimizer = isinstance(holder.get(), torch.optim.Optimizer)
        hidden = _OPTIMIZER_ATTRIBUTES if is_optimizer else frozenset()
        yield Scope(OPTIMIZER, holder.path, holder.get, hidden, aliases)


def _new(scope: Scope, before: Mapping[str, KeptValue]) -> Iterator[tuple[Scope, str, Any]]:
    for name, value in _named(scope, scope.get()):
        if name not in before and is_plain(scope.aliases, value):
            yield scope, name, value


def _addresses(tensors: Iterable[Tensor]) -> frozenset[int]:
    return frozenset(
        tensor.data_ptr()
        for tensor in tensors
        if tensor.layout is torch.strided
        and not tensor.is_meta
        and tensor.numel()
        and type(tensor).__torch_dispatch__ is torch.Tensor.__torch_dispatch__
    )


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _named(scope: Scope, owner: Any) -> list[tuple[str, Any]]:
    """Attributes that are looked at: of an installed layer none that begins with an underscore.

    Of a module that is an extra they are its state as well, unless its class is torch's own.
    """
    kind = owner.__class__
    closed = scope.component == MODULES and is_library_class(kind)
    if closed and scope.is_extra:
        closed = kind.__module__.partition(".")[0] == "torch"
    return [
        (name, value)
        for name, value in getattr(owner, "__dict__", {}).items()
        if name not in scope.hidden and not (closed and name.startswith("_"))
    ]


def _owner(scopes: Mapping[str, Scope], path: str, component: str) -> tuple[dict[str, Any], str]:
    place, _, name = path.rpartition(".")
    owner = scopes[place].get() if place in scopes else None
    if not hasattr(owner, "__dict__"):
        raise RestoreMismatch(
            f"the program has no {place} whose {name} could be set", component=component
        )
    return vars(owner), name


def _hint(scope: Scope, value: Any) -> str:
    if isinstance(value, Tensor):
        return "detach it, or set it to None at the end of the step"
    if scope.component == OPTIMIZER:
        return (
            "keep it in the optimizer's state, keyed by the parameter, or in plain values: in a "
            "subclass, where the optimizer is a library's"
        )
    return (
        "return it from get_extra_state and take it back in set_extra_state: in a subclass, where "
        "the layer is a library's"
    )


def _reparametrized_weights(layer: nn.Module) -> frozenset[str]:
    """Weights that pruning and the older weight and spectral norm compute in every forward."""
    endings = ("_orig", "_v", "_g")
    return frozenset(
        name.removesuffix(ending)
        for name in layer._parameters
        for ending in endings
        if name.endswith(ending)
    )
