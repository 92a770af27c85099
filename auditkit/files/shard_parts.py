"""Where the processes of a recording leave what they contribute to digests of sharded components.

One file a process and moment, gone once there is a manifest.
"""

from __future__ import annotations

from pathlib import Path

from auditkit.files import store
from auditkit.formats.shard_parts import Parts, parts_from_tensors, parts_to_tensors


class ShardParts:
    """The files of one process.

    Args:
        folder: The process's own folder.
    """

    def __init__(self, folder: Path) -> None:
        self._own = folder

    def write(self, step: int, parts: Parts) -> None:
        """Leave what this process contributes to the state after a step."""
        store.write_tensors(self._path(step), *parts_to_tensors(parts))

    def has(self, step: int) -> bool:
        """Whether it has left anything of that state."""
        return self._path(step).exists()

    def read(self, step: int) -> Parts:
        """What it has left.

        Raises:
            StoreError: When it is not there.
            FormatError: When it is broken.
        """
        path = self._path(step)
        return parts_from_tensors(*store.read_tensors(path, what=path.name))

    def _path(self, step: int) -> Path:
        return self._own / f"shards-{step:08d}{store.PARTIAL}"
