"""Files that grow by whole parts while a loop runs; a part that a kill cut short is left out.

Each part stands behind its size and its SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from auditkit.files import store
from auditkit.formats import tensor_file
from auditkit.records.tensor import RawTensor

#: Bytes before each part: its size and its SHA-256.
_HEAD = 8 + 32


def append_part(path: Path, tensors: Mapping[str, RawTensor]) -> None:
    """Append tensors; they outlive the process, and not a crash of the machine.

    Raises:
        StoreError: When the file cannot be written.
    """
    store.append_bytes(path, _framed(tensors))


def write_part(path: Path, tensors: Mapping[str, RawTensor]) -> None:
    """Begin the file anew with these tensors, durably.

    Raises:
        StoreError: When the file cannot be written.
    """
    store.write_bytes(path, _framed(tensors))


def read_parts(path: Path) -> Iterator[memoryview]:
    """The parts of a file in their order; none where there is no file."""
    data = memoryview(store.read_bytes(path) if path.exists() else b"")
    while data.nbytes > _HEAD:
        size, sha256 = int.from_bytes(data[:8], "little"), data[8:_HEAD]
        part, data = data[_HEAD : _HEAD + size], data[_HEAD + size :]
        if hashlib.sha256(part).digest() != sha256:
            return
        yield part


def _framed(tensors: Mapping[str, RawTensor]) -> bytes:
    data = b"".join(tensor_file.to_chunks(tensors, None))
    return len(data).to_bytes(8, "little") + hashlib.sha256(data).digest() + data
