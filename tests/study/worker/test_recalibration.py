from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import PLAN, Run, check, findings_text, study_in_process, tiny_session

from auditkit.errors import AuditError, RestoreMismatch
from auditkit.evidence.reader import RunEvidence
from auditkit.observe.values.flatten import flatten
from auditkit.program.program import Program
from auditkit.signing.keys import PrivateKey
from auditkit.study.stages.auditor import Auditor
from auditkit.study.stages.forker import read_fork
from auditkit.study.stages.holder import hold
from auditkit.study.worker import callbacks, recalibration
from auditkit.study.worker.callbacks import TrunkCallback
from auditkit.study.worker.recalibration import compact, with_batches

SHORT = PLAN.changed(perturbations=["batchnorm-reset"])


def trunk(session: Any) -> TrunkCallback:
    callback = TrunkCallback(session, PLAN, lambda step: None)
    hold(session, 1, PLAN.horizon, Auditor(1), callback)
    return callback


def test_batches_are_loaded_again_from_their_indices() -> None:
    with tiny_session() as session:
        callback = trunk(session)
        whole, snapshot = callback.snapshot, compact(session, callback)
        batches = callback.recalibration
    assert len(batches) == PLAN.fork_at
    (section,) = snapshot.digests.keys() - whole.digests.keys()
    assert section == f"recalibration/{whole.digests['recalibration']}"
    assert "recalibration" not in snapshot.digests
    fork = read_fork(snapshot.tensors, snapshot.meta)
    assert fork.recalibration == []
    with tiny_session() as session:
        again = with_batches(session, fork).recalibration
        assert [[part.tolist() for part in batch] for batch in again] == [
            [part.tolist() for part in batch] for batch in batches
        ]
        kept = read_fork(whole.tensors, whole.meta)
        assert with_batches(session, kept) is kept


def test_other_data_are_refused_by_digest() -> None:
    with tiny_session() as session:
        snapshot = compact(session, trunk(session))
    fork = read_fork(snapshot.tensors, snapshot.meta)
    with tiny_session() as session:
        session.program.loader.dataset.inputs.add_(1)
        with pytest.raises(RestoreMismatch, match="are not the control's when they are loaded"):
            with_batches(session, fork)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (np.array([[[0, 99]]]), "batch 0 names sample 99 of epoch 0, which the data set has not"),
        (np.array([[[0, 1]], [[0, -2]]]), "batch 1 names sample -2 of epoch 0"),
        (np.array([[[2**62, 1]]]), "names sample 1 of epoch 4611686018427387904"),
        (np.array([[0, 1]]), "are no table of indices"),
        (np.array([[[0.0, 1.0]]]), "are no table of indices"),
        ("text", "are no table of indices"),
    ],
)
def test_indices_that_no_sample_has_are_named(table: Any, says: str) -> None:
    with tiny_session() as session:
        snapshot = compact(session, trunk(session))
    fork = read_fork(snapshot.tensors, snapshot.meta)
    assert fork.recalibration_indices is not None
    leaves = flatten({recalibration._TABLE: table}, where="forged")
    forged = replace(fork, recalibration_indices=(fork.recalibration_indices[0], leaves))
    nothing = replace(fork, recalibration_indices=(fork.recalibration_indices[0], {}))
    with tiny_session() as session:
        with pytest.raises(RestoreMismatch, match=says):
            with_batches(session, forged)
        with pytest.raises(AuditError):
            with_batches(session, nothing)


def drawing_elsewhere(program: Program) -> Program:
    """A data set that counts: no indices give its samples again."""
    dataset = program.loader.dataset
    plain, calls = type(dataset).__getitem__, [0]

    class Counting(type(dataset)):  # type: ignore[misc]
        def __getitem__(self, index: int) -> Any:
            calls[0] += 1
            inputs, label = plain(self, index)
            return inputs + calls[0], label

    dataset.__class__ = Counting
    return program


def test_where_the_indices_do_not_give_them_again_the_batches_are_kept() -> None:
    with tiny_session(drawing_elsewhere) as session:
        callback = trunk(session)
        assert compact(session, callback) is callback.snapshot
    with tiny_session(data="iterable") as session:
        callback = trunk(session)
        assert compact(session, callback) is callback.snapshot


def test_a_study_whose_fork_has_indices_verifies_and_one_with_batches_does_still(
    tmp_path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outcomes(run: Run) -> dict[str, Any]:
        report = check(run)
        assert report.verdict == "verified", findings_text(report)
        record = run.manifest.seeds[0]
        evidence = RunEvidence(run.folder, run.manifest)
        found = evidence.outcome(record.branch("batchnorm-reset")).tables
        return {name: table.tobytes() for name, table in found.items()}

    new = study_in_process(tmp_path / "new", key, SHORT)
    with_indices = outcomes(new)
    monkeypatch.setattr(recalibration, "can_load_again", lambda session: False)
    old = study_in_process(tmp_path / "old", key, SHORT)
    assert outcomes(old) == with_indices
    assert "T/recalibrated" in with_indices
    sections = [set(run.manifest.seeds[0].fork_digests) for run in (new, old)]
    assert "recalibration" in sections[1]
    assert "recalibration" not in sections[0]
    assert any(name.startswith("recalibration/") for name in sections[0])


def test_batches_that_are_kept_whole_are_bounded_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "MOST_RECALIBRATION_BYTES", 100)
    with tiny_session(data="iterable") as session:
        callback = trunk(session)
        assert len(callback.recalibration) == 2  # of 96 bytes each
        (note,) = recalibration.notes(callback, callback.snapshot)
    assert note.startswith("BatchNorm is recalibrated on 2 batches only")
    with tiny_session() as session:
        callback = trunk(session)
        assert len(callback.recalibration) == PLAN.fork_at
        snapshot = compact(session, callback)
        assert recalibration.notes(callback, snapshot) == ()
        sizes = [sum(t.n_bytes for t in s.tensors.values()) for s in (callback.snapshot, snapshot)]
        assert recalibration.kept_bytes(session, callback.snapshot) < sizes[1] < sizes[0]
        monkeypatch.setattr(recalibration, "_LARGE", 1)
        (note,) = recalibration.notes(callback, callback.snapshot)
    assert "MB of every fork are batches" in note
