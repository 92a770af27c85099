"""A component that keeps its own digest up while it changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class SummedLeaves(dict[str, Tensor | bytes]):
    """The leaves of a component whose owner knows what changed since they were digested last."""

    def digest(self) -> bytes:
        """The digest of what the leaves are now, ``int64-mix/1``."""
        raise NotImplementedError

    def require_whole(self, component: str) -> None:
        """Make the digest anew from all that the leaves hold, and compare.

        Args:
            component: Their name, for the message.

        Raises:
            AuditError: When something changed that the owner was not told of.
        """
        raise NotImplementedError


def require_whole(state: Mapping[str, Any]) -> None:
    """Make the digests of such components anew, and compare.

    Raises:
        AuditError: When a component that keeps its own digest holds something else.
    """
    for name, leaves in state.items():
        if isinstance(leaves, SummedLeaves):
            leaves.require_whole(name)
