"""What two attackers found: each is caught by the check that is meant for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from record_examples import MANIFEST
from studies import check, failures, study_in_process

from auditkit.errors import ArtifactMissing, FormatError, StoreError
from auditkit.evidence.reader import RunEvidence
from auditkit.files.locks import lock
from auditkit.formats.run_files import order_from_tensors, outcome_from_tensors
from auditkit.records.manifest import StudyManifest
from auditkit.records.tensor import RawTensor
from auditkit.signing.keys import PrivateKey
from auditkit.verification.rng_contract import check_contracts


def with_equal_seeds(manifest: StudyManifest) -> StudyManifest:
    first = manifest.seeds[0]
    return replace(manifest, seeds=(first, replace(first, seed=first.seed + 1)))


def test_a_seed_that_is_another_seed_again_is_no_replication() -> None:
    found = [str(finding) for finding in check_contracts(with_equal_seeds(MANIFEST))]
    assert any("very state" in text for text in found)


def test_an_order_without_samples_costs_no_memory() -> None:
    empty = RawTensor("int64", (2**40, 0, 2), b"")
    with pytest.raises(FormatError, match="no samples"):
        order_from_tensors({"order": empty}, what="order")


def test_an_outcome_without_examples_is_refused() -> None:
    tensors = {
        "labels": RawTensor("int64", (0,), b""),
        "t0": RawTensor("float32", (0, 3), b""),
    }
    with pytest.raises(FormatError, match="N > 0"):
        outcome_from_tensors(tensors, what="outcome")


def test_an_outcome_of_one_class_is_refused() -> None:
    tensors = {
        "labels": RawTensor("int64", (1,), bytes(8)),
        "t0": RawTensor("float32", (1, 1), bytes(4)),
    }
    with pytest.raises(FormatError, match="shape"):
        outcome_from_tensors(tensors, what="outcome")


def test_two_runs_cannot_write_into_one_folder(tmp_path: Path) -> None:
    path = tmp_path / "run.lock.partial"
    with lock(path), pytest.raises(StoreError, match="another process"), lock(path):
        pass
    assert not path.exists()


def test_evidence_is_read_through_the_manifest_only(tmp_path: Path) -> None:
    run = RunEvidence(tmp_path, MANIFEST)
    with pytest.raises(ArtifactMissing, match="lists no such file"):
        run.tensors("elsewhere.safetensors")


def test_state_of_a_process_reaches_no_other_branch(tmp_path: Path, key: PrivateKey) -> None:
    run = study_in_process(tmp_path / "run", key, target="leaky_study.py:make_program")
    assert not failures(check(run, replay="all"))
