"""A branch that is restored from the snapshot goes on as the control did, to the last bit; a
replay gives the record; a study that is honest is verified, always.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Author
from studies import (
    PROGRAMS,
    TINY,
    InProcessWorkers,
    Run,
    check,
    findings_text,
    result_of,
)

from auditkit.files import store
from auditkit.formats.run_files import Outcome, outcome_from_tensors, trace_from_tensors
from auditkit.records.evidence import Trace
from auditkit.records.job import Job, ProgramSource
from auditkit.records.manifest import TIMES, BranchRecord
from auditkit.records.plan import StudyPlan
from auditkit.records.results import BranchesResult, TrunkResult

#: Replica and carry, which must equal the control, and a placebo, which must not.
EQUAL = StudyPlan(fork_at=6, window=3, horizon=12, seeds=[0], perturbations=["carry"], placebos=1)


def replace_plan(**changes: int | str) -> StudyPlan:
    """That plan with other numbers."""
    held = {field.name: getattr(EQUAL, field.name) for field in fields(EQUAL)}
    return StudyPlan(**{**held, **changes})


@dataclass(frozen=True)
class Held:
    """A seed's branches as two jobs left them."""

    folder: Path
    trunk: TrunkResult
    branches: Mapping[str, BranchRecord]

    def trace(self, name: str) -> Trace:
        path = self.folder / f"{name}.trace.safetensors"
        return trace_from_tensors(store.read_tensors(path, what=name)[0], what=name)

    def outcome(self, name: str) -> Outcome:
        path = self.folder / f"{name}.outcome.safetensors"
        return outcome_from_tensors(store.read_tensors(path, what=name)[0], what=name)


def hold(folder: Path, plan: StudyPlan, given: Path | None = None, /, **arguments: str) -> Held:
    """Run trunk and branches; the branches from the fork in ``given`` where it is named."""
    workers = InProcessWorkers()
    folder.mkdir()
    fork = given or folder
    job = Job("trunk", ProgramSource(TINY, str(PROGRAMS), arguments), plan, 0, str(folder))
    trunk: TrunkResult = workers.run(job)
    done: BranchesResult = workers.run(
        replace(
            job,
            kind="branches",
            fork=str(fork / "fork.safetensors"),
            order=str(fork / "order.safetensors"),
            branches=plan.branch_names[1:],
        )
    )
    return Held(folder, trunk, {record.name: record for record in done.branches})


def assert_equal(left: Held, here: str, right: Held, there: str) -> None:
    """Two branches are equal at every step and in every outcome."""
    assert left.trace(here).first_difference(right.trace(there)) is None
    tables = left.outcome(here).tables
    for name, table in right.outcome(there).tables.items():
        assert tables[name].tobytes() == table.tobytes(), name


def assert_exact(tmp_path: Path, plan: StudyPlan = EQUAL, **arguments: str) -> Held:
    """Replica and carry equal the control, the placebo does not, and all equal their replay."""
    record = hold(tmp_path / "record", plan, **arguments)
    for name in ("replica", "carry"):
        assert_equal(record, "control", record, name)
        assert record.branches[name].digests == record.trunk.control.digests
    placebo = record.trace("placebo-0").first_difference(record.trace("control"))
    assert placebo is not None
    assert placebo.step == plan.fork_at + 1
    again = hold(tmp_path / "again", plan, tmp_path / "record", **arguments)
    for name in ("trunk", *plan.branch_names):
        assert again.trace(name).first_difference(record.trace(name)) is None
    for name in plan.branch_names:
        assert_equal(record, name, again, name)
    for file in ("fork", "order"):
        name = f"{file}.safetensors"
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "record" / name).read_bytes()
    assert again.trunk.rng == record.trunk.rng
    return record


# Job by job


@pytest.mark.parametrize("part", ["batchnorm", "dropout", "ema", "scheduler"])
@pytest.mark.parametrize(
    ("optimizer", "workers"),
    [
        ("sgd", "0"),
        ("adam", "0"),
        ("adamw", "0"),
        # What a loader's workers do hangs on no optimizer: the study with everything has two.
        pytest.param("sgd", "2", marks=pytest.mark.slow),
        pytest.param("adam", "2", marks=pytest.mark.slow),
        pytest.param("adamw", "2", marks=pytest.mark.slow),
    ],
)
def test_replica_equals_control_and_replay_equals_record(
    tmp_path: Path, optimizer: str, part: str, workers: str
) -> None:
    arguments = {"scheduler": "step"} if part == "scheduler" else {"parts": part}
    # Starting loader workers is what takes time: with them, one epoch less.
    plan = replace_plan(horizon=10) if workers == "0" else replace_plan(horizon=8, window=2)
    chosen = {"parts": "none", **arguments, "optimizer": optimizer, "workers": workers}
    record = assert_exact(tmp_path, plan, **chosen)
    component = {"batchnorm": "batchnorm", "ema": "averaged/ema", "scheduler": "scheduler"}
    assert component.get(part, "rng/torch") in record.trunk.components


@pytest.mark.parametrize("fork_at", [7, 8], ids=["in mid-accumulation", "after an update"])
def test_accumulated_gradients_are_part_of_the_fork(tmp_path: Path, fork_at: int) -> None:
    record = assert_exact(tmp_path, replace_plan(fork_at=fork_at), accumulate="2")
    assert ("grad" in record.trunk.fork_digests) == (fork_at % 2 == 1)


def test_a_gradient_scaler_is_part_of_the_fork(tmp_path: Path) -> None:
    record = assert_exact(tmp_path, parts="batchnorm+scaler", optimizer="adamw")
    trace = record.trace("control")
    assert trace.cell(7, "scaler") != trace.cell(9, "scaler")  # it grew every second step


@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_iterable_dataset_is_resumed_exactly(tmp_path: Path, workers: str) -> None:
    assert_exact(tmp_path, data="iterable", workers=workers)


@pytest.mark.parametrize("data", ["map", "iterable"])
@pytest.mark.parametrize("workers", ["0", "2"])
def test_inherited_augmentation_is_resumed_exactly(tmp_path: Path, workers: str, data: str) -> None:
    plan = replace_plan(augmentation_rng="inherit")
    assert_exact(tmp_path, plan, workers=workers, data=data)


@pytest.mark.parametrize("augmentation", ["per-sample", "inherit"])
@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_a_fork_at_the_end_of_an_epoch_is_exact(
    tmp_path: Path, workers: str, augmentation: str
) -> None:
    plan = replace_plan(fork_at=8, augmentation_rng=augmentation)
    assert_exact(tmp_path, plan, workers=workers, scheduler="epoch")


def test_a_scheduler_that_steps_once_an_epoch_is_exact(tmp_path: Path) -> None:
    record = assert_exact(tmp_path, scheduler="epoch")
    trace = record.trace("control")
    assert trace.cell(7, "scheduler") == trace.cell(8, "scheduler")
    assert trace.cell(8, "scheduler") != trace.cell(9, "scheduler")


@pytest.mark.parametrize("horizon", [9, 8], ids=["in mid-epoch", "at the end of an epoch"])
def test_a_window_that_ends_at_the_horizon_is_exact(tmp_path: Path, horizon: int) -> None:
    plan = replace_plan(horizon=horizon, window=horizon - EQUAL.fork_at)
    record = assert_exact(tmp_path, plan)
    digests = record.trunk.control.digests
    assert set(digests) == set(TIMES)
    assert digests["t0+W"] == digests["T"]


def test_a_fork_after_the_first_step_is_exact(tmp_path: Path) -> None:
    assert_exact(tmp_path, replace_plan(fork_at=1))


def test_workers_change_no_bit_under_per_sample_streams(tmp_path: Path) -> None:
    alone, helped = (hold(tmp_path / n, EQUAL, workers=n) for n in ("0", "2"))
    for name in ("trunk", *EQUAL.branch_names):
        assert alone.trace(name).first_difference(helped.trace(name)) is None


# What known perturbations do


def test_batchnorm_reset_leaves_the_parameters_and_the_recalibrated_outcomes_alone(
    honest: Run,
) -> None:
    manifest = honest.manifest
    for record in manifest.seeds:
        folder = honest.folder / f"seed-{record.seed:04d}"
        held = Held(folder, None, {})  # type: ignore[arg-type] # only its files are read
        control, reset = held.trace("control"), held.trace("batchnorm-reset")
        for step in range(manifest.plan.fork_at + 1, manifest.plan.horizon + 2):
            assert control.cell(step, "params") == reset.cell(step, "params")
            assert control.cell(step, "batchnorm") != reset.cell(step, "batchnorm")
        here, there = held.outcome("control").tables, held.outcome("batchnorm-reset").tables
        for time in TIMES:
            recalibrated = f"{time}/recalibrated"
            assert here[recalibrated].tobytes() == there[recalibrated].tobytes()
            assert np.any(here[time] != there[time])


def test_carry_and_recalibrated_batchnorm_reset_are_exactly_zero_in_the_estimates(
    honest: Run,
) -> None:
    estimates = check(honest).estimates
    assert estimates is not None
    exact = {(row.perturbation, row.variant) for row in estimates.rows if row.exactly_zero}
    carry = [row for row in estimates.rows if row.perturbation == "carry"]
    assert carry
    assert all(row.exactly_zero for row in carry)
    assert exact == {
        ("carry", "as-is"),
        ("carry", "recalibrated"),
        ("batchnorm-reset", "recalibrated"),
    }


# Through real processes


def test_a_study_with_everything_is_verified_in_fresh_processes(
    author: Author, all_in_one: Run
) -> None:
    done = author.auditkit("verify", str(all_in_one.path), "--json", "-")
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"verdict":"verified"' in done.stdout


def test_an_honest_study_is_verified_in_fresh_processes(honest: Run) -> None:
    report = check(honest, fresh=True, jobs=2)
    assert (report.verdict, report.exit_code) == ("verified", 0), findings_text(report)
    assert all(result.status == "passed" for result in report.checks)
    assert result_of(report, 8).summary == "all 12 branches and 2 trunks"
    assert report.environment_differences == ()


VARIANTS = [
    (optimizer, parts, workers, accumulate)
    for optimizer, workers in (("sgd", "0"), ("adam", "2"), ("adamw", "0"), ("sgd", "2"))
    for parts, accumulate in (
        ("batchnorm+dropout", "1"),
        ("dropout+ema", "2"),
        ("batchnorm+scaler", "1"),
        ("batchnorm+dropout+ema+scaler", "2"),
        ("none", "1"),
    )
]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_twenty_honest_studies_give_no_false_alarm(author: Author, number: int) -> None:
    optimizer, parts, workers, accumulate = VARIANTS[number]
    reset = "momentum-reset" if optimizer == "sgd" else "adam-reset"
    run = author.study(
        f"honest-{number}",
        *("--arg", f"optimizer={optimizer}", "--arg", f"parts={parts}"),
        *("--arg", f"workers={workers}", "--arg", f"accumulate={accumulate}"),
        *("--seeds", str(100 + number), "--perturb", reset, "--perturb", "order-swap"),
    )
    done = author.auditkit("verify", str(run.path))
    assert done.returncode == 0, done.stdout + done.stderr
