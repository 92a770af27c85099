from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fork_server import GroupResult
from frameworks import manifest_of
from process_groups import (
    SCRIPT,
    Job,
    Jobs,
    check_equal,
    content,
    everywhere,
    go_on,
    is_over,
    running_jobs,
)
from torch.utils.data import DataLoader, TensorDataset

from auditkit.errors import PlanError, RecorderMisuse, StoreError
from auditkit.recorder.recorder import Recorder
from auditkit.records.evidence import is_consumed

#: Steps in an epoch of a process, by how many processes there are.
PER_EPOCH = {2: 6, 3: 4}

#: Three processes show what two do.
SIZES = [pytest.param(2, marks=pytest.mark.slow), 3]

#: How a process ends, and where: of 4 steps, so that at 5 the last has been taken.
ENDS = [
    ("--exit", "1:3"),
    ("--raise", "0:5"),
    *(pytest.param("--exit", where, marks=pytest.mark.slow) for where in ("0:3", "0:5", "1:5")),
    *(pytest.param("--raise", where, marks=pytest.mark.slow) for where in ("0:3", "1:3", "1:5")),
]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with running_jobs(tmp_path_factory.mktemp("jobs")) as found:
        yield found


# Recording


@pytest.mark.parametrize("size", SIZES)
def test_recording_changes_no_bit_of_any_process(jobs: Jobs, size: int) -> None:
    assert jobs.whole(size).results() == jobs.whole(size, "--plain").results()


@pytest.mark.parametrize("size", SIZES)
def test_every_process_is_in_the_manifest_and_verify_accepts_it(jobs: Jobs, size: int) -> None:
    job = jobs.whole(size)
    manifest = manifest_of(job.out)
    assert [rank.rank for rank in manifest.ranks] == list(range(size))
    assert {rank.steps for rank in manifest.ranks} == {3 * PER_EPOCH[size]}
    assert (manifest.world.size, manifest.world.backend) == (size, "gloo")
    assert manifest.world.settings["broadcast_buffers"] == "1"
    assert len(manifest.world.settings["rebuilt_bucket_sizes"].split(",")) > 1
    report = jobs.check(job)
    assert (report.exit_code, report.verdict) == (0, "integrity-only")
    assert not [warning for check in report.checks for warning in check.warnings]


def test_what_processes_share_is_equal_and_what_is_their_own_is_not(jobs: Jobs) -> None:
    one, other = jobs.whole(2).traces
    differ = {
        name
        for name in set(one.columns) | set(other.columns)
        if one.first_unequal(other, name, 2, one.last_step + 2) is not None
    }
    assert {"batchnorm", "rng/torch", "rng/numpy", "rng/python"} == {
        name for name in differ if not is_consumed(name)
    }
    assert {"order", "batch"} <= differ
    records = manifest_of(jobs.whole(2).out).ranks
    assert records[0].order_sha256 != records[1].order_sha256


def test_only_rank_0_keeps_the_code(jobs: Jobs) -> None:
    manifest = manifest_of(jobs.whole(2).out)
    assert [file.name for file in manifest.files if file.role == "code"] == ["code/ddp_loop.py"]
    assert not (jobs.whole(2).out / "rank-0001" / "code").exists()


def test_a_process_that_falls_out_of_step_is_found(jobs: Jobs) -> None:
    job = jobs.run("drift", 3, "--drift", "1:5")
    report = jobs.check(job)
    assert report.exit_code == 1
    (found,) = next(check.findings for check in report.checks if check.number == 4)
    assert (found.where, found.step, found.component) == ("rank 1", 6, "params")
    assert found.message == "the state is not that of rank 0"


def test_the_group_may_be_destroyed_before_the_end_of_the_recording(jobs: Jobs) -> None:
    job = jobs.run("destroy", 2, "--destroy", "--epochs", 1)
    assert job.ended.codes == [0, 0]
    assert jobs.check(job).exit_code == 0


# Going on after a kill


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("place", "after"), [("in the first epoch", -3), ("later", 3), ("at an epoch's end", 0)]
)
def test_going_on_after_a_kill_is_exact(jobs: Jobs, size: int, place: str, after: int) -> None:
    step = PER_EPOCH[size] + after
    name = f"killed {place} {size}"
    job = go_on(jobs, name, size, everywhere(size, step + 3), "--every", step)
    check_equal(jobs, job, jobs.whole(size), (step,))


@pytest.mark.parametrize("size", SIZES)
def test_a_kill_between_two_processes_checkpoints_goes_on_from_one_that_all_have(
    jobs: Jobs, size: int
) -> None:
    # Rank 1 has taken step 5 and dies before the checkpoint after it 6; the others have that one.
    options = ("--every", 2, "--keep", 1)
    kill = f"{everywhere(size, 7)},1:6".replace("1:7,", "").replace(",1:7", "")
    job = go_on(jobs, f"torn {size}", size, kill, *options)
    check_equal(jobs, job, jobs.whole(size), (2,))  # one row follows the later one, too few
    steps = [[taken.step for taken in rank.checkpoints] for rank in manifest_of(job.out).ranks]
    assert {len(taken) for taken in steps} == {2}


def test_going_on_is_exact_with_accumulation_and_evaluation(jobs: Jobs) -> None:
    options = ("--accumulate", "--evaluate")
    for step in (3, 4):  # within an accumulation; and where an epoch begins, after an evaluation
        name = f"accumulated {step}"
        job = go_on(jobs, name, 3, everywhere(3, step + 2), "--every", step, *options)
        check_equal(jobs, job, jobs.whole(3, *options), (step,))


def test_a_loaders_worker_that_outlives_its_process_does_not_lock_the_folder(jobs: Jobs) -> None:
    options = ("--workers", 1, "--epochs", 1)
    job = go_on(jobs, "orphans", 2, everywhere(2, 4), "--every", 2, *options)
    check_equal(jobs, job, jobs.whole(2, *options), (2,))


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--rounds",), ("--workers", 1), ("--rounds", "--evaluate")])
@pytest.mark.parametrize("size", PER_EPOCH)
def test_going_on_is_exact_in_other_loops(
    jobs: Jobs, size: int, options: tuple[object, ...]
) -> None:
    step = PER_EPOCH[size] + 1
    whole = jobs.whole(size, *options)
    job = go_on(
        jobs, f"other {size} {options}", size, everywhere(size, step + 2), "--every", step, *options
    )
    check_equal(jobs, job, whole, (step,))


@pytest.mark.slow
@pytest.mark.parametrize("size", PER_EPOCH)
def test_a_job_that_is_killed_twice_is_exact(jobs: Jobs, size: int) -> None:
    name, options = f"twice {size}", ("--every", 3)
    jobs.run(name, size, "--kill", everywhere(size, 5), *options)
    jobs.run(name, size, "--resume", "--kill", everywhere(size, 8), *options)
    job = jobs.run(name, size, "--resume", *options)
    check_equal(jobs, job, jobs.whole(size), (3, 3))


def test_a_kill_before_the_first_checkpoint_begins_anew(jobs: Jobs) -> None:
    job = go_on(jobs, "anew", 2, "0:5,1:4", "--every", 4)  # rank 0 has a checkpoint, rank 1 none
    check_equal(jobs, job, jobs.whole(2), ())


def test_a_lost_folder_does_not_cost_the_other_processes_their_checkpoints(jobs: Jobs) -> None:
    killed = jobs.run("lost", 2, "--kill", everywhere(2, 6), "--every", 2)
    (killed.out / "rank-0001").rename(jobs.folder / "kept")
    for _ in range(2):
        job = jobs.run("lost", 2, "--resume", "--every", 2)
        assert job.ended.codes == [1, 1]
        for text in job.ended.texts:
            assert "no checkpoint that every process has" in text
            assert "after steps 4, 0 by rank" in text
    shutil.rmtree(killed.out / "rank-0001")
    (jobs.folder / "kept").rename(killed.out / "rank-0001")
    job = jobs.run("lost", 2, "--resume", "--every", 2)
    check_equal(jobs, job, jobs.whole(2), (2,))


def test_a_resume_that_goes_wrong_in_one_process_is_refused_in_all(jobs: Jobs) -> None:
    killed = jobs.run("wrong", 2, "--kill", everywhere(2, 8), "--every", 3)
    before = content(killed.out)
    job = jobs.run("wrong", 2, "--resume", "--every", 3, "--drift", "1:5")
    assert all(job.ended.codes)
    said = " ".join(job.ended.texts[1].split())
    assert "ResumeMismatch: step 6" in said, said
    assert "this loop, which goes on after step 3, gives another" in said
    assert "params" in said
    assert content(killed.out) == before
    check_equal(jobs, jobs.run("wrong", 2, "--resume", "--every", 3), jobs.whole(2), (3,))


def test_a_resume_that_has_no_rows_begins_anew_in_every_process(jobs: Jobs) -> None:
    job = go_on(jobs, "no rows", 2, everywhere(2, 5), "--every", 4)
    check_equal(jobs, job, jobs.whole(2), ())


def test_an_unfinished_recording_is_of_its_number_of_processes(jobs: Jobs) -> None:
    jobs.run("sizes", 3, "--kill", everywhere(3, 4), "--every", 2)
    for size in (2, 1):
        other = jobs.run("sizes", size, "--resume")
        assert other.ended.codes == [1] * size
        assert "another number of processes (expected 3" in other.ended.texts[0]


# Processes that fail


@pytest.mark.parametrize(("end", "where"), ENDS)
def test_a_process_that_ends_takes_the_recording_with_it(jobs: Jobs, end: str, where: str) -> None:
    job = jobs.run(f"dies {end} {where}", 3, end, where, "--epochs", 1)
    assert not is_over(job)
    told = [
        code or "RecordingStopped: the recording stopped at step 5" in text
        for code, text in zip(job.ended.codes, job.ended.texts, strict=True)
    ]
    assert all(told)
    assert job.ended.seconds < 20  # patience is 30


def test_a_process_that_cannot_write_stops_the_recording_and_no_training(jobs: Jobs) -> None:
    job = jobs.run("full", 3, "--full", "1:2", "--every", 2)
    assert job.ended.codes == [0, 0, 0]
    assert not is_over(job)
    assert job.results() == jobs.whole(3).results()
    assert "cannot make the folder" in job.ended.texts[1]
    for rank in (0, 2):
        assert "rank 1 does not go on" in job.ended.texts[rank]


def test_what_fails_in_one_process_at_the_start_fails_in_all(jobs: Jobs) -> None:
    job = jobs.run("nokey", 3, "--nokey", 0)
    assert job.ended.codes == [1, 1, 1]
    assert "KeyFileError" in job.ended.texts[0]
    for rank in (1, 2):
        assert "RecordingIncomplete" in job.ended.texts[rank]
        assert "cannot read the key: rank 0 does not go on" in job.ended.texts[rank]


def test_a_wrap_that_only_one_process_calls_ends_with_an_error(jobs: Jobs) -> None:
    job = jobs.run("alone", 2, "--only", 0, "--patience", 2)
    assert all(job.ended.codes)
    assert "every process must call wrap" in job.ended.texts[0]


def test_processes_that_share_no_folder_are_told_before_they_train(jobs: Jobs) -> None:
    job = jobs.run("apart", 2, "--elsewhere", 1, "--patience", 2)
    assert job.ended.codes == [1, 1]
    assert "rank 1 writes elsewhere" in job.ended.texts[0]


@pytest.mark.parametrize("kind", ["fsdp1", "zero"])
def test_sharded_objects_are_refused(jobs: Jobs, kind: str) -> None:
    job = jobs.run(f"sharded {kind}", 2, "--sharded", kind)
    assert job.ended.codes == [1, 1]
    for text in job.ended.texts:
        assert "RecorderMisuse" in text
        assert "fully_shard (FSDP2) of the model" in text


# In one process


def wrap_a_net(out: Path) -> Recorder:
    """Wrap the smallest loop there is."""
    net = torch.nn.Linear(2, 1)
    recorder = Recorder(out)
    recorder.wrap(
        net,
        torch.optim.SGD(net.parameters(), lr=0.1),
        DataLoader(TensorDataset(torch.zeros(4, 2))),
    )
    return recorder


def test_wrap_before_the_processes_are_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(RecorderMisuse, match=r"rank 2: WORLD_SIZE is 4.*init_process_group"):
        wrap_a_net(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_world_of_one_needs_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for size in ("1", "", "many"):
        monkeypatch.setenv("WORLD_SIZE", size)
        with pytest.warns(UserWarning, match="no step was recorded"):
            wrap_a_net(tmp_path / f"run-{size}").close()


def test_two_processes_that_both_take_themselves_for_rank_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    first = wrap_a_net(tmp_path / "run")
    with pytest.raises(StoreError, match="another process is writing here"):
        wrap_a_net(tmp_path / "run")
    with pytest.warns(UserWarning, match="no step was recorded"):
        first.close()


@pytest.mark.parametrize("patience", [0, -1, float("nan"), float("inf")])
def test_patience_is_a_time(tmp_path: Path, patience: float) -> None:
    with pytest.raises(PlanError, match="patience"):
        Recorder(tmp_path / "run", patience=patience)


@pytest.mark.slow
def test_torchrun(jobs: Jobs) -> None:
    out, result = jobs.folder / "torchrun", jobs.folder / "torchrun-result"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", SCRIPT, "--out", out, "--result", result),
        ],
        env={**os.environ, **jobs.variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    job = Job(out, result, GroupResult([0, 0], ["", ""], 0.0))
    assert job.results() == jobs.whole(2).results()
    assert job.traces == jobs.whole(2).traces
    assert jobs.check(job).exit_code == 0
