"""The hyper-parameters of an optimizer's groups, where they change."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from auditkit.formats.group_values import GROUPS, Plain, numbers
from auditkit.observe.state.components import State

#: Characters of a text that is told.
_LONGEST = 200


class GroupChanges:
    """Says which plain values changed since it was asked before.

    Args:
        optimizer: The optimizer. Its groups that did not change are the same object in the state,
            so that most steps cost nothing.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._text: object = None
        self._known: dict[str, tuple[type, Plain]] = {}

    def changes(self, state: State) -> dict[str, Plain]:
        """Values by name, as ``param_groups[0].lr``, that are new or others than before.

        Numbers are floats, and finite.
        """
        text = state.get(GROUPS, {}).get("")
        if text is self._text:
            return {}
        self._text = text
        found = dict(self._values())
        told = {name: value for name, value in found.items() if _is_told(value)} | numbers(found)
        typed = {name: (type(value), value) for name, value in told.items()}
        changed = {name: told[name] for name in told if self._known.get(name) != typed[name]}
        self._known.update(typed)
        return changed

    def _values(self) -> Iterator[tuple[str, Plain]]:
        """As :func:`auditkit.formats.group_values.group_values` names them."""
        for number, group in enumerate(self._optimizer.param_groups):
            for name, value in group.items():
                place = f"{GROUPS}[{number}].{name}"
                if value is None or type(value) in (int, float, bool, str):
                    yield place, value
                elif type(value) is tuple:  # as Adam's betas
                    yield from ((f"{place}[{n}]", one) for n, one in enumerate(value))


def _is_told(value: Plain) -> bool:
    """Whether a value is a plain one that is no number."""
    is_text = isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST
    return value is None or isinstance(value, bool) or is_text
