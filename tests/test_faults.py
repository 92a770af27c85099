"""Faults that are planted while a study runs, or in its files by somebody who holds the key:
each is caught, and the step, the component and the check that it concerns are named.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import forging
import numpy as np
import pytest
import torch
from studies import (
    FAULTY,
    PLAN,
    Run,
    check,
    check_files,
    failures,
    first_finding,
    result_of,
    study_in_process,
)

from auditkit.errors import OrderDrift, ProgramFailed, RestoreMismatch
from auditkit.formats.ordering import Batch
from auditkit.perturbations.optimizer_resets import AdamReset, MomentumReset
from auditkit.perturbations.ulp import Ulp
from auditkit.records.plan import PerturbationSpec
from auditkit.signing.keys import PrivateKey

#: As in ``programs/faulty_study.py``.
VARIABLE = "AUDITKIT_TEST_FAULT"

#: Fewer branches than the tiny study has: each is run six times here.
FEW = PLAN.with_perturbations(
    [spec for spec in PLAN.perturbations if spec.name in ("carry", "momentum-reset")]
)

#: Two replays that agree are enough where it is no question how often.
REPLAYS = 2

#: Position of a branch among the programs that the branches' process builds: the replica is last.
BUILD = {
    name: position
    for position, name in enumerate(sorted(FEW.branch_names[1:], key="replica".__eq__), start=1)
}

Faulty = Callable[[str, str, int], Run]


@pytest.fixture
def faulty(tmp_path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch) -> Faulty:
    """Runs a study in which one branch misbehaves at one step; its replay will not."""

    def run(what: str, branch: str, step: int) -> Run:
        monkeypatch.setenv(VARIABLE, f"{what}:{BUILD[branch]}:{step}")
        try:
            return study_in_process(tmp_path / "faulty", key, FEW, FAULTY)
        finally:
            monkeypatch.delenv(VARIABLE)

    return run


# While the study runs


def test_the_faulty_program_without_its_fault_is_verified(tmp_path: Path, key: PrivateKey) -> None:
    report = check(study_in_process(tmp_path / "run", key, FEW, FAULTY))
    assert report.verdict == "verified"


@pytest.mark.parametrize(
    ("what", "component"),
    [("draw", "rng/torch"), ("batchnorm", "batchnorm"), ("weight", "params")],
)
def test_a_branch_that_was_interfered_with_parts_from_its_replay_at_the_next_boundary(
    faulty: Faulty, what: str, component: str
) -> None:
    report = check(faulty(what, "carry", 10))
    finding = first_finding(report, 8)
    assert (finding.where, finding.step, finding.component) == ("seed 0, carry", 11, component)
    told = "no nondeterminism seen in 4 replays, so the record is of something else"
    assert told in finding.message
    assert 8 in failures(report)
    assert failures(report) <= {8, 9}  # 9 where the branch is carry, which must be the control
    assert (report.exit_code, report.verdict, report.estimates) == (1, "failed", None)


def test_a_replica_that_was_interfered_with_also_fails_the_noise_floor(faulty: Faulty) -> None:
    report = check(faulty("batchnorm", "replica", 12), replays=REPLAYS)
    assert failures(report) == {8, 9}
    for number in (8, 9):
        finding = first_finding(report, number)
        assert (finding.step, finding.component) == (13, "batchnorm")


def test_a_disturbed_replica_is_seen_without_a_replay(faulty: Faulty) -> None:
    report = check_files(faulty("weight", "replica", 8))
    finding = first_finding(report, 9)
    assert (finding.step, finding.component, report.exit_code) == (9, "params", 1)


def test_other_bytes_under_the_same_indices_stop_the_branch_that_loads_them_again(
    faulty: Faulty,
) -> None:
    with pytest.raises(RestoreMismatch, match="are not the control's when they are loaded again"):
        faulty("bytes", "momentum-reset", 1)


def test_other_bytes_under_the_same_indices_are_data_drift(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A fork that holds the batches themselves: none is loaded again where the branch begins.
    monkeypatch.setattr("auditkit.study.worker.recalibration.can_load_again", lambda _: False)
    report = check(faulty("bytes", "momentum-reset", 1), replays=REPLAYS)
    for number in (6, 8):
        finding = first_finding(report, number)
        assert "data drift" in finding.message
        assert (finding.where, finding.step, finding.component) == (
            "seed 0, momentum-reset",
            7,
            "batch",
        )
    assert failures(report) == {6, 8}


def test_a_sampler_that_swaps_two_samples_in_a_branch_ends_the_study(faulty: Faulty) -> None:
    # The branch starts in the middle of epoch 1; the swap shows when epoch 2 begins.
    with pytest.raises(OrderDrift) as caught:
        faulty("swap", "carry", 1)
    assert (caught.value.step, caught.value.component) == (9, "order")


def test_a_program_that_raises_in_a_branch_ends_the_study_with_its_place(faulty: Faulty) -> None:
    with pytest.raises(ProgramFailed, match=r"step 10 raised RuntimeError: planted") as caught:
        faulty("raise", "carry", 10)
    assert (caught.value.where or "").startswith("seed 0, carry, faulty_study.py:")


# Nondeterminism


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    """A run of a program whose dropout looks at the clock from step 8 on."""
    out = tmp_path_factory.mktemp("clock") / "run"
    return study_in_process(out, key, FEW, "faulty_study.py:make_clock_program")


def test_nondeterminism_is_named_with_its_step_component_and_module(clock: Run) -> None:
    report = check(clock)
    finding = first_finding(report, 8)
    assert "nondeterminism: 2 replays disagree with each other" in finding.message
    assert "drop (ClockDropout) output" in finding.message
    assert (finding.where, finding.step, finding.component) == ("seed 0, control", 8, "loss")
    assert failures(report) == {8, 9}
    assert (report.exit_code, report.estimates) == (1, None)


def test_a_replica_replaced_by_the_control_is_given_away_by_its_replay(
    clock: Run, copied: Callable[[Run], Run]
) -> None:
    forged = copied(clock)
    forging.copy_branch(forged, "control", "replica")
    # The carry branch, which was run, still gives the program away.
    without = check_files(forged)
    assert all("carry" in str(finding.where) for finding in result_of(without, 9).findings)
    report = check(forged)
    assert 8 in failures(report)
    assert any(
        "nondeterminism" in finding.message and (finding.step, finding.component) == (8, "loss")
        for finding in result_of(report, 8).findings
    )


# Perturbations


def test_a_treatment_that_changes_more_than_it_declares_is_caught(
    tmp_path: Path, key: PrivateKey
) -> None:
    honestly = MomentumReset.apply

    def greedily(self: MomentumReset, objects: Any, parameters: Any, seed: int) -> None:
        honestly(self, objects, parameters, seed)
        objects.model.last.bias.data += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MomentumReset, "apply", greedily)
        run = study_in_process(tmp_path / "run", key, FEW)
    report = check(run, replays=REPLAYS)
    finding = first_finding(report, 7)
    assert "changed at t0 but not declared" in finding.message
    assert (finding.where, finding.step, finding.component) == (
        "seed 0, momentum-reset",
        7,
        "params",
    )
    assert first_finding(report, 8).step == 7
    assert failures(report) == {7, 8}


@pytest.mark.parametrize(
    ("kind", "branch", "component"),
    [(MomentumReset, "momentum-reset", "optimizer/momentum_buffer"), (Ulp, "placebo-0", "params")],
)
def test_a_perturbation_that_changes_nothing_is_caught(
    tmp_path: Path, key: PrivateKey, kind: Any, branch: str, component: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "apply", lambda *_: None)
        run = study_in_process(tmp_path / "run", key, FEW)
    report = check(run, replays=REPLAYS)
    finding = first_finding(report, 7)
    assert "declared but not changed at t0" in finding.message
    assert (finding.where, finding.step, finding.component) == (f"seed 0, {branch}", 7, component)
    assert failures(report) == {7, 8}
    assert report.exit_code == 1


def test_a_change_in_another_way_than_declared_is_left_to_the_replay(
    tmp_path: Path, key: PrivateKey
) -> None:
    def halve(_: MomentumReset, objects: Any, parameters: Any, seed: int) -> None:
        for state in objects.optimizer.state.values():
            state["momentum_buffer"] = state["momentum_buffer"] / 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MomentumReset, "apply", halve)
        run = study_in_process(tmp_path / "run", key, FEW)
    assert check_files(run).exit_code == 0
    report = check(run, replays=REPLAYS)
    finding = first_finding(report, 8)
    assert (finding.step, finding.component) == (7, "optimizer/momentum_buffer")
    assert failures(report) == {8}


@pytest.mark.slow
def test_a_placebo_that_is_a_copy_of_the_control_is_caught(forged: Run) -> None:
    forging.copy_branch(forged, "control", "placebo-0")
    report = check(forged, replays=REPLAYS)
    finding = first_finding(report, 7)
    assert "declared but not changed at t0" in finding.message
    assert (finding.where, finding.step, finding.component) == ("seed 0, placebo-0", 7, "params")
    assert failures(report) == {7, 8}


def test_what_adam_reset_may_only_clear_it_may_not_set(tmp_path: Path, key: PrivateKey) -> None:
    honestly = AdamReset.apply

    def greedily(self: AdamReset, objects: Any, parameters: Any, seed: int) -> None:
        honestly(self, objects, parameters, seed)
        objects.optimizer.state[objects.model.last.bias]["mine"] = torch.ones(3)

    plan = PLAN.with_perturbations([PerturbationSpec("adam-reset")])
    for apply, caught in ((honestly, False), (greedily, True)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AdamReset, "apply", apply)
            run = study_in_process(
                tmp_path / str(caught), key, plan, arguments={"optimizer": "adam"}
            )
        report = check_files(run)
        assert failures(report) == ({7} if caught else set())
    finding = first_finding(report, 7)
    assert "may only be cleared" in finding.message
    assert (finding.where, finding.component) == (
        "seed 0, adam-reset--moments-mv--step-reset",
        "optimizer/mine",
    )


@pytest.mark.slow
def test_a_treatment_that_is_another_branch_is_caught(forged: Run) -> None:
    forging.copy_branch(forged, "placebo-0", "carry")
    report = check(forged, replays=REPLAYS)
    finding = first_finding(report, 7)
    assert "changed at t0 but not declared" in finding.message
    assert (finding.where, finding.component) == ("seed 0, carry", "params")
    assert {7, 8} <= failures(report)


# Files, edited and signed again


def test_an_optimizer_slot_edited_in_the_snapshot_is_caught_by_replay_alone(forged: Run) -> None:
    def double(slot: np.ndarray[Any, Any]) -> None:
        slot *= 2

    forging.edit_fork(forged, "optimizer/momentum_buffer", "last.weight", double)
    assert check_files(forged).exit_code == 0
    report = check(forged, replays=REPLAYS)
    finding = first_finding(report, 8)
    assert (finding.where, finding.step, finding.component) == (
        "seed 0, trunk",
        7,
        "optimizer/momentum_buffer",
    )
    assert failures(report) == {8}
    assert (report.exit_code, report.estimates) == (1, None)


def test_a_swapped_pair_of_samples_in_the_recorded_order_is_caught(forged: Run) -> None:
    def swap(batches: list[Batch]) -> None:
        batches[2][[0, 1]] = batches[2][[1, 0]]

    forging.edit_order(forged, swap)
    assert check_files(forged).exit_code == 0
    report = check(forged, replays=REPLAYS)
    finding = first_finding(report, 8)
    assert "order drift" in finding.message
    assert (finding.where, finding.step, finding.component) == ("seed 0, trunk", 3, "order")
    assert failures(report) == {8}


def test_a_swap_in_the_control_alone_is_seen_in_the_order(forged: Run) -> None:
    def swap(arrays: forging.Arrays) -> None:
        arrays["order"][10, [0, 1]] = arrays["order"][10, [1, 0]]

    forging.edit_tensors(forged, "seed-0000/order.safetensors", swap)
    report = check_files(forged)
    found = {(finding.step, finding.component) for finding in result_of(report, 6).findings}
    assert (11, "order") in found
    assert failures(report) == {6}


@pytest.mark.slow
def test_an_edited_outcome_table_is_caught_by_replay(forged: Run) -> None:
    forging.edit_outcome(forged, "momentum-reset", "T", forging.flatter)
    assert check_files(forged).exit_code == 0
    report = check(forged, replays=REPLAYS)
    finding = first_finding(report, 8)
    assert (finding.where, finding.component) == ("seed 0, momentum-reset", "T")
    assert "outcome" in finding.message
    assert failures(report) == {8}


def test_an_edited_trace_row_is_caught_by_replay(forged: Run) -> None:
    forging.edit_trace(forged, "momentum-reset", 12, "params")
    assert check_files(forged).exit_code == 0
    report = check(forged, replays=REPLAYS)
    finding = first_finding(report, 8)
    assert (finding.where, finding.step, finding.component) == (
        "seed 0, momentum-reset",
        12,
        "params",
    )
    assert failures(report) == {8}
    assert report.exit_code == 1


def test_an_edited_first_row_contradicts_its_commitment(forged: Run) -> None:
    forging.edit_trace(forged, "carry", 7, "params")
    finding = first_finding(check_files(forged), 7)
    assert (finding.where, finding.step, finding.component) == ("seed 0, carry", 7, "params")


def test_an_edited_replica_row_fails_the_noise_floor(forged: Run) -> None:
    forging.edit_trace(forged, "replica", 12, "params")
    report = check_files(forged)
    finding = first_finding(report, 9)
    assert (finding.step, finding.component) == (12, "params")
    assert failures(report) == {9}


@pytest.mark.slow
def test_a_loss_that_was_edited_is_caught_by_replay(forged: Run) -> None:
    def edit(arrays: forging.Arrays) -> None:
        arrays["loss_bits"][3] ^= 1

    forging.edit_tensors(forged, forging.trace_name(forged, "carry"), edit)
    finding = first_finding(check(forged, replays=REPLAYS), 8)
    assert (finding.where, finding.step, finding.component) == ("seed 0, carry", 10, "loss")
