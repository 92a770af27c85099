from __future__ import annotations

import hashlib
from functools import partial

import numpy as np
import pytest

from auditkit.formats.chain_heads import ChainHeads
from auditkit.formats.packed_batch import PackedBatch
from auditkit.observe.loader.driver import Delivery
from auditkit.recorder.chains import HashChains


def heads(n_links: int) -> ChainHeads:
    """By the definition, link by link."""
    order = consumed = bytes(32)
    for number in range(n_links):
        pairs = np.array([(number // 10, number), (number // 10, 7)], np.int64)
        content = bytes([number]) * 32
        drawn = content if number % 3 == 0 else (2).to_bytes(8, "little") + pairs.tobytes()
        order = hashlib.sha256(order + drawn).digest()
        consumed = hashlib.sha256(consumed + content).digest()
    epochs = (n_links - 1) // 10 + 1 if n_links else 0
    return ChainHeads(n_links, epochs, order.hex(), consumed.hex())


@pytest.mark.parametrize("asked", [1, 2, 5, 200])
def test_links_are_made_in_order_whenever_the_heads_are_asked_for(asked: int) -> None:
    chains = HashChains()
    assert chains.heads == chains.before == heads(0)
    for number in range(150):
        epoch = number // 10
        pairs = None if number % 3 == 0 else np.array([(epoch, number), (epoch, 7)], np.int64)
        drawn = PackedBatch.of(pairs) if pairs is not None and number % 2 else pairs
        chains.link(Delivery(None, drawn, epoch), partial(bytes, [number] * 32))
        if (number + 1) % asked == 0:
            assert (chains.before, chains.heads) == (heads(number), heads(number + 1))
    assert chains.order.hex() == heads(150).order
    assert chains.consumed.hex() == heads(150).consumed
