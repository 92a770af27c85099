"""Replays where other bits are honest: other kernels, other threads, another processor.

An edit cannot be excluded there. What can be said is how far the record is, and, under a
tolerance that the verifier chose, whether that is all that differs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import forging
import pytest
import torch
from examining import FEW, run_program
from numpy.typing import NDArray
from studies import InProcessWorkers, Run, check, first_finding

from auditkit.errors import UsageError
from auditkit.evidence.reader import RunEvidence
from auditkit.formats.ordering import Batch
from auditkit.records.job import Job
from auditkit.replay.study_replay import ReplayOutcome, ReplayRequest, replay
from auditkit.signing.keys import PrivateKey

#: Far above what rounding does to the study in a few steps, and far below what an edit is for.
TOLERANCE = 1e-4

SHORT = replace(FEW, fork_at=3, window=1, horizon=6)


needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
    reason="there is only one library of kernels here",
)


class OtherKernels(InProcessWorkers):
    """Does jobs without oneDNN."""

    def run(self, job: Job, *told: Any) -> Any:
        # The public switch would also touch, and warn of, a setting of Intel's GPUs.
        torch._C._set_mkldnn_enabled(False)
        try:
            return super().run(job, *told)
        finally:
            torch._C._set_mkldnn_enabled(True)


class OtherThreads(InProcessWorkers):
    """Does jobs with two threads, whatever the plan says."""

    def run(self, job: Job, *told: Any) -> Any:
        assert job.plan is not None
        return super().run(replace(job, plan=replace(job.plan, threads=2)), *told)


@pytest.fixture(scope="module")
def rounded(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    """A run with one thread."""
    return run_program(
        tmp_path_factory.mktemp("rounded"), key, "rounded_study.py:make_program", {}, SHORT
    )


@pytest.fixture
def copy(rounded: Run, tmp_path: Path) -> Run:
    shutil.copytree(rounded.folder, tmp_path / "copy")
    return Run(tmp_path / "copy", rounded.key)


def replayed(
    run: Run, tolerance: float | None = TOLERANCE, workers: InProcessWorkers | None = None
) -> ReplayOutcome:
    """Replay everything, by default with other kernels."""
    request = ReplayRequest({0: run.manifest.plan.branch_names[1:]}, {}, tolerance=tolerance)
    evidence = RunEvidence(run.folder, run.manifest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("auditkit.replay.study_replay.Workers", lambda **_: workers or OtherKernels())
        patch.setattr("auditkit.replay.seed_replay.MAX_REPLAYS", 2)  # they agree, and time is short
        return replay(evidence, request, lambda _: None)


@pytest.mark.parametrize(
    ("workers", "told"),
    [
        pytest.param(
            OtherKernels,
            "determinism: mkldnn enabled is True there, False here",
            marks=needs_onednn,
        ),
        (OtherThreads, "variables: MKL_NUM_THREADS is 1 there, 2 here"),
    ],
)
def test_other_bits_elsewhere_are_undecided_with_the_distance(
    rounded: Run, workers: type[InProcessWorkers], told: str
) -> None:
    outcome = replayed(rounded, None, workers())
    assert outcome.undecided
    assert {finding.exit_code for finding in outcome.findings} == {6}
    text = outcome.findings[0].message
    assert f"environment differs ({told})" in text
    assert "an edit cannot be excluded" in text
    assert "total variation between record and replay of control: " in text
    assert "largest difference of the snapshots: " in text
    state = {found.name: found for found in outcome.distances if found.kind == "state"}
    assert "optimizer/momentum_buffer" in state
    assert {found.where for found in state.values()} == {"seed 0, fork"}
    for found in state.values():
        assert found.largest_absolute is not None
        assert 0 < found.largest_absolute < 1e-4
    probe = [found for found in outcome.distances if found.kind == "probe"]
    assert {found.name for found in probe} <= {"t0", "t0+W", "T"}
    assert {f"seed 0, {name}" for name in rounded.manifest.plan.branch_names} >= {
        found.where for found in probe
    }
    assert all(found.total_variation is not None for found in probe)
    assert max(found.total_variation or 0 for found in probe) > 0


@needs_onednn
def test_the_report_is_undecided(rounded: Run) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("studies.InProcessWorkers", lambda _: OtherKernels())
        report = check(rounded)
    assert (report.verdict, report.exit_code, report.estimates) == ("undecided", 6, None)


@needs_onednn
@pytest.mark.parametrize(("tolerance", "close"), [(None, False), (1e-15, False), (TOLERANCE, True)])
def test_it_is_close_within_a_tolerance_only(
    rounded: Run, tolerance: float | None, close: bool
) -> None:
    assert replayed(rounded, tolerance).close is close


def flatten_table(run: Run) -> None:
    """Make the effect smaller than it was."""
    forging.edit_outcome(run, "momentum-reset", "T", forging.flatter)


def swap_samples(run: Run) -> None:
    """Exchange two samples of step 3 in everything that tells the order."""

    def swap(batches: list[Batch]) -> None:
        batches[2][[0, 1]] = batches[2][[1, 0]]

    forging.edit_order(run, swap)


def edit_late_batch(run: Run) -> None:
    """One digest of what a branch consumed, long after rounding has set in."""
    forging.edit_trace(run, "momentum-reset", 6, "batch")


def edit_late_stream(run: Run) -> None:
    """One digest of a random stream."""
    forging.edit_trace(run, "placebo-0", 6, "rng/torch")


def edit_description(run: Run) -> None:
    """What people are told of the program."""
    forging.edit_predicate(run, lambda told: told["program"]["description"].update(optimizer="x"))


def edit_data(run: Run) -> None:
    """What people are told of the data."""
    forging.edit_predicate(run, lambda told: told["seeds"][0]["data"].update(declared="v2"))


def hide_divergence(run: Run) -> None:
    """A branch that is said to have diverged is left out of the estimates."""
    forging.edit_statement(
        run, lambda told: forging.branch_in(told, "momentum-reset").update(diverged_at=5)
    )


def edit_weights(run: Run) -> None:
    """Another model at the fork."""

    def grow(weights: NDArray[Any]) -> None:
        weights *= 2

    forging.edit_fork(run, "params", "4.weight", grow)


@needs_onednn
@pytest.mark.parametrize(
    ("edit", "where", "component"),
    [
        (flatten_table, "momentum-reset", None),
        (edit_weights, "fork", None),
        (swap_samples, "trunk", "order"),
        (edit_late_batch, "momentum-reset", "batch"),
        (edit_late_stream, "placebo-0", "rng/torch"),
        (edit_description, "trunk", "optimizer"),
        (edit_data, "trunk", "data (declared)"),
        (hide_divergence, "momentum-reset", "loss"),
    ],
)
def test_an_edit_under_cover_of_other_kernels_is_not_close(
    copy: Run, edit: Callable[[Run], None], where: str, component: str | None
) -> None:
    edit(copy)
    outcome = replayed(copy)
    assert not outcome.close
    # What no rounding makes is named although rounding was there before it.
    found = {(finding.where, finding.component) for finding in outcome.findings}
    place = f"seed 0, {where}"
    assert place in {there for there, _ in found}
    assert component is None or (place, component) in found


def edit_reset(run: Run) -> None:
    """What a treatment is said to have reset."""
    forging.edit_statement(
        run,
        lambda told: forging.branch_in(told, "momentum-reset").update(reset=["param_groups[0].lr"]),
    )


def test_no_processor_excuses_what_follows_from_no_rounding(copy: Run) -> None:
    for edit in (edit_description, edit_data, edit_reset):
        edit(copy)
    found = replayed(copy, None, OtherThreads()).findings
    codes = {(each.where, each.component): each.exit_code for each in found}
    failed = {place for place, code in codes.items() if code == 1}
    assert failed == {
        ("seed 0, trunk", "optimizer"),
        ("seed 0, trunk", "data (declared)"),
        ("seed 0, momentum-reset", "param_groups[0].lr"),
    }
    assert len(codes) > len(failed)  # the states, which are honestly others


@needs_onednn
def test_an_edit_as_small_as_rounding_is_not_excluded(copy: Run) -> None:
    # Its estimates are those of the recomputed tables, which the edit has not touched.
    def nudge(table: NDArray[Any]) -> None:
        table[0, :2] += [1e-6, -1e-6]

    forging.edit_outcome(copy, "momentum-reset", "T", nudge)
    assert replayed(copy).close


def test_an_edit_in_the_recorded_environment_is_never_close(copy: Run) -> None:
    edit_late_batch(copy)
    outcome = replayed(copy, 1.0, InProcessWorkers(copy.manifest.environment))
    assert not outcome.close
    assert not outcome.undecided


def test_equal_bits_in_another_environment_are_no_finding(rounded: Run) -> None:
    here = rounded.manifest.environment
    elsewhere = replace(here, libraries={**here.libraries, "openmp": "OpenMP 1999"})
    outcome = replayed(rounded, TOLERANCE, InProcessWorkers(elsewhere))
    assert (outcome.findings, outcome.distances) == ((), ())
    assert not outcome.close
    assert not outcome.undecided


@pytest.mark.parametrize("tolerance", [-1e-9, 1.5, float("nan"), float("inf")])
def test_a_tolerance_is_a_total_variation(tolerance: float) -> None:
    with pytest.raises(UsageError, match="total variation"):
        ReplayRequest({}, {}, tolerance=tolerance)


@pytest.mark.slow
def test_another_processor_in_fresh_processes(copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # Torch then uses none of the processor's vector instructions.
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    request = ReplayRequest({0: ("momentum-reset",)}, {}, tolerance=TOLERANCE)
    outcome = replay(RunEvidence(copy.folder, copy.manifest), request, lambda _: None)
    assert {finding.exit_code for finding in outcome.findings} == {6}
    assert any(found.kind == "state" for found in outcome.distances)
    assert outcome.close
    report = check(copy, fresh=True)
    assert (report.verdict, report.exit_code) == ("undecided", 6)
    assert "cpu capability" in "\n".join(report.environment_differences)
    assert "environment differs" in first_finding(report, 8).message
    flatten_table(copy)
    evidence = RunEvidence(copy.folder, copy.manifest)
    assert not replay(evidence, request, lambda _: None).close
