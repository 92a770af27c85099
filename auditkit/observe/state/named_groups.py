"""Named groups of a model's tensors: parts of ``params`` and ``buffers`` that are components too.

A teacher and its student, a queue and its pointer lie in one model; as ``params/teacher`` and
``buffers/queue`` each has evidence and commitments of its own. BatchNorm's buffers stay in
``batchnorm``, and optimizer slots, gradients and flags where they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from torch import Tensor, nn

from auditkit.errors import ProgramError
from auditkit.formats.quote import brief
from auditkit.observe.state.glance import are_same
from auditkit.observe.state.modules import ModuleState
from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.stored import Saved
from auditkit.observe.values.tensors import KeptLeaves

T = TypeVar("T")

#: What a program gives: patterns by group, or the word for one group a child of the model.
CHILDREN = "children"
Groups = Mapping[str, str | Iterable[str]] | str
Patterns = Mapping[str, tuple[str, ...]]

#: Components that groups are cut out of.
_DIVIDED = ("params", "buffers")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)

#: Most names that a message lists.
_LISTED = 12


def group_patterns(model: nn.Module, groups: Groups) -> dict[str, tuple[str, ...]]:
    """Patterns by group, each of which names something that no other one does.

    Raises:
        ProgramError: When a group has a name that no component can have, matches nothing, or
            matches what another one does.
    """
    given = _of_children(model) if _is_children(groups) else groups
    if not isinstance(given, Mapping):
        raise ProgramError(
            f"groups is {brief(groups)}", expected=f"patterns by name, or {CHILDREN!r}"
        )
    found = {}
    for name, value in given.items():
        given_one = isinstance(value, str) or not isinstance(value, Iterable)
        patterns: tuple[Any, ...] = (value,) if given_one else tuple(value)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ProgramError(
                f"no group can be called {brief(name)}", expected="letters, digits, _, . and -"
            )
        if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
            raise ProgramError(f"group {name!r} needs a pattern, as in {{{name!r}: 'queue*'}}")
        found[name] = patterns
    if found:
        _assigned(model, found)
    return found


def _is_children(groups: object) -> bool:
    return isinstance(groups, str) and groups == CHILDREN


def _of_children(model: nn.Module) -> dict[str, str]:
    owned = {name.partition(".")[0] for name in _tensors(model)}
    return {name: f"{name}.*" for name, _ in model.named_children() if name in owned}


def _tensors(model: nn.Module) -> dict[str, object]:
    """Parameters and buffers by name, BatchNorm's buffers excepted."""
    parameters, components = ModuleState(model).components()
    return {**parameters, **components["buffers"]}


def _assigned(model: nn.Module, patterns: Patterns) -> dict[str, str]:
    """Group by name; what has several names (tied weights) is in one group under all of them."""
    tensors = _tensors(model)
    by_tensor: dict[int, str] = {}
    matched = set()
    for name, tensor in tensors.items():
        for group in _groups_of(name, patterns):
            other = by_tensor.setdefault(id(tensor), group)
            matched.add(group)
            if other != group:
                raise ProgramError(f"groups {other!r} and {group!r} both match {name}")
    for group in patterns:
        if group not in matched:
            raise ProgramError(
                f"group {group!r}: no parameter or buffer matches {' or '.join(patterns[group])}"
                " (BatchNorm's buffers are the component batchnorm)",
                expected=_listed(tensors),
            )
    return {name: by_tensor[id(t)] for name, t in tensors.items() if id(t) in by_tensor}


def _groups_of(name: str, patterns: Patterns) -> list[str]:
    return [
        group
        for group, alternatives in patterns.items()
        if any(fnmatchcase(name, pattern) for pattern in alternatives)
    ]


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return ", ".join(found[:_LISTED]) + more


def group_tensors(model: nn.Module, patterns: Patterns, group: str) -> dict[str, Tensor]:
    """The parameters and buffers of a group by name."""
    parameters, components = ModuleState(model).components()
    found = {**parameters, **components["buffers"]}
    members = NamedGroups(model, patterns).members(group, found)
    return {name: value for name, value in members.items() if isinstance(value, Tensor)}


class NamedGroups:
    """A model's groups, asked for at every step.

    Args:
        model: The model, as the factory built it.
        patterns: See :func:`group_patterns`.
    """

    def __init__(self, model: nn.Module, patterns: Patterns) -> None:
        self._patterns = patterns
        self._group = _assigned(model, patterns) if patterns else {}
        self._others: set[str] = set()
        #: What was divided last, where its owner keeps it, and its parts.
        self._whole: list[Leaves] = []
        self._parts: dict[str, dict[str, Leaves]] = {}

    @property
    def components(self) -> set[str]:
        """Every component that a group may be."""
        return {f"{section}/{group}" for section in _DIVIDED for group in self._patterns}

    def members(self, group: str, named: Mapping[str, T]) -> dict[str, T]:
        """What of some tensors by name is in a group."""
        return {name: value for name, value in named.items() if self._group_of(name) == group}

    def divided(self, components: Mapping[str, Leaves]) -> dict[str, Leaves]:
        """Components with the groups cut out; nothing is left of a section that is all groups."""
        if not self._patterns:
            return dict(components)
        sections = [section for section in _DIVIDED if section in components]
        whole = [components[section] for section in sections]
        if not self._whole or len(whole) != len(self._whole) or not are_same(whole, self._whole):
            self._whole = whole if all(type(leaves) is KeptLeaves for leaves in whole) else []
            self._parts = {section: self._parts_of(section, components) for section in sections}
        found: dict[str, Leaves] = {}
        for section, leaves in components.items():
            found.update(self._parts.get(section, {section: leaves}))
        return found

    def _parts_of(self, section: str, components: Mapping[str, Leaves]) -> dict[str, Leaves]:
        parts: dict[str, KeptLeaves] = {}
        for name, value in components[section].items():
            group = self._group_of(name)
            component = section if group is None else f"{section}/{group}"
            parts.setdefault(component, KeptLeaves())[name] = value
        return dict(parts)

    def gathered(self, state: Mapping[str, Saved]) -> dict[str, Saved]:
        """Inverse of :meth:`divided`."""
        found = dict(state)
        for section in _DIVIDED if self._patterns else ():
            prefix = f"{section}/"
            parts = [found.pop(name) for name in list(found) if name.startswith(prefix)]
            whole = {**found.get(section, {})}
            for part in parts:
                whole.update(part)
            if whole:
                found[section] = whole
        return found

    def _group_of(self, name: str) -> str | None:
        if name in self._group:
            return self._group[name]
        if name in self._others:
            return None
        groups = _groups_of(name, self._patterns)  # a buffer that came while training
        if groups:
            self._group[name] = groups[0]
            return groups[0]
        self._others.add(name)
        return None
