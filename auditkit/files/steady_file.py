"""A file of a run that is read piece by piece, and again: always the bytes that were signed.

Once it is read to its end for its SHA-256, and on the way the state of the hash is kept at every
64 KiB, which takes some 250 bytes. What is read later is hashed on from the state before it and
must lead to the state behind it, so that a file which is changed after it was checked is refused,
and not judged: no second digest is trusted.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

from auditkit.errors import ArtifactMismatch
from auditkit.files import artifacts

#: Bytes between two states that are kept.
BLOCK_BYTES = 2**16

#: Blocks that are read at a time on the way to the end.
_BLOCKS_AT_ONCE = 16

#: Blocks that stay in memory: a row's cells lie in as many as there are columns.
_KEPT_BLOCKS = 32


class SteadyFile:
    """A file whose digest was checked.

    Args:
        root: The run's folder.
        name: The file's name below it.
        size: Its size in bytes.
        sha256: Its digest.

    Raises:
        ArtifactMismatch: When size or digest differ.
        ArtifactError: As :func:`auditkit.files.artifacts.open_artifact`.
        StoreError: As :func:`auditkit.files.artifacts.open_artifact`.
    """

    def __init__(self, root: str | Path, name: str, size: int, sha256: str) -> None:
        self._root, self._name, self._size = root, name, size
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        hash_ = hashlib.sha256()
        self._states = [hash_.copy()]
        with artifacts.open_reader(root, name, expected_size=size) as read:
            for start in range(0, size, BLOCK_BYTES * _BLOCKS_AT_ONCE):
                data = memoryview(read(start, min(BLOCK_BYTES * _BLOCKS_AT_ONCE, size - start)))
                for begin in range(0, len(data), BLOCK_BYTES):
                    hash_.update(data[begin : begin + BLOCK_BYTES])
                    self._states.append(hash_.copy())
        if hash_.hexdigest() != sha256:
            raise ArtifactMismatch(
                "another SHA-256", expected=sha256, found=hash_.hexdigest(), where=name
            )

    def read(self, start: int, n_bytes: int) -> bytes:
        """So many bytes from a place, which both must lie in the file.

        Raises:
            ArtifactMismatch: When they are not those whose digest was checked.
            ArtifactError: As :func:`auditkit.files.artifacts.open_artifact`.
            StoreError: As :func:`auditkit.files.artifacts.open_artifact`.
        """
        if n_bytes == 0:
            return b""
        first, last = start // BLOCK_BYTES, (start + n_bytes - 1) // BLOCK_BYTES
        data = self._block(first) if first == last else self._checked(first, last)
        begin = start - first * BLOCK_BYTES
        return data[begin : begin + n_bytes]

    def _block(self, number: int) -> bytes:
        found = self._blocks.pop(number, None)
        self._blocks[number] = data = self._checked(number, number) if found is None else found
        if len(self._blocks) > _KEPT_BLOCKS:
            self._blocks.popitem(last=False)
        return data

    def _checked(self, first: int, last: int) -> bytes:
        """Blocks, which lead from the state before them to the one behind them."""
        start, stop = first * BLOCK_BYTES, min((last + 1) * BLOCK_BYTES, self._size)
        with artifacts.open_reader(self._root, self._name, expected_size=self._size) as read:
            data = read(start, stop - start)
        hash_ = self._states[first].copy()
        hash_.update(data)
        if hash_.digest() != self._states[last + 1].digest():
            raise ArtifactMismatch("changed while it was read", where=self._name)
        return data
