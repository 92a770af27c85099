"""The hyper-parameters of an optimizer's groups as numbers, where they change."""

from __future__ import annotations

from auditkit.formats.group_values import group_values, is_groups, numbers
from auditkit.observe.state.components import State


class GroupNumbers:
    """Says which numbers changed since it was asked before.

    A group that did not change is the same object in the state, so that most steps cost nothing.
    """

    def __init__(self) -> None:
        self._texts: dict[str, object] = {}
        self._known: dict[str, float] = {}

    def changes(self, state: State) -> dict[str, float]:
        """Numbers by name, as ``param_groups[0].lr``, that are new or others than before."""
        found: dict[str, float] = {}
        for component in filter(is_groups, state):
            text = state[component].get("")
            if text is not self._texts.get(component) and isinstance(text, bytes):
                self._texts[component] = text
                found.update(numbers(group_values(component, text)))
        changed = {name: value for name, value in found.items() if self._known.get(name) != value}
        self._known.update(changed)
        return changed
