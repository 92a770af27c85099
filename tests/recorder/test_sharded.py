"""Loops whose model is sharded by ``fully_shard``, over gloo."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Iterator

import pytest
from documents import PAGES, blocks
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

from auditkit.diagnose.run_difference import compare_runs
from auditkit.errors import UsageError
from auditkit.formats.chunk_digests import digest_parts, parts_of
from auditkit.recorder.closing import close_recording
from auditkit.records.recording import RecordingManifest
from auditkit.records.tensor import RawTensor
from auditkit.signing.trust import signing_key

FSDP = ("--sharded", "fsdp")
SHARDED = ("optimizer/exp_avg", "optimizer/exp_avg_sq", "params")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    modules = ("torch.distributed.fsdp", "torch.distributed.tensor")
    with running_jobs(tmp_path_factory.mktemp("jobs"), *modules) as found:
        yield found


def whole(jobs: Jobs, size: int = 2) -> Job:
    return jobs.whole(size, *FSDP, "--every", 4, "--epochs", 2)


def digests(manifest: RecordingManifest) -> dict[int, dict[str, str]]:
    return {state.step: state.digests for state in manifest.sharded}


def test_recording_changes_no_bit_of_a_sharded_loop(jobs: Jobs) -> None:
    assert whole(jobs).results() == jobs.whole(2, *FSDP, "--plain", "--epochs", 2).results()


def test_every_process_records_what_it_holds_and_verify_accepts_it(jobs: Jobs) -> None:
    manifest = manifest_of(whole(jobs).out)
    assert [rank.sharded for rank in manifest.ranks] == [SHARDED, SHARDED]
    one, other = manifest.ranks
    assert one.final["params"] != other.final["params"]
    assert one.final["optimizer/step"] == other.final["optimizer/step"]
    assert list(digests(manifest)) == [0, 4, 8, 12]
    assert {tuple(state) for step, state in digests(manifest).items() if step} == {SHARDED}
    assert manifest.world.settings["fully_shard"] == "mesh (2,), S(0)"
    report = jobs.check(whole(jobs))
    assert (report.exit_code, report.verdict) == (0, "integrity-only"), report.checks


def test_the_example_of_the_manual_runs(jobs: Jobs) -> None:
    (example,) = (block for block in blocks(PAGES["loop"], "python") if "fully_shard(" in block)
    out, script = jobs.folder / "sharded", jobs.folder / "train.py"
    script.write_text(example.replace("runs/sharded", str(out)))
    ended = jobs.forks.run(2, script)
    assert ended.codes == [0, 0], ended.texts
    assert list(digests(manifest_of(out))) == [0, 4, 8]
    assert jobs.check(Job(out, out, ended)).exit_code == 0


def test_a_digest_of_the_whole_does_not_hang_on_the_number_of_processes(jobs: Jobs) -> None:
    two, three = (manifest_of(whole(jobs, size).out) for size in (2, 3))
    assert digests(two)[0] == digests(three)[0]
    assert two.ranks[0].initial["params"] != three.ranks[0].initial["params"]


# Going on after a kill


def test_going_on_after_a_kill_is_exact(jobs: Jobs) -> None:
    options = (*FSDP, "--every", 4, "--epochs", 2)
    job = go_on(jobs, "killed", 2, everywhere(2, 7), *options)
    check_equal(jobs, job, whole(jobs), (4,))
    resumed, begun = manifest_of(job.out), manifest_of(whole(jobs).out)
    assert resumed.sharded == begun.sharded


@pytest.mark.slow
def test_a_fault_planted_in_what_one_process_holds_is_caught(jobs: Jobs) -> None:
    options = (*FSDP, "--every", 4, "--epochs", 2)
    killed = jobs.run("fault", 2, "--kill", everywhere(2, 8), *options)
    before = content(killed.out)
    job = jobs.run("fault", 2, "--resume", "--drift", "1:6", *options)
    assert all(job.ended.codes)
    assert "ResumeMismatch: step 7" in " ".join(job.ended.texts[1].split())
    assert content(killed.out) == before


@pytest.mark.slow
def test_another_number_of_processes_or_other_layers_are_refused(jobs: Jobs) -> None:
    options = (*FSDP, "--every", 4, "--epochs", 2)
    killed = jobs.run("others", 2, "--kill", everywhere(2, 7), *options)
    for size in (3, 1):
        job = jobs.run("others", size, "--resume", *options)
        assert job.ended.codes == [1] * size
        assert "another number of processes (expected 2" in job.ended.texts[0]
    before = content(killed.out)
    for kind, message in [
        ("fsdp-whole", "fully_shard layers: the model, 4, 6, now the model"),
        (None, "fully_shard: mesh (2,), S(0), now not applied"),
    ]:
        sharded = ("--sharded", kind) if kind else ()
        job = jobs.run("others", 2, "--resume", *sharded, *options[2:])
        assert job.ended.codes == [1, 1]
        assert f"ran under other settings: {message}" in " ".join(job.ended.texts[0].split())
    assert content(killed.out) == before


# Reading checkpoints elsewhere


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_torch_reads_a_checkpoint_of_all_ranks_in_one_process(jobs: Jobs) -> None:
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_loader import load  # takes a second

    from auditkit.integrations.dcp import CheckpointReader

    job = whole(jobs)
    manifest = manifest_of(job.out)
    model = runpy.run_path(str(SCRIPT))["make_model"]()
    state = {f"params/{name}": one.detach() for name, one in model.named_parameters()}
    reader = CheckpointReader(job.out / "manifest.json", 8)
    load(state, storage_reader=reader, no_dist=True)
    entries = {
        name: RawTensor("float32", tuple(one.shape), one.detach().numpy().tobytes())
        for name, one in model.named_parameters()
    }
    read = digest_parts([parts_of(entries, {}, "params")], "params").hex()
    assert read == digests(manifest)[8]["params"]
    assert CheckpointReader(job.out / "manifest.json").step == 8
    with pytest.raises(UsageError, match=r"no such checkpoint \(expected one after step 4, 8"):
        CheckpointReader(job.out / "manifest.json", 5)
    damaged = job.out.with_name("damaged")
    shutil.copytree(job.out, damaged)
    file = damaged / "rank-0001" / "checkpoint-00000008.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointException, match="another SHA-256"):
        load(state, storage_reader=CheckpointReader(damaged / "manifest.json", 8), no_dist=True)


# What fully_shard does between two batches


@pytest.mark.slow
def test_parameters_that_stay_whole_after_an_evaluation(jobs: Jobs) -> None:
    options = (*FSDP, "--evaluate", "--epochs", 2)
    evaluated = jobs.whole(2, *options, "--every", 6)
    assert evaluated.results() == jobs.whole(2, *options, "--plain").results()
    job = go_on(jobs, "evaluated", 2, everywhere(2, 10), *options, "--every", 6)
    check_equal(jobs, job, evaluated, (6,))


def test_gradients_that_wait_to_be_synchronised_are_refused(jobs: Jobs) -> None:
    job = jobs.run("accumulated", 2, *FSDP, "--accumulate", "--epochs", 1)
    assert job.ended.codes == [0, 0]
    assert not is_over(job)
    for text in job.ended.texts:
        said = " ".join(text.split())
        assert "the recording stopped at step 2: grad: gradients wait to be synchronised" in said


# Processes that fail


@pytest.mark.slow
def test_a_process_that_dies_ends_the_recording_which_can_be_gone_on_with(jobs: Jobs) -> None:
    options = (*FSDP, "--every", 4, "--epochs", 2)
    dead = jobs.run("dead", 2, "--exit", "1:7", *options)
    assert dead.ended.codes[1] == 3
    assert not is_over(dead)
    assert dead.ended.seconds < 30  # patience
    check_equal(jobs, jobs.run("dead", 2, "--resume", *options), whole(jobs), (4,))


def test_a_tensor_split_by_columns_is_refused(jobs: Jobs) -> None:
    job = jobs.run("columns", 2, "--sharded", "fsdp-columns")
    assert job.ended.codes == [1, 1]
    for text in job.ended.texts:
        assert "4.weight is a DTensor, and it is split along dimension 1" in " ".join(text.split())


@pytest.mark.slow
def test_what_dead_processes_have_left_is_closed_and_verifies(jobs: Jobs) -> None:
    dead = jobs.run("closed", 2, *FSDP, "--every", 4, "--epochs", 2, "--kill", everywhere(2, 7))
    manifest = close_recording(dead.out, signing_key(None, jobs.variables))
    assert {rank.sharded for rank in manifest.ranks} == {SHARDED}
    recorded = digests(manifest_of(whole(jobs).out))
    assert digests(manifest) == {step: recorded[step] for step in (0, 4)}
    assert jobs.check(dead).exit_code == 0


# Other ways to look at it


def test_two_numbers_of_processes_are_compared_by_what_is_whole(jobs: Jobs) -> None:
    two, three = (whole(jobs, size).out for size in (2, 3))
    found = compare_runs(str(two), str(three))
    named = {name for trace in found.traces for name in trace.first_steps}
    assert named
    assert not named & set(SHARDED)
    measured = [trace.distance for trace in found.traces if trace.distance is not None]
    apart = {one.component for distance in measured for one in distance.components}
    assert not apart & {*SHARDED, "sharding"}
    differing = {field.name for field in found.fields if field.section == "whole state"}
    assert differing == {f"{name} at the end" for name in SHARDED}
    same = compare_runs(str(two), str(two))
    assert same.same
    assert "whole state" in same.equal


@pytest.mark.slow
def test_replicas_of_a_shard_are_held_against_each_other(jobs: Jobs) -> None:
    options = ("--sharded", "fsdp-replicas", "--every", 2, "--epochs", 1)
    job = jobs.run("replicas", 4, *options)
    assert digests(manifest_of(job.out))[0] == digests(manifest_of(whole(jobs).out))[0]
    assert jobs.check(job).exit_code == 0
    job = jobs.run("replicas apart", 4, *options, "--drift", "3:2")
    report = jobs.check(job)
    assert report.exit_code == 1
    (found,) = next(check.findings for check in report.checks if check.number == 4)
    assert (found.where, found.step, found.component) == ("sharded", 2, "params")
    assert found.message == "processes that hold the same rows hold other numbers"
