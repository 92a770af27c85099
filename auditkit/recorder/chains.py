"""Two SHA-256 chains over what a loop consumes."""

from __future__ import annotations

import hashlib

from auditkit.formats.chain_heads import ChainHeads
from auditkit.formats.ordering import Batch
from auditkit.observe.loader.driver import Delivery

#: Head of a chain before its first link.
_NO_HEAD = bytes(32)


class HashChains:
    """Two SHA-256 chains over what a loop consumes.

    Args:
        order: Head of the chain over its order so far; empty at the start.
        consumed: Head of the chain over its batches.
        steps: How many steps they have.

    Attributes:
        heads: How far they are.
        before: How far they were before the last link.
    """

    def __init__(self, order: bytes = b"", consumed: bytes = b"", steps: int = 0) -> None:
        self.order, self.consumed = order or _NO_HEAD, consumed or _NO_HEAD
        self._at = self._was = (steps, 0, self.order, self.consumed)

    def link(self, delivery: Delivery, content: bytes) -> None:
        """Add what one step consumed; ``content`` is the SHA-256 of its batch."""
        drawn = content if delivery.order is None else _order_bytes(delivery.order)
        self.order = hashlib.sha256(self.order + drawn).digest()
        self.consumed = hashlib.sha256(self.consumed + content).digest()
        self._was = self._at
        self._at = (self._at[0] + 1, delivery.epoch + 1, self.order, self.consumed)

    @property
    def heads(self) -> ChainHeads:
        """See the class."""
        return _heads(*self._at)

    @property
    def before(self) -> ChainHeads:
        """See the class."""
        return _heads(*self._was)


def _heads(step: int, epochs: int, order: bytes, consumed: bytes) -> ChainHeads:
    return ChainHeads(step, epochs, order.hex(), consumed.hex())


def _order_bytes(order: Batch) -> bytes:
    return len(order).to_bytes(8, "little") + order.astype("<i8").tobytes()
