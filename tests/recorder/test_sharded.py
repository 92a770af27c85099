"""Loops whose model is sharded by ``fully_shard``, over gloo."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from frameworks import manifest_of
from process_groups import Job, Jobs, check_equal, content, everywhere, go_on, running_jobs

from auditkit.records.recording import RecordingManifest

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
