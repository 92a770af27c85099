"""Two SHA-256 chains over what a loop consumes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from auditkit.formats.chain_heads import ChainHeads
from auditkit.formats.packed_batch import Drawn, PackedBatch
from auditkit.observe.loader.driver import Delivery

#: Head of a chain before its first link.
_NO_HEAD = bytes(32)

#: Links that wait to be made: all at once cost less than each in the midst of a step.
_MADE_TOGETHER = 64


class HashChains:
    """Two SHA-256 chains over what a loop consumes.

    Args:
        order: Head of the chain over its order so far; empty at the start.
        consumed: Head of the chain over its batches.
        steps: How many steps they have.

    Attributes:
        order: Head of the chain over the order.
        consumed: Head of the chain over the batches.
        heads: How far they are.
        before: How far they were before the last link.
    """

    def __init__(self, order: bytes = b"", consumed: bytes = b"", steps: int = 0) -> None:
        self._at = self._was = (steps, 0, order or _NO_HEAD, consumed or _NO_HEAD)
        #: Order, number of the epoch and content of links that are not made yet.
        self._waiting: list[tuple[Drawn | None, int, Callable[[], bytes]]] = []

    def link(self, delivery: Delivery, content: Callable[[], bytes]) -> None:
        """Add what one step consumed; ``content`` gives the SHA-256 of its batch when asked."""
        self._waiting.append((delivery.drawn, delivery.epoch, content))
        if len(self._waiting) >= _MADE_TOGETHER:
            self._make()

    @property
    def order(self) -> bytes:
        """See the class."""
        self._make()
        return self._at[2]

    @property
    def consumed(self) -> bytes:
        """See the class."""
        self._make()
        return self._at[3]

    @property
    def heads(self) -> ChainHeads:
        """See the class."""
        self._make()
        return _heads(*self._at)

    @property
    def before(self) -> ChainHeads:
        """See the class."""
        self._make()
        return _heads(*self._was)

    def _make(self) -> None:
        """Make the links that wait."""
        waiting, self._waiting = self._waiting, []
        for order, epoch, commitment in waiting:
            self._was = step, _, ordered, consumed = self._at
            content = commitment()
            drawn = content if order is None else _order_bytes(order)
            self._at = (
                step + 1,
                epoch + 1,
                hashlib.sha256(ordered + drawn).digest(),
                hashlib.sha256(consumed + content).digest(),
            )


def _heads(step: int, epochs: int, order: bytes, consumed: bytes) -> ChainHeads:
    return ChainHeads(step, epochs, order.hex(), consumed.hex())


def _order_bytes(order: Drawn) -> bytes:
    return order.link if isinstance(order, PackedBatch) else PackedBatch.of(order).link
