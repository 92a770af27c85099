"""What an object says of its own state, as a component and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auditkit.errors import AuditError, RestoreMismatch, UncapturedState
from auditkit.observe.state.ring_buffer import RingBuffer
from auditkit.observe.values.codec import Leaves, flatten, unflatten
from auditkit.observe.values.stored import Saved, StoredLeaves, loaded


def state_of(stateful: Any, component: str) -> Leaves:
    """What ``state_dict`` gives; of a ring buffer, which keeps it, the same leaves again.

    Raises:
        UncapturedState: When it raises, or holds what cannot be captured.
    """
    if isinstance(stateful, RingBuffer) and stateful.is_whole:
        return stateful.leaves
    try:
        tree = stateful.state_dict()
    except AuditError:
        raise
    except Exception as error:  # whatever the user's own object raises is reported as ours
        raise UncapturedState(
            f"state_dict raised {type(error).__name__}: {error}", component=component
        ) from error
    return flatten(tree, where=component)


def load_state(stateful: Any, leaves: Saved, component: str) -> None:
    """Inverse of :func:`state_of`.

    Raises:
        RestoreMismatch: When ``load_state_dict`` raises.
    """
    is_own = isinstance(leaves, StoredLeaves)
    tree: Any = unflatten(loaded(leaves), where=component, is_own=is_own)
    try:
        stateful.load_state_dict(tree)
    except Exception as error:  # whatever the user's own object raises is reported as ours
        raise RestoreMismatch(
            f"load_state_dict raised {type(error).__name__}: {error}", component=component
        ) from error


def required(state: Mapping[str, Saved], component: str) -> Saved:
    """A component of a snapshot.

    Raises:
        RestoreMismatch: When it has none of that name.
    """
    if component not in state:
        raise RestoreMismatch("the snapshot has no such component", component=component)
    return state[component]
