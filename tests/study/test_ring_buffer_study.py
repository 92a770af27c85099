"""A study of a program whose replay memory is a ring buffer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from studies import PLAN, check, findings_text, study_in_process

from auditkit.errors import UncapturedState
from auditkit.evidence.reader import RunEvidence
from auditkit.signing.keys import PrivateKey
from auditkit.verification.fork import check_fork

RINGS = "ring_study.py:make_program"
QUEUE_STALE = "queue-stale:name=memory,pointer=auditkit.RingBuffer/position"
STUDY = PLAN.changed(
    fork_at=50,
    window=2,
    horizon=56,
    placebos=1,
    perturbations=["queue-clear:name=memory", QUEUE_STALE, "queue-shuffle:name=memory"],
)


def test_it_runs_and_verifies(tmp_path: Path, key: PrivateKey) -> None:
    run = study_in_process(tmp_path / "run", key, STUDY, RINGS)
    report = check(run)
    assert report.verdict == "verified", findings_text(report)
    evidence = RunEvidence(run.folder, run.manifest)
    seed = evidence.seed(run.manifest.seeds[0])
    rows = np.frombuffer(seed.trunk.columns["extras/memory"][:], np.uint8).reshape(-1, 16)
    assert len(np.unique(rows, axis=0)) == len(rows)
    # Its recipe does not hang on the plan's, and the file's digest is that of the row.
    assert not list(check_fork(seed, STUDY))
    found = list(check_fork(seed, STUDY.changed(evidence_digest="int64-mix/1")))
    assert "extras/memory" not in {finding.component for finding in found}


def test_a_write_past_it_ends_the_run(tmp_path: Path, key: PrivateKey) -> None:
    with pytest.raises(UncapturedState, match="among rows 384 to 399 of taken something") as raised:
        study_in_process(tmp_path / "run", key, STUDY, RINGS, arguments={"past": "yes"})
    assert raised.value.component == "extras/memory"
