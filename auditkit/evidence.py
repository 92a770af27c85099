"""The evidence of a run as a verifier reads it: with distrust, one seed at a time.

Every read goes through the safe paths of ``auditkit.store`` and checks the SHA-256 that the
manifest lists, so that what is judged is what was signed. Long traces stay in memory only
while their seed is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from auditkit import store
from auditkit.errors import ArtifactMissing
from auditkit.manifests import Manifest
from auditkit.records.evidence import Trace
from auditkit.records.manifest import StudyManifest
from auditkit.records.recording import RecordingManifest
from auditkit.records.study import BranchRecord, SeedRecord
from auditkit.records.tensor import RawTensor
from auditkit.runfiles import (
    OrderFile,
    Outcome,
    order_from_tensors,
    outcome_from_tensors,
    trace_from_tensors,
)


@dataclass(frozen=True)
class SignedFolder:
    """A manifest's folder, of a study or of a recording.

    Attributes:
        root: The manifest's folder.
        manifest: The manifest.
    """

    root: Path
    manifest: Manifest

    def tensors(self, name: str) -> tuple[Mapping[str, RawTensor], object]:
        """Tensors and metadata of a listed file.

        Raises:
            ArtifactError: When it is not listed, missing, or not what was signed.
            FormatError: When it is no tensor file.
        """
        try:
            record = self.manifest.file(name)
        except KeyError:
            raise ArtifactMissing("the manifest lists no such file", where=name) from None
        data = store.safe_read(
            self.root, name, expected_size=record.size, expected_sha256=record.sha256
        )
        return store.read_tensors(data, what=name)

    def trace(self, name: str) -> Trace:
        """A trace file; raises as :meth:`tensors`."""
        return trace_from_tensors(self.tensors(name)[0], what=name)


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
        return order_from_tensors(self.run.tensors(self.record.order)[0], what=self.record.order)

    def place(self, branch: BranchRecord) -> str:
        """How messages name a branch."""
        return f"seed {self.record.seed}, {branch.name}"
