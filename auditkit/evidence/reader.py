"""The evidence of a run as a verifier reads it: with distrust, one seed at a time.

Every read goes through the safe paths of ``auditkit.files.store`` and checks the SHA-256 that the
manifest lists, so that what is judged is what was signed. Traces stay in memory only while their
seed is looked at; long ones, and long orders, stay in their files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from auditkit.errors import ArtifactError, ArtifactMismatch, ArtifactMissing, FormatError
from auditkit.files import artifacts
from auditkit.files.steady_file import SteadyFile
from auditkit.formats import tensor_file
from auditkit.formats.data_position import epoch_of
from auditkit.formats.recipes import digests_raw, evidence_recipe
from auditkit.formats.run_files import (
    OrderFile,
    Outcome,
    order_from_tensors,
    outcome_from_tensors,
    trace_from_tensors,
)
from auditkit.formats.sample_digests import Digests, samples_from_tensors
from auditkit.formats.snapshot_file import LOADER, raw_components
from auditkit.formats.statements import Manifest
from auditkit.records.digest import COMMITMENT_RECIPE, EVIDENCE_RECIPE
from auditkit.records.evidence import Trace
from auditkit.records.manifest import BranchRecord, FileRecord, SeedRecord, StudyManifest
from auditkit.records.tensor import FileTensor, RawTensor, Tensor

if TYPE_CHECKING:
    from auditkit.records.recording import RecordingManifest

#: Bytes of a large file that are in memory at a time.
_PIECE = 2**22

#: Bytes of a trace or an order from which on it is not in memory as a whole.
_AT_ONCE = 2**24


@dataclass(frozen=True)
class SectionDigests:
    """Both digests of one section of a snapshot.

    Attributes:
        commitment: ``sha256/tensor-v1``, in hexadecimal digits.
        evidence: By the recipe that was asked for.
        epoch: Of a data position, its epoch, from 0; None where it says none.
    """

    commitment: str
    evidence: bytes
    epoch: int | None = None


@dataclass(frozen=True)
class SignedFolder:
    """A manifest's folder, of a study or of a recording.

    Attributes:
        root: The manifest's folder.
        manifest: The manifest.
        intact: The files that were read whole, and are what was signed.
    """

    root: Path
    manifest: Manifest
    intact: set[FileRecord] = field(default_factory=set, compare=False, repr=False)

    def tensors(self, name: str) -> tuple[Mapping[str, RawTensor], object]:
        """Tensors and metadata of a listed file.

        Raises:
            ArtifactError: When it is not listed, missing, or not what was signed.
            FormatError: When it is no tensor file.
        """
        record = self.listed(name)
        data = artifacts.safe_read(
            self.root, name, expected_size=record.size, expected_sha256=record.sha256
        )
        self.intact.add(record)
        return tensor_file.from_bytes(data, what=name)

    def pieces(self, name: str) -> Iterator[bytes]:
        """A listed file, piece by piece: a snapshot may be larger than the memory.

        Raises:
            ArtifactError: When it is not listed or missing; at its end, when what was given is
                not what was signed.
        """
        record = self.listed(name)
        digest = hashlib.sha256()
        with artifacts.open_reader(self.root, name, expected_size=record.size) as read:
            for start in range(0, record.size, _PIECE):
                piece = read(start, min(_PIECE, record.size - start))
                digest.update(piece)
                yield piece
        _require_sha256(record, digest.hexdigest())
        self.intact.add(record)

    def sections(self, name: str, recipe: str = EVIDENCE_RECIPE) -> dict[str, SectionDigests]:
        """Digests of what a snapshot holds, in memory that does not grow with it.

        The file's own SHA-256 is not looked at here: every byte that is read enters the
        digests, which the caller compares with signed ones.

        Args:
            name: Of the file.
            recipe: Of the evidence.

        Raises:
            ArtifactError: When it is not listed, missing, of another size, or was damaged.
            FormatError: When what was signed is no snapshot.
        """
        listed = self.listed(name)
        with (
            self._damage_first(listed),
            artifacts.open_reader(self.root, name, expected_size=listed.size) as read,
        ):
            parts = raw_components(*tensor_file.from_file(read, listed.size, what=name))
            return {
                section: _section_digests(section, recipe, *part) for section, part in parts.items()
            }

    @contextmanager
    def _damage_first(self, listed: FileRecord) -> Iterator[None]:
        """A file that was damaged is not what was signed; only what was signed is malformed."""
        try:
            yield
        except FormatError:
            size = listed.size
            _require_sha256(
                listed, artifacts.file_sha256(self.root, listed.name, expected_size=size)
            )
            raise

    def trace(self, name: str) -> Trace:
        """A trace file; raises as :meth:`tensors`, a long one also when it is looked at."""
        return trace_from_tensors(self._stored(name), what=name)

    def order(self, name: str) -> OrderFile:
        """An order file; raises as :meth:`trace`."""
        return order_from_tensors(self._stored(name), what=name)

    def _stored(self, name: str) -> Mapping[str, RawTensor | FileTensor]:
        """Tensors of a listed file; where it is large they stay there until they are looked at."""
        record = self.listed(name)
        if record.size <= _AT_ONCE:
            return self.tensors(name)[0]
        file = SteadyFile(self.root, name, record.size, record.sha256)
        self.intact.add(record)

        def read(start: int, n_bytes: int) -> bytes:
            try:
                return file.read(start, n_bytes)
            except ArtifactError:
                self.intact.discard(record)
                raise

        return tensor_file.from_file(read, record.size, what=name)[0]

    def listed(self, name: str) -> FileRecord:
        """What the manifest says of a file.

        Raises:
            ArtifactMissing: When it lists none of that name.
        """
        if name not in self._files:
            raise ArtifactMissing("the manifest lists no such file", where=name)
        return self._files[name]

    @cached_property
    def _files(self) -> Mapping[str, FileRecord]:
        """The listed files by name: a forged manifest may list, and use, very many."""
        return {file.name: file for file in self.manifest.files}


def _require_sha256(listed: FileRecord, found: str) -> None:
    if found != listed.sha256:
        raise ArtifactMismatch(
            "another SHA-256", expected=listed.sha256, found=found, where=listed.name
        )


def _section_digests(
    section: str,
    recipe: str,
    entries: Mapping[str, Tensor | bytes],
    aliases: Mapping[str, str],
) -> SectionDigests:
    recipes = (COMMITMENT_RECIPE, evidence_recipe(recipe, entries.get("")))
    commitment, evidence = digests_raw(recipes, entries, aliases)
    text = entries.get("") if section == LOADER else None
    epoch = epoch_of(text) if isinstance(text, bytes) else None
    return SectionDigests(commitment.hex(), evidence, epoch)


@dataclass(frozen=True)
class RecordingEvidence(SignedFolder):
    """A recording's folder and manifest."""

    manifest: RecordingManifest


@dataclass(frozen=True)
class RunEvidence(SignedFolder):
    """A study's folder and manifest."""

    manifest: StudyManifest

    def outcome(self, branch: BranchRecord) -> Outcome:
        """A branch's outcome file; raises as :meth:`tensors`."""
        return outcome_from_tensors(self.tensors(branch.outcome)[0], what=branch.outcome)

    def samples(self, name: str) -> list[Digests]:
        """What the samples of a window looked like; raises as :meth:`tensors`."""
        return samples_from_tensors(self.tensors(name)[0], what=name)

    def seed(self, record: SeedRecord) -> SeedEvidence:
        """The evidence of one seed."""
        return SeedEvidence(self, record)


@dataclass(frozen=True)
class SeedEvidence:
    """One seed's evidence; what is read once is kept as long as this object.

    Attributes:
        run: The run.
        record: What the manifest says of the seed.
    """

    run: RunEvidence
    record: SeedRecord

    @cached_property
    def control(self) -> Trace:
        """The control's trace."""
        return self.run.trace(self.record.branches[0].trace)

    @cached_property
    def control_outcome(self) -> Outcome:
        """The control's outcome."""
        return self.run.outcome(self.record.branches[0])

    @cached_property
    def trunk(self) -> Trace:
        """The trunk's trace."""
        return self.run.trace(self.record.trunk)

    @cached_property
    def order(self) -> OrderFile:
        """The control's order of steps 1..T."""
        return self.run.order(self.record.order)

    def place(self, branch: BranchRecord) -> str:
        """How messages name a branch."""
        return f"seed {self.record.seed}, {branch.name}"
