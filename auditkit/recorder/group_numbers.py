"""The hyper-parameters of an optimizer's groups as numbers, where they change."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from auditkit.formats.group_values import GROUPS, Plain, numbers
from auditkit.observe.state.components import State


class GroupNumbers:
    """Says which numbers changed since it was asked before.

    Args:
        optimizer: The optimizer. Its groups that did not change are the same object in the state,
            so that most steps cost nothing.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._text: object = None
        self._known: dict[str, float] = {}

    def changes(self, state: State) -> dict[str, float]:
        """Numbers by name, as ``param_groups[0].lr``, that are new or others than before."""
        text = state.get(GROUPS, {}).get("")
        if text is self._text:
            return {}
        self._text = text
        found = numbers(dict(self._values()))
        changed = {name: value for name, value in found.items() if self._known.get(name) != value}
        self._known.update(changed)
        return changed

    def _values(self) -> Iterator[tuple[str, Plain]]:
        """As :func:`auditkit.formats.group_values.group_values` names them."""
        for number, group in enumerate(self._optimizer.param_groups):
            for name, value in group.items():
                place = f"{GROUPS}[{number}].{name}"
                if type(value) in (int, float):
                    yield place, value
                elif type(value) is tuple:  # as Adam's betas
                    yield from ((f"{place}[{n}]", one) for n, one in enumerate(value))
