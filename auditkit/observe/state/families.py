"""An optimizer together with the optimizers that it holds, as components and back.

The shape of SAM, Lookahead and their kin: an optimizer that keeps another one, whose slots are
in no ``state`` of its own. ``optimizer/momentum_buffer`` is the optimizer's own slot,
``optimizer/base_optimizer/momentum_buffer`` one of what it holds there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor

from auditkit.errors import RestoreMismatch
from auditkit.observe.state.groups import (
    GROUPS,
    GroupsState,
    check_groups,
    parameter_names,
    restore_groups,
)
from auditkit.observe.state.holders import nested_optimizers
from auditkit.observe.state.modules import SAME_OBJECTS
from auditkit.observe.state.optimizers import PREFIX, SlotsState, restore_slots
from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.stored import Saved, StoredTensor, loaded


class OptimizerFamily:
    """An optimizer and what it holds, asked for at every step.

    Args:
        optimizer: The optimizer.
        known: ``id`` of objects that have components of their own.

    Attributes:
        members: The optimizer under ``""``, and what it holds, by attribute path.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, known: Collection[int] = ()) -> None:
        self.members = {"": optimizer, **nested_optimizers(optimizer, known)}
        self._groups = {path: GroupsState(member) for path, member in self.members.items()}
        self._slots = {
            path: SlotsState(member, _prefix(path)) for path, member in self.members.items()
        }

    def state(self, trained: Mapping[str, Tensor]) -> dict[str, Leaves]:
        """Components by name: groups and slots.

        Args:
            trained: The program's parameters by name.

        Raises:
            UncapturedState: When something of it means nothing in another process.
        """
        found: dict[str, Leaves] = {}
        for path, _, has_groups, has_state in self._own():
            names = self._groups[path].names(trained)
            if has_groups:
                found[groups_component(path)] = self._groups[path].groups(names)
            if has_state:
                found.update(self._slots[path].slots(names))
        return found

    def groups(self, trained: Mapping[str, Tensor]) -> dict[str, Leaves]:
        """Of the components those of the groups.

        Args:
            trained: The program's parameters by name.

        Raises:
            UncapturedState: When something of it means nothing in another process.
        """
        return {
            groups_component(path): self._groups[path].groups(self._groups[path].names(trained))
            for path, _, has_groups, _ in self._own()
            if has_groups
        }

    @property
    def is_fixed(self) -> bool:
        """Whether what was given last is the same as long as the same objects are held."""
        return all(groups.is_fixed for groups in self._groups.values()) and all(
            slots.is_fixed for slots in self._slots.values()
        )

    def whole(self, trained: Mapping[str, Tensor]) -> Leaves:
        """Everything as one component (for extras)."""
        return {
            f"{component}#{entry}": value
            for component, leaves in self.state(trained).items()
            for entry, value in leaves.items()
        }

    def check(self, trained: Mapping[str, Tensor], saved: Mapping[str, Saved]) -> None:
        """Require the groups of a snapshot, before anything is written.

        Raises:
            RestoreMismatch: When the groups hold other parameters.
        """
        for path, member, has_groups, _ in self._own():
            if has_groups and groups_component(path) in saved:
                names = parameter_names(member, trained)
                check_groups(member, names, loaded(saved[groups_component(path)]))

    def restore(self, trained: Mapping[str, Tensor], saved: Mapping[str, Saved]) -> None:
        """Inverse of :meth:`state`.

        Raises:
            RestoreMismatch: When it is the state of another optimizer.
        """
        self.check(trained, saved)
        remaining = dict(saved)
        # The innermost first: the prefix of the others is theirs, too.
        for path, member, has_groups, has_state in reversed(list(self._own())):
            names, prefix = parameter_names(member, trained), _prefix(path)
            own = {name: leaves for name, leaves in remaining.items() if name.startswith(prefix)}
            for name in own:
                del remaining[name]
                held, _, slot = name.removeprefix(prefix).rpartition("/")
                if held:
                    raise RestoreMismatch(
                        f"the optimizer holds no optimizer {held!r} with a slot {slot!r}",
                        component=name,
                        hint=SAME_OBJECTS,
                    )
            if has_state:
                restore_slots(member, names, own, prefix)
            if has_groups:
                component = groups_component(path)
                if component not in remaining:
                    raise RestoreMismatch("the snapshot has no such component", component=component)
                restore_groups(member, names, loaded(remaining.pop(component)))
        if remaining:
            raise RestoreMismatch(
                "the program has no such component", component=min(remaining), hint=SAME_OBJECTS
            )

    def restore_slots(self, trained: Mapping[str, Tensor], saved: Mapping[str, Saved]) -> None:
        """Replace all slots, and leave the groups as they are.

        Raises:
            RestoreMismatch: When it is the state of another optimizer.
        """
        groups = {n: leaves for n, leaves in self.state(trained).items() if not _is_slot(n)}
        self.restore(trained, {**{n: s for n, s in saved.items() if _is_slot(n)}, **groups})

    def restore_whole(self, trained: Mapping[str, Tensor], leaves: Saved) -> None:
        """Inverse of :meth:`whole`.

        Raises:
            RestoreMismatch: When it is the state of another optimizer.
        """
        parts: dict[str, dict[str, Tensor | StoredTensor | bytes]] = {}
        for name, value in leaves.items():
            component, _, entry = name.partition("#")
            parts.setdefault(component, {})[entry] = value
        self.restore(trained, parts)

    def _own(self) -> Iterator[tuple[str, torch.optim.Optimizer, bool, bool]]:
        """Members, and whether groups and state are their own and not another member's.

        What is shared may change while training, so it is looked at anew.
        """
        if len(self.members) == 1:
            yield "", self.members[""], True, True
            return
        seen: set[int] = set()
        for path, member in self.members.items():
            groups = [id(group) for group in member.param_groups]
            has_groups = not path or not seen.issuperset(groups)
            has_state = id(member.state) not in seen
            yield path, member, has_groups, has_state
            seen.update((*groups, id(member.state)))


def groups_component(path: str) -> str:
    """Name of the component of a member's groups."""
    return f"{GROUPS}/{path}" if path else GROUPS


def _is_slot(component: str) -> bool:
    return component.startswith(PREFIX)


def _prefix(path: str) -> str:
    return f"{PREFIX}{path}/" if path else PREFIX
