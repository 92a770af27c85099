"""torch.distributed.checkpoint (DCP): recorded checkpoints of a sharded model, read on any ranks.

::

    reader = CheckpointReader("runs/exp1/manifest.json", step=1000)
    state = {f"params/{name}": value for name, value in model.named_parameters()}
    dcp.load(state, storage_reader=reader)

A tensor's name is that of its component, ``/`` and its entry: ``params/0.weight``,
``optimizer/exp_avg/0.weight``. What every rank holds in whole is read as rank 0 held it; what is no
tensor is in ``auditkit``'s own reader only. Each file is compared with the manifest by SHA-256, and
no pickle is read: that the manifest is somebody's, ``auditkit verify`` tells.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from auditkit.errors import ArtifactMissing, UsageError
from auditkit.evidence.reader import RecordingEvidence
from auditkit.files import store
from auditkit.formats import canonical
from auditkit.formats.sharding import read_sharding
from auditkit.formats.snapshot_file import SHARDING, UNTRACED
from auditkit.formats.statements import manifest_from_statement
from auditkit.observe.values.codec import Leaves, unpack
from auditkit.records.recording import RecordingManifest
from auditkit.signing.envelopes import open_envelope


class CheckpointReader(StorageReader):
    """Reads one checkpoint of a recording, of all its ranks.

    Args:
        manifest: The recording's manifest.
        step: After how many steps it was taken; None for the latest.

    Raises:
        StoreError: When the manifest cannot be read.
        MalformedError: When it is none.
        UsageError: When it is a study's, or there is no such checkpoint.
    """

    def __init__(self, manifest: str | os.PathLike[str], step: int | None = None) -> None:
        path = Path(manifest)
        data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
        found = manifest_from_statement(open_envelope(data, what=path.name).payload, what=path.name)
        if not isinstance(found, RecordingManifest):
            raise UsageError("a study has no checkpoints", where=str(path))
        self._evidence = RecordingEvidence(path.parent, found)
        taken = [{one.step: one.file for one in rank.checkpoints} for rank in found.ranks]
        steps = sorted(set(taken[0]).intersection(*taken[1:]))
        self.step = steps[-1] if step is None and steps else step
        if self.step not in steps:
            raise UsageError(
                "there is no such checkpoint",
                expected=f"one after step {', '.join(map(str, steps))}" if steps else None,
                found=self.step,
                where=str(path),
            )
        self._files = [files[self.step] for files in taken]
        #: Where each part of a tensor is: in which file, and under which component and entry.
        self._places: dict[MetadataIndex, tuple[str, str, str]] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """The checkpoint was chosen when this was made."""

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing to do: :meth:`read_metadata` has noted where everything is."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """As it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """As they are."""
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Only a reader that was made for a checkpoint reads it."""
        return False

    def read_metadata(self) -> Metadata:
        """Which tensors there are, and which parts of them.

        Raises:
            ArtifactError: When a file is not what was signed.
            FormatError: When it is no snapshot.
        """
        tensors: dict[str, TensorStorageMetadata] = {}
        for rank, file in enumerate(self._files):
            for name, place, whole, offset, part in self._parts(file, is_first=not rank):
                known = tensors.setdefault(
                    name, TensorStorageMetadata(TensorProperties(part.dtype), whole, [])
                )
                index = MetadataIndex(name, offset)
                if part.numel() and index not in self._places:
                    known.chunks.append(ChunkStorageMetadata(offset, part.shape))
                    self._places[index] = place
        return Metadata(dict(tensors))

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Copy what is asked for, file by file."""
        asked: dict[str, list[Any]] = {}
        for item in plan.items:
            place = self._places.get(
                MetadataIndex(item.storage_index.fqn, item.storage_index.offset)
            )
            if place is None:
                raise ArtifactMissing(
                    "the checkpoint has no such part of a tensor", where=item.storage_index.fqn
                )
            asked.setdefault(place[0], []).append((place, item))
        for file, items in asked.items():
            sections = self._sections(file)
            for (_, component, entry), item in items:
                part: Any = sections[component][entry]
                for dim, (start, length) in enumerate(
                    zip(item.storage_offsets, item.lengths, strict=True)
                ):
                    part = part.narrow(dim, start, length)
                target = planner.resolve_tensor(item).detach()
                target.copy_(part)
                planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _sections(self, file: str) -> dict[str, Leaves]:
        return dict(unpack(*self._evidence.tensors(file)))

    def _parts(
        self, file: str, *, is_first: bool
    ) -> Iterator[tuple[str, tuple[str, str, str], torch.Size, torch.Size, Tensor]]:
        """Name, place, shape of the whole, offset in it, and content, of what a file holds."""
        sections = self._sections(file)
        sharding = read_sharding(sections.pop(SHARDING, None))
        for component, leaves in sections.items():
            if component.partition("/")[0] in UNTRACED:
                continue
            for entry, leaf in leaves.items():
                shard = sharding.get(component, {}).get(entry)
                if not isinstance(leaf, Tensor) or not (is_first or shard):
                    continue
                whole = torch.Size(leaf.shape if shard is None else shard.shape)
                offset = [0] * len(whole)
                if shard is not None and offset:
                    offset[0] = shard.first
                place = (file, component, entry)
                yield f"{component}/{entry}", place, whole, torch.Size(offset), leaf
