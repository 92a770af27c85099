"""Under per-sample streams a sample looks one way in an epoch, or the study is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from forging import edit_statement, edit_tensors
from studies import (
    Run,
    check,
    check_files,
    failures,
    findings_text,
    result_of,
    study_in_process,
)

from auditkit.errors import AugmentationDrift
from auditkit.evidence.reader import RunEvidence
from auditkit.formats.ordering import delivered_order
from auditkit.formats.sample_digests import Window, augmentation_drift
from auditkit.records.plan import StudyPlan
from auditkit.study.worker import jobs

PLAN = StudyPlan(4, 4, 8, [0], ["order-reverse"], placebos=1)
TARGET = "augmented_study.py:make_program"


@pytest.fixture(scope="module")
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def study(
    out: Path, key: Any, plan: StudyPlan = PLAN, told: list[str] | None = None, **arguments: str
) -> Run:
    warnings = [] if told is None else told
    run = study_in_process(out, key, plan, TARGET, arguments=arguments, warn=warnings.append)
    assert told is not None or not warnings
    return run


def looks(run: Run, plan: StudyPlan = PLAN) -> dict[str, Window]:
    """The measured windows of a run."""
    evidence = RunEvidence(run.folder, run.manifest)
    seed = evidence.seed(run.manifest.seeds[0])
    tail = seed.order.batches[plan.fork_at :]
    return {
        branch.name: Window(
            delivered_order(tail, branch.perturbation, plan.window, 0)[: plan.window],
            evidence.samples(branch.samples),
        )
        for branch in run.manifest.seeds[0].branches
        if branch.samples is not None
    }


@pytest.mark.parametrize(
    ("kind", "workers"),
    [
        *((kind, "0") for kind in ("numpy", "legacy", "python", "torch")),
        ("numpy", "2"),
        *(pytest.param(n, "2", marks=pytest.mark.slow) for n in ("legacy", "python", "torch")),
    ],
)
def test_a_generator_that_follows_the_sample(
    tmp_path: Path, key: Any, kind: str, workers: str
) -> None:
    run = study(tmp_path / "run", key, kind=kind, workers=workers, registered="per-sample")
    found = looks(run)
    assert found.keys() == {"control", "order-reverse"}
    samples = [{s: d for s, d, _ in window.measured()} for window in found.values()]
    assert samples[0] == samples[1]
    assert len(set(samples[0].values())) == len(samples[0]) == 16
    assert failures(check_files(run)) == set()
    if kind == "numpy":
        report = check(run)
        assert report.verdict == "verified", findings_text(report)


def test_two_looks_in_two_epochs_however_the_samples_are_moved(tmp_path: Path, key: Any) -> None:
    """The promise that a study makes by default, with a generator of the data set's own."""
    found: dict[int, set[bytes]] = {}
    for fork in (4, 8):  # whose windows are the second and the third epoch
        plan = StudyPlan(fork, 4, fork + 4, [0], ["order-shuffle"], placebos=1)
        run = study(
            tmp_path / str(fork), key, plan, kind="numpy", workers="2", registered="per-sample"
        )
        for window in looks(run, plan).values():
            for (_, index), digest, _ in window.measured():
                found.setdefault(index, set()).add(digest)
    assert [len(found[index]) for index in range(16)] == [2] * 16


def test_workers_make_no_difference(tmp_path: Path, key: Any) -> None:
    runs = [
        study(tmp_path / n, key, kind="numpy", workers=n, registered="per-sample") for n in "02"
    ]
    first, second = (looks(run)["control"] for run in runs)
    assert augmentation_drift(first, second) is None


@pytest.mark.parametrize(
    ("kind", "workers", "registered", "named"),
    [
        (
            "numpy",
            "0",
            "yes",
            r"loader\.dataset\.rng is a numpy\.random.*held by augmented",
        ),
        ("numpy", "2", "yes", r"loader\.dataset\.rng is a numpy\.random"),
        ("lazy", "2", "", r"loader\.dataset\.rng is a numpy\.random"),
        ("lazy", "0", "", r"loader\.dataset\.rng is a numpy\.random"),
        ("python", "0", "yes", r"loader\.dataset\.rng is a random\.Random"),
        ("torch", "2", "yes", r"loader\.dataset\.rng is a torch\.Generator"),
        ("counted", "2", "", "something that counts"),
        ("worker", "2", "", "something that counts"),
    ],
)
def test_one_that_does_not_is_refused_before_training(
    tmp_path: Path, key: Any, kind: str, workers: str, registered: str, named: str
) -> None:
    with pytest.raises(AugmentationDrift, match=named) as caught:
        study(tmp_path / "run", key, kind=kind, workers=workers, registered=registered)
    assert "auditkit.PerSample" in str(caught.value)
    assert not list(tmp_path.rglob("*.trace.*"))


def test_where_nothing_is_moved_a_registered_generator_may_follow_the_position(
    tmp_path: Path, key: Any
) -> None:
    plan = StudyPlan(6, 2, 8, [0], ["momentum-reset"], placebos=1)
    run = study(tmp_path / "run", key, plan, kind="numpy", registered="yes")
    assert looks(run) == {}
    assert failures(check_files(run)) == set()
    with pytest.raises(AugmentationDrift):  # copies in workers, which nobody can read
        study(tmp_path / "two", key, plan, kind="numpy", registered="yes", workers="2")


def test_what_is_seen_in_the_window_only_stops_the_run(tmp_path: Path, key: Any) -> None:
    with pytest.raises(AugmentationDrift, match=r"sample 1\d of epoch 1 has other bytes") as caught:
        study(tmp_path / "run", key, kind="rare")
    assert caught.value.where == "seed 0, order-reverse"
    assert "augmentation_rng='inherit'" in str(caught.value)
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_such_a_run_that_was_signed_all_the_same_fails_check_6(
    tmp_path: Path, key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auditkit.study.seed_runs.require_same_samples", lambda *_: None)
    run = study(tmp_path / "run", key, told=[], kind="rare")
    report = check_files(run)
    assert 6 in failures(report)
    found = result_of(report, 6).findings
    (finding,) = [one for one in found if "augmentation drift: sample 1" in one.message]
    assert (finding.where, finding.component) == ("seed 0, order-reverse", "batch")
    assert 5 <= (finding.step or 0) <= 8


def test_edited_digests_are_found(tmp_path: Path, key: Any) -> None:
    run = study(tmp_path / "run", key)
    name = "seed-0000/order-reverse.samples.safetensors"

    def edit(arrays: Any) -> None:
        arrays["samples"][2, 1] ^= 1

    edit_tensors(run, name, edit)
    assert failures(check_files(run)) == {6}
    edit_tensors(run, "seed-0000/control.samples.safetensors", lambda arrays: None)

    def zero(arrays: Any) -> None:
        arrays["samples"][:] = 0

    edit_tensors(run, name, zero)  # as if nobody had been able to measure: a replay can
    assert failures(check_files(run)) == set()
    report = check(run)
    assert 8 in failures(report)
    assert "data drift" in findings_text(report)


def forget_samples(run: Run) -> None:
    """Let a run be as one of before samples were measured."""

    def forget(statement: Any) -> None:
        for branch in statement["predicate"]["seeds"][0]["branches"]:
            branch.pop("samples", None)
        for part in (statement["predicate"]["files"], statement["subject"]):
            part[:] = [file for file in part if not file["name"].endswith("samples.safetensors")]

    edit_statement(run, forget)
    for file in run.folder.rglob("*.samples.safetensors"):
        file.unlink()


def test_a_manifest_of_before_they_were_measured(tmp_path: Path, key: Any) -> None:
    run = study(tmp_path / "run", key)
    forget_samples(run)
    assert failures(check(run)) == set()


def test_a_replay_measures_what_the_manifest_has_not(
    tmp_path: Path, key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auditkit.study.seed_runs.require_same_samples", lambda *_: None)
    monkeypatch.setattr(jobs, "require_per_sample", lambda *_, **__: None)
    run = study(tmp_path / "run", key, told=[], kind="lazy", workers="2")
    forget_samples(run)
    assert failures(check_files(run)) == set()
    report = check(run)
    assert (report.verdict, failures(report)) == ("failed", {8})
    (finding,) = result_of(report, 8).findings
    assert "augmentation drift: sample " in finding.message
    assert (finding.where, finding.component) == ("seed 0, order-reverse", "batch")


def test_one_side_only_is_no_evidence(tmp_path: Path, key: Any) -> None:
    run = study(tmp_path / "run", key)

    def forget(statement: Any) -> None:
        statement["predicate"]["seeds"][0]["branches"][0].pop("samples")
        for part in (statement["predicate"]["files"], statement["subject"]):
            part[:] = [file for file in part if "control.samples" not in file["name"]]

    edit_statement(run, forget)
    assert failures(check_files(run)) == {6}


def test_samples_of_no_known_kind_are_not_measured(tmp_path: Path, key: Any) -> None:
    told: list[str] = []
    run = study(tmp_path / "run", key, told=told, kind="unplain")
    assert [text for text in told if "cannot be told apart" in text]
    assert looks(run) == {}
    assert failures(check_files(run)) == set()


def test_samples_that_are_plain_objects_are_measured(tmp_path: Path, key: Any) -> None:
    run = study(tmp_path / "run", key, kind="object")
    assert looks(run)
    assert failures(check_files(run)) == set()
    with pytest.raises(AugmentationDrift, match="does not look the same"):
        study(tmp_path / "drifted", key, kind="counted object")


def test_an_unregistered_generator_is_refused_with_both_ways(tmp_path: Path, key: Any) -> None:
    with pytest.raises(AugmentationDrift, match=r"auditkit\.PerSample\(dataset\.rng\)"):
        study(tmp_path / "run", key, kind="numpy")


def test_the_question_is_put_once(
    tmp_path: Path, key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(jobs, "require_per_sample", lambda session, moves: asked.append(moves))
    study(tmp_path / "run", key, StudyPlan(4, 4, 8, [0, 1], ["order-reverse"], placebos=1))
    assert asked == [True]
