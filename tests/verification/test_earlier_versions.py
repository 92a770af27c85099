"""A perturbation of an earlier version is verified as what it was, and said to be that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from studies import PLAN, Run, check, check_files, findings_text, result_of, study_in_process

from auditkit.records.declaration import DECLARATIONS
from auditkit.records.job import Job
from auditkit.records.manifest import StudyManifest
from auditkit.records.plan import PerturbationSpec
from auditkit.signing.keys import PrivateKey
from auditkit.verification.earlier_versions import earlier_versions_note

SAID = (
    "optimizer-reset is version 1 here, and 2 in this auditkit; version 1: every optimizer slot "
    ":= absent; hyper-parameters kept"
)


def test_a_new_study_with_an_earlier_version_is_told_apart(
    tmp_path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = PLAN.with_perturbations([PerturbationSpec("optimizer-reset", {})])
    with monkeypatch.context() as patch:
        patch.setattr(Job, "version_of", lambda _, name: 1 if name == "optimizer-reset" else None)
        run = study_in_process(tmp_path / "run", key, plan)
    report = check(run)
    assert report.verdict == "verified", findings_text(report)
    assert result_of(report, 7).warnings == (SAID,)
    assert report.estimates is not None
    assert SAID in report.estimates.notes  # where the effect is read
    assert result_of(check_files(run), 7).warnings == (SAID,)


def test_todays_versions_need_no_word(small: Run) -> None:
    assert earlier_versions_note(small.manifest, DECLARATIONS) is None


def with_version(manifest: StudyManifest, spec: PerturbationSpec, version: int) -> StudyManifest:
    (seed,) = manifest.seeds
    *others, last = seed.branches
    branch = replace(last, perturbation=spec, version=version)
    return replace(manifest, seeds=(replace(seed, branches=(*others, branch)),))


def test_what_is_not_known_is_left_to_check_4(small: Run) -> None:
    for spec, version in (
        (PerturbationSpec("optimizer-reset", {}), 7),
        (PerturbationSpec("nothing-of-ours", {}), 1),
    ):
        manifest = with_version(small.manifest, spec, version)
        assert earlier_versions_note(manifest, DECLARATIONS) is None
    manifest = with_version(small.manifest, PerturbationSpec("optimizer-reset", {}), 1)
    assert earlier_versions_note(manifest, DECLARATIONS) == SAID
