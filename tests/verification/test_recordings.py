"""Recordings: every check shown passing and failing, and what the verdict then is."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import forging
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from studies import failures, findings_text, first_finding, result_of
from synthetic_recordings import (
    DRIFT,
    REVIEWER,
    Loop,
    Recording,
    write_recording,
    write_replay,
    write_snapshot,
)

from auditkit.formats import canonical, schema, tensor_file
from auditkit.formats.scalar_file import Series, scalars_to_tensors, series_of
from auditkit.formats.structure import to_dict
from auditkit.records.digest import EVIDENCE_BYTES
from auditkit.records.recording import RankRecord, RecordingManifest
from auditkit.records.report import Finding, VerificationReport
from auditkit.records.tensor import RawTensor
from auditkit.signing.keys import PrivateKey, TrustedKey, fingerprint, generate_key
from auditkit.verification.procedure import VerifyRequest, verify

Forge = Callable[[Recording], object]

TRACE = "trace/000000.safetensors"
CHECKPOINT = "checkpoint-00000002.safetensors"


def check(recording: Recording, **options: Any) -> VerificationReport:
    """Verify a recording."""
    return verify(recording.path, VerifyRequest(**{"trusted": recording.trusted, **options}))


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Any:
    """Honest recordings of several loops, written once."""
    folder = tmp_path_factory.mktemp("recordings")

    @functools.cache
    def template(loop: Loop) -> Recording:
        return write_recording(folder / str(len(list(folder.iterdir()))), key, loop)

    return template


@pytest.fixture
def make(templates: Callable[[Loop], Recording], tmp_path: Path) -> Callable[..., Recording]:
    """Copies an honest recording, so that it can be forged."""

    def copy(**fields: Any) -> Recording:
        source = templates(Loop(**fields))
        shutil.copytree(source.folder, tmp_path / "recording")
        return Recording(tmp_path / "recording", source.key)

    return copy


HONEST: dict[str, dict[str, Any]] = {
    "plain": {},
    "one step": {"steps": 1, "checkpoints": ()},
    "checkpoints at both ends": {"steps": 3, "checkpoints": (0, 3)},
    "several processes": {"ranks": 3},
    "a second loader": {"loader": "validation"},
    "exactly one chunk": {"steps": 1024, "checkpoints": (1024,)},
    "several chunks": {"steps": 2050, "checkpoints": (0, 1023, 1024, 1025, 2048, 2050)},
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_recording_passes_what_applies_to_it(
    make: Callable[..., Recording], name: str
) -> None:
    report = check(make(**HONEST[name]))
    assert report.exit_code == 0, findings_text(report)
    assert report.verdict == "integrity-only"
    assert report.estimates is None
    assert [result.status for result in report.checks[:5]] == ["passed"] * 5
    assert not any(result.warnings for result in report.checks)
    for number in (6, 7, 9, 10):
        result = result_of(report, number)
        assert (result.status, result.summary) == ("not run", "not applicable to a recording")
    assert result_of(report, 8).summary.startswith("`auditkit replay MANIFEST -- COMMAND`")


def test_the_report_of_a_recording_keeps_the_schema_of_reports(
    make: Callable[..., Recording],
) -> None:
    recording = make()
    write_replay(recording)
    schema.check(to_dict(check(recording)), "report", what="report")


# Checks 1 to 3


def test_a_recording_of_another_shape_is_exit_5(make: Callable[..., Recording]) -> None:
    recording = make()
    forging.edit_predicate(recording, lambda predicate: predicate.update(plan={}))
    report = check(recording)
    assert (report.exit_code, failures(report)) == (5, {1})
    assert "unknown field 'plan'" in first_finding(report, 1).message


def test_who_signed_a_recording_is_judged_as_for_a_study(make: Callable[..., Recording]) -> None:
    recording = make()
    assert check(recording, trusted=[]).exit_code == 3
    forging.edit_payload_unsigned(recording, lambda s: s["predicate"].update(seed=7))
    report = check(recording)
    assert (report.exit_code, failures(report)) == (1, {2})
    forging.edit_envelope(recording, lambda envelope: envelope.update(signatures=[]))
    assert check(recording).exit_code == 4


def test_a_file_that_is_not_what_was_signed_is_found(make: Callable[..., Recording]) -> None:
    recording = make()
    (recording.folder / CHECKPOINT).unlink()
    (recording.folder / TRACE).write_bytes(b"x")
    report = check(recording)
    assert (report.exit_code, failures(report)) == (1, {3, 4})
    assert {finding.where for finding in result_of(report, 3).findings} == {CHECKPOINT, TRACE}


def test_what_lies_beside_unlisted_is_a_warning_but_not_a_replay(
    make: Callable[..., Recording],
) -> None:
    recording = make()
    write_replay(recording)
    assert not result_of(check(recording, strict=True), 3).findings
    (recording.folder / "notes.txt").write_text("x")
    assert check(recording).exit_code == 0
    assert check(recording, strict=True).exit_code == 1


# Check 4


def first_rank(edit: Callable[[dict[str, Any]], object], number: int = 0) -> Forge:
    """Change what the manifest says of a rank."""
    return predicate(lambda p: edit(p["ranks"][number]))


def predicate(edit: Callable[[dict[str, Any]], object]) -> Forge:
    """Change the manifest."""

    def apply(predicate: dict[str, Any]) -> None:
        edit(predicate)

    return lambda recording: forging.edit_predicate(recording, apply)


def rows(edit: Callable[[forging.Arrays], None], name: str = TRACE) -> Forge:
    """Change a trace file."""
    return lambda recording: forging.edit_tensors(recording, name, edit)


def flip(column: str, row: int, name: str = TRACE) -> Forge:
    """Change one digest of a trace."""

    def edit(arrays: forging.Arrays) -> None:
        arrays[column][row, 0] ^= 1

    return rows(edit, name)


def blank(column: str, row: int) -> Forge:
    """Remove one digest of a trace."""

    def edit(arrays: forging.Arrays) -> None:
        arrays[column][row] = 0

    return rows(edit)


def shift(arrays: forging.Arrays) -> None:
    arrays["step"] += 1


def shorten(arrays: forging.Arrays) -> None:
    for name in list(arrays):
        arrays[name] = arrays[name][:-1]


def grow(arrays: forging.Arrays) -> None:
    arrays["surprise"] = np.ones((len(arrays["step"]), EVIDENCE_BYTES), np.uint8)


def late_loss(arrays: forging.Arrays) -> None:
    arrays["loss_bits"][-1] = 1


def other_checkpoint(recording: Recording) -> None:
    path = recording.folder / CHECKPOINT
    state = Loop(state_at=1).state(3, 0)
    state["loader"] = {"position": b"2"}
    write_snapshot(path, state)
    forging.replace_file(recording, CHECKPOINT, path.read_bytes())


def poorer_checkpoint(recording: Recording) -> None:
    path = recording.folder / CHECKPOINT
    state = Loop().state(3, 0)
    del state["rng/torch"]
    write_snapshot(path, state)
    forging.replace_file(recording, CHECKPOINT, path.read_bytes())
    first_rank(
        lambda rank: [rank["checkpoints"][0]["digests"].pop(n) for n in ("rng/torch", "loader")]
    )(recording)


def swap_listing(recording: Recording) -> None:
    def edit(predicate: dict[str, Any]) -> None:
        for file in predicate["files"]:
            if file["name"] == CHECKPOINT:
                file["role"] = "trace"

    forging.edit_predicate(recording, edit)


INCONSISTENT: dict[str, tuple[dict[str, Any], Forge, str]] = {
    "no steps": ({}, first_rank(lambda rank: rank.update(steps=0)), "no steps were recorded"),
    "more steps": (
        {},
        first_rank(lambda rank: rank.update(steps=6)),
        f"{TRACE}: has steps 1..5, expected 1..6",
    ),
    "steps that begin late": ({}, rows(shift), f"{TRACE}: has steps 2..6, expected 1..5"),
    "a chunk too short": ({}, rows(shorten), f"{TRACE}: has steps 1..4, expected 1..5"),
    "a chunk too few": (
        {"steps": 1030},
        first_rank(lambda rank: rank["traces"].pop()),
        "rank 0: 1 trace files for 1030 steps",
    ),
    "chunks in another order": (
        {"steps": 1030},
        first_rank(lambda rank: rank["traces"].reverse()),
        "trace/000001.safetensors: has steps 1025..1030, expected 1..1024",
    ),
    "chunks that do not join": (
        {"steps": 1030, "checkpoints": ()},
        flip("params", 0, "trace/000001.safetensors"),
        "step 1025, params: does not begin where the chunk before it ends",
    ),
    "a column that nobody named": (
        {},
        rows(grow),
        f"{TRACE}, surprise: the manifest names no such component",
    ),
    "a step without order": ({}, blank("order", 2), "step 3, order: no evidence in this row"),
    "a step without batch": ({}, blank("batch", 0), "step 1, batch: no evidence in this row"),
    "a row without parameters": ({}, blank("params", 3), "step 4, params: no evidence"),
    "a last row that consumed": ({}, flip("batch", 5), "step 6, batch: the last row consumed"),
    "a last row with a loss": ({}, rows(late_loss), "step 6, loss: the last row consumed"),
    "a second loader without batches": (
        {"loader": "val"},
        blank("batch/val", 2),
        "step 3, order/val: order and batch disagree on what was consumed",
    ),
    "a loader that nobody described": (
        {"loader": "val"},
        first_rank(lambda rank: rank["loaders"].pop("val")),
        "rank 0: nothing is said of the loader 'val'",
    ),
    "no parameters": (
        {},
        first_rank(lambda rank: rank["components"].remove("params")),
        "rank 0, params: there is no such component",
    ),
    "a component twice": (
        {},
        first_rank(lambda rank: rank["components"].append("params")),
        "rank 0: a component is listed twice",
    ),
    "a start without parameters": (
        {},
        first_rank(lambda rank: rank["initial"].pop("params")),
        "step 1, params: no commitment",
    ),
    "an end with too much": (
        {},
        first_rank(lambda rank: rank["final"].update(scheduler="0" * 64)),
        "step 6, scheduler: committed to but absent from the trace",
    ),
    "another end than the last checkpoint": (
        {"checkpoints": (5,)},
        first_rank(lambda rank: rank["final"].update(params="0" * 64)),
        "step 5, params: the rank's commitment is of another state",
    ),
    "another checkpoint": (
        {},
        other_checkpoint,
        f"{CHECKPOINT}, step 2, params: the checkpoint holds another state than committed",
    ),
    "a checkpoint with other evidence": (
        {},
        other_checkpoint,
        f"{CHECKPOINT}, step 3, params: the trace's row is of another state",
    ),
    "a checkpoint with other commitments": (
        {},
        first_rank(lambda rank: rank["checkpoints"][0]["digests"].update(params="0" * 64)),
        f"{CHECKPOINT}, step 2, params: the checkpoint holds another state than committed",
    ),
    "a checkpoint without a section": (
        {},
        first_rank(lambda rank: rank["checkpoints"][0]["digests"].pop("loader")),
        f"{CHECKPOINT}, step 2, loader: a section is missing",
    ),
    "a checkpoint without a component": (
        {},
        poorer_checkpoint,
        f"{CHECKPOINT}, step 3, rng/torch: the checkpoint lacks a component",
    ),
    "a checkpoint that is none": (
        {},
        lambda recording: forging.replace_file(recording, CHECKPOINT, b"nothing"),
        CHECKPOINT,
    ),
    "a checkpoint of a later step": (
        {},
        first_rank(lambda rank: rank["checkpoints"][0].update(step=6)),
        "rank 0: checkpoints are not in the order of their steps",
    ),
    "a resumption of a later step": (
        {},
        first_rank(lambda rank: rank.update(resumed_at=[6])),
        "rank 0: resumptions are not in the order of their steps",
    ),
    "a resumption where there is no checkpoint": (
        {},
        first_rank(lambda rank: rank.update(resumed_at=[2, 3])),
        "rank 0, step 3: resumed where there is no checkpoint",
    ),
    "a resumption without checkpoints": (
        {"checkpoints": ()},
        first_rank(lambda rank: rank.update(resumed_at=[2])),
        "rank 0, step 2: resumed where there is no checkpoint",
    ),
    "a resumption before the first step": (
        {},
        first_rank(lambda rank: rank.update(resumed_at=[0])),
        "rank 0: resumptions are not in the order of their steps",
    ),
    "a resumption without its proof": (
        {},
        first_rank(lambda rank: rank.update(resumed_at=[2, 2], proven_by=[1])),
        "rank 0: not every resumption says how many rows proved it",
    ),
    "a resumption that was proven by more rows than there are": (
        {},
        first_rank(lambda rank: rank.update(resumed_at=[2], proven_by=[9])),
        "rank 0, step 2: proven by 9 rows, more than there are",
    ),
    "no epochs": (
        {},
        first_rank(lambda rank: rank.update(epochs=0)),
        "rank 0: 0 epochs, in which nothing was consumed",
    ),
    "components in another order": (
        {},
        first_rank(lambda rank: rank["components"].reverse()),
        "rank 0: the list of components is not in the order of their names",
    ),
    "files in another order": (
        {},
        predicate(lambda p: p["files"].reverse()),
        "the list of files is not in the order of their names",
    ),
    "another end by equal evidence": (
        {"checkpoints": ()},
        first_rank(lambda rank: rank["final"].update(param_groups="0" * 64)),
        "step 6, param_groups: committed to as another state than in trace/000000.safetensors, "
        "step 1, by equal evidence",
    ),
    "the same end by other evidence": (
        {"checkpoints": ()},
        first_rank(lambda rank: rank["final"].update(params=rank["initial"]["params"])),
        "step 6, params: committed to as the state of trace/000000.safetensors, step 1, by other",
    ),
    "no settings": (
        {},
        predicate(lambda p: p["environment"]["determinism"].pop("torch threads")),
        "environment: the environment does not say 'torch threads'",
    ),
    "a file that nobody uses": (
        {},
        lambda recording: forging.add_file(recording, "more.bin", b"x", "trace"),
        "more.bin: listed as trace, used as None",
    ),
    "a file in another role": (
        {},
        swap_listing,
        f"{CHECKPOINT}: listed as trace, used as checkpoint",
    ),
    "one file for two things": (
        {"ranks": 2},
        first_rank(lambda rank: rank.update(traces=[TRACE]), 1),
        "one file stands for two things",
    ),
    "another digest of a source": (
        {},
        predicate(lambda p: p["program"]["code"][0].update(sha256="0" * 64)),
        "code/train.py: two digests for one source",
    ),
    "a rank too few": (
        {"ranks": 2},
        predicate(lambda p: p["world"].update(size=3)),
        "world: ranks are 0, 1; the world has 3, from 0",
    ),
    "ranks in another order": (
        {"ranks": 2},
        predicate(lambda p: p["ranks"].reverse()),
        "world: ranks are 1, 0; the world has 2, from 0",
    ),
    "processes without a backend": (
        {"ranks": 2},
        predicate(lambda p: p["world"].update(backend=None)),
        "world: 2 processes without a backend",
    ),
    "processes with other numbers of steps": (
        {"ranks": 2},
        first_rank(lambda rank: rank.update(steps=4), 1),
        "rank 1: took 4 steps, rank 0 took 5",
    ),
    "processes with other parameters": (
        {"ranks": 2, "checkpoints": ()},
        flip("params", 3, "rank-0001/trace/000000.safetensors"),
        "rank 1, step 4, params: the state is not that of rank 0",
    ),
    "processes with other moments at the end": (
        {"ranks": 2, "checkpoints": ()},
        flip("optimizer/momentum_buffer", 5, "rank-0001/trace/000000.safetensors"),
        "rank 1, step 6, optimizer/momentum_buffer: the state is not that of rank 0",
    ),
}


@pytest.mark.parametrize("name", INCONSISTENT)
def test_what_does_not_agree_is_a_failure_of_check_4(
    make: Callable[..., Recording], name: str
) -> None:
    fields, forge, says = INCONSISTENT[name]
    recording = make(**fields)
    forge(recording)
    write_replay(recording)  # a good replay makes nothing good
    report = check(recording)
    assert report.exit_code in ((5, 1) if name == "a checkpoint that is none" else (1,))
    assert (report.verdict, 4 in failures(report)) == ("failed", True)
    assert any(says in str(finding) for finding in result_of(report, 4).findings), findings_text(
        report
    )


def test_a_trace_that_is_no_trace_is_exit_5(make: Callable[..., Recording]) -> None:
    recording = make()
    forging.replace_file(recording, TRACE, b"nothing")
    report = check(recording)
    assert (report.exit_code, failures(report)) == (5, {4})


def test_a_loop_that_ran_from_no_file_is_a_warning(tmp_path: Path, key: PrivateKey) -> None:
    def without_code(manifest: RecordingManifest) -> RecordingManifest:
        files = tuple(file for file in manifest.files if file.role != "code")
        return replace(manifest, program=replace(manifest.program, code=()), files=files)

    recording = write_recording(tmp_path / "interactive", key, None, without_code)
    shutil.rmtree(recording.folder / "code")
    report = check(recording)
    assert (report.exit_code, report.verdict) == (0, "integrity-only")
    assert result_of(report, 4).warnings == ("no source was recorded: the loop ran from no file",)


# Check 5


def without_stream(rank: dict[str, Any]) -> None:
    streams = rank["rng"]["streams"]
    streams[:] = [stream for stream in streams if stream["stream"] != "rng/torch"]


def another_stream(rank: dict[str, Any]) -> None:
    stream = {**rank["rng"]["streams"][0], "stream": "rng/cuda:0"}
    rank["rng"]["streams"].append(stream)


CONTRACTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a stream too few": (without_stream, "rank 0, rng/torch: the contract lacks the stream"),
    "a stream too many": (another_stream, "rank 0, rng/cuda:0: the stream is in no component"),
    "a stream without evidence": (
        without_stream,
        "rank 0, rng/torch: the stream is missing from the contract",
    ),
    "a stream twice": (
        lambda rank: rank["rng"]["streams"].append(rank["rng"]["streams"][0]),
        "rank 0, rng: a stream is listed twice",
    ),
    "a stream without start": (
        lambda rank: rank["rng"]["streams"][0].update(start=None),
        "rank 0, rng/numpy: the contract does not say where it started and ended",
    ),
    "a stream without end": (
        lambda rank: rank["rng"]["streams"][0].update(end=None),
        "rank 0, rng/numpy: the contract does not say where it started and ended",
    ),
    "another end than the rank's": (
        lambda rank: rank["rng"]["streams"][0].update(end="0" * 64),
        "rank 0, step 6, rng/numpy: the contract's end is not the rank's final state",
    ),
    "a seed of its own": (
        lambda rank: rank["rng"]["streams"][0].update(seed="7"),
        "rank 0, rng/numpy: a recording seeds and forks nothing",
    ),
    "a recipe of seeds": (
        lambda rank: rank["rng"].update(recipe="auditkit-seed/1"),
        "rank 0, rng: a recording seeds nothing",
    ),
    "nothing uncovered": (
        lambda rank: rank["rng"].update(uncovered=[]),
        "rank 0, rng: the contract does not name what it does not cover: os.urandom, secrets, "
        "uuid4 and the clock: no program can be replayed that reads them",
    ),
}


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_contract_that_is_not_whole_is_a_failure_of_check_5(
    make: Callable[..., Recording], name: str
) -> None:
    edit, says = CONTRACTS[name]
    recording = make()
    first_rank(edit)(recording)
    report = check(recording)
    assert (report.exit_code, failures(report)) == (1, {5})
    assert says in [str(finding) for finding in result_of(report, 5).findings]


def test_ranks_that_train_on_the_same_samples_are_a_warning(
    tmp_path: Path, key: PrivateKey
) -> None:
    def alike(manifest: RecordingManifest) -> RecordingManifest:
        one, other = manifest.ranks

        def as_one(rank: RankRecord) -> RankRecord:
            streams = tuple(
                replace(own, start=his.start)
                for own, his in zip(rank.rng.streams, one.rng.streams, strict=True)
            )
            rng = replace(rank.rng, streams=streams)
            return replace(rank, rng=rng, order_sha256=one.order_sha256)

        return replace(manifest, ranks=(one, as_one(other)))

    report = check(write_recording(tmp_path / "twins", key, Loop(ranks=2), alike))
    assert report.exit_code == 0
    (warning,) = result_of(report, 5).warnings
    assert warning.startswith("ranks 0 and 1 start from the same rng/torch and consumed the same")


# Check 8


def test_a_recording_that_was_closed_afterwards_is_never_more_than_replayed_in_part(
    make: Callable[..., Recording],
) -> None:
    recording = make(checkpoints=())

    def close(predicate: dict[str, Any]) -> None:
        predicate["closed_as"] = "the process was killed"
        predicate["ranks"][0]["final"] = {}
        for stream in predicate["ranks"][0]["rng"]["streams"]:
            stream["end"] = None

    forging.edit_predicate(recording, close)
    write_replay(recording)
    report = check(recording)
    assert (report.verdict, report.exit_code, failures(report)) == ("integrity-only", 0, set())
    assert any("closed afterwards" in text for text in result_of(report, 4).warnings)
    assert result_of(report, 8).status == "not run"
    text = "re-executed, and equal, of a recording that was closed afterwards"
    assert any(text in warning for warning in result_of(report, 8).warnings)

    def pretend(predicate: dict[str, Any]) -> None:
        predicate["closed_as"] = None

    forging.edit_predicate(recording, pretend)
    assert {4, 5} <= failures(check(recording))  # without saying so the end must be committed to


@pytest.mark.parametrize("as_well", [False, True])
def test_only_what_was_closed_afterwards_has_lost_checkpoints_and_none_of_those_it_has(
    make: Callable[..., Recording], as_well: bool
) -> None:
    recording = make()

    def lose(predicate: dict[str, Any]) -> None:
        (rank,) = predicate["ranks"]
        rank["lost_checkpoints"] = rank["checkpoints"][:1]
        if as_well:
            predicate["closed_as"] = "the process was killed"
        else:
            rank["checkpoints"] = rank["checkpoints"][1:]

    forging.edit_predicate(recording, lose)
    report = check(recording)
    said = [str(finding) for finding in result_of(report, 4).findings]
    text = "not in the order" if as_well else "lost checkpoints, and was not closed afterwards"
    assert any(text in one for one in said), said


@pytest.mark.parametrize("listed", [True, False])
def test_a_checkpoint_that_is_called_lost_and_lies_there_is_named(
    make: Callable[..., Recording], listed: bool
) -> None:
    recording = make()
    taken: list[dict[str, Any]] = []

    def lose(statement: dict[str, Any]) -> None:
        predicate = statement["predicate"]
        predicate["closed_as"] = "the process was killed"
        (rank,) = predicate["ranks"]
        rank["lost_checkpoints"], rank["checkpoints"] = rank["checkpoints"], []
        taken.extend(rank["lost_checkpoints"])
        if not listed:
            files = {one["file"] for one in taken}
            for entries in (statement["subject"], predicate["files"]):
                entries[:] = [entry for entry in entries if entry["name"] not in files]

    forging.edit_statement(recording, lose)
    report = check(recording)
    if listed:  # by the same manifest, which contradicts itself
        assert any(taken[0]["file"] in str(one) for one in result_of(report, 4).findings)
        return
    assert failures(report) == set()
    (said,) = [text for text in result_of(report, 4).warnings if "lost" in text]
    assert said.startswith("rank 0: called lost, and there all the same: the checkpoints after ")
    (recording.folder / taken[0]["file"]).unlink()
    texts = [text for text in result_of(check(recording), 4).warnings if "nothing" in text]
    assert any(f"no file of the checkpoints after step {taken[0]['step']} " in t for t in texts)
    assert len(texts) == min(len(taken), 2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"a": series_of([(9, 1.0)])}, "is of a step that was not taken"),
        (None, "scalars need a step and a value"),
    ],
)
def test_logged_numbers_are_of_steps_that_were_taken(
    make: Callable[..., Recording], change: dict[str, Series] | None, says: str
) -> None:
    recording = make()
    name = "scalars.safetensors"
    good = scalars_to_tensors({"a": series_of([(0, 1.0), (6, 2.0)])})
    forging.add_file(recording, name, file_of(good), "scalars")

    def list_it(predicate: dict[str, Any]) -> None:
        predicate["ranks"][0]["scalars"] = name
        predicate["files"].sort(key=lambda file: file["name"])

    forging.edit_predicate(recording, list_it)
    assert findings_text(check(recording)) == ""
    bad = {"x": RawTensor("uint8", (1,), b"1")} if change is None else scalars_to_tensors(change)
    forging.replace_file(recording, name, file_of(bad))
    report = check(recording)
    assert any(says in str(finding) for finding in result_of(report, 4).findings)


def file_of(tensors: dict[str, RawTensor]) -> bytes:
    """A tensor file's bytes."""
    return b"".join(tensor_file.to_chunks(tensors, None))


def test_a_whole_replay_makes_a_recording_verified(make: Callable[..., Recording]) -> None:
    recording = make(ranks=2)
    write_replay(recording)
    report = check(recording)
    assert (report.exit_code, report.verdict, report.estimates) == (0, "verified", None)
    signer = fingerprint(REVIEWER)
    text = "re-executed with the user's command: 5 steps and 2 checkpoints equal"
    text = f"{text}, signed by {signer}"
    assert (result_of(report, 8).status, result_of(report, 8).summary) == ("passed", text)
    assert report.replay == text
    assert check(recording, replay="none").verdict == "verified"  # nothing is executed for it


@pytest.mark.parametrize(
    ("compared", "says"),
    [
        (None, "5 steps equal; by an earlier build, which compared no checkpoints"),
        (0, "5 steps equal; not every section of the other checkpoints was compared"),
        (1, "5 steps and 1 of 2 checkpoints equal; not every section of the other"),
    ],
)
def test_checkpoints_that_no_replay_compared_are_named(
    make: Callable[..., Recording], compared: int | None, says: str
) -> None:
    recording = make(ranks=2)
    write_replay(recording, checkpoints=compared)
    report = check(recording)
    assert report.verdict == "verified"
    assert says in report.replay


def test_a_replay_of_more_checkpoints_than_there_are(make: Callable[..., Recording]) -> None:
    recording = make()
    write_replay(recording, checkpoints=2)
    report = check(recording)
    assert failures(report) == {8}
    assert "says that 2 checkpoints were equal; there are 1" in str(first_finding(report, 8))


@pytest.mark.parametrize("kept", [(4, 5), (2, 4)])
def test_a_resumption_from_a_checkpoint_that_was_not_kept(
    make: Callable[..., Recording], kept: tuple[int, ...]
) -> None:
    recording = make(checkpoints=kept)
    first_rank(lambda rank: rank.update(resumed_at=[1, 4, 4]))(recording)
    assert not failures(check(recording))


def test_how_a_resumption_was_proven_is_said(make: Callable[..., Recording]) -> None:
    recording = make(checkpoints=(2, 4))
    first_rank(lambda rank: rank.update(resumed_at=[2, 4], proven_by=[2, 0]))(recording)
    shown = check(recording).checks[3]
    assert "resumed after step 2 (proven by 2 rows), resumed after step 4 (not pro" in shown.summary
    assert shown.warnings == ("rank 0: resumed after step 4, not proven",)
    first_rank(lambda rank: rank.update(proven_by=[]))(recording)  # of an earlier build
    shown = check(recording).checks[3]
    assert not shown.warnings
    assert "resumed" not in shown.summary


@pytest.mark.parametrize(("code", "verdict"), [(1, "failed"), (6, "undecided"), (5, "failed")])
def test_what_a_replay_found_is_a_failure_of_check_8(
    make: Callable[..., Recording], code: int, verdict: str
) -> None:
    recording = make()
    write_replay(recording, findings=(replace(DRIFT, exit_code=code),), last_step=3)
    report = check(recording)
    assert (report.exit_code, report.verdict) == (6 if code == 6 else 1, verdict)
    assert failures(report) == {8}
    assert str(first_finding(report, 8)) == str(DRIFT)
    assert report.replay.startswith("steps 1..3 of 1 process re-executed, with differences")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"first_step": 2}, "only steps 2..5 of 2 processes re-executed"),
        ({"last_step": 4}, "only steps 1..4 of 2 processes re-executed"),
        ({"last_step": 0}, "only steps 1..0 of 2 processes re-executed"),
        ({"ranks": 1}, "only steps 1..5 of 1 process re-executed"),
    ],
)
def test_a_partial_replay_is_a_warning(
    make: Callable[..., Recording], changes: dict[str, Any], says: str
) -> None:
    recording = make(ranks=2)
    write_replay(recording, **changes)
    report = check(recording)
    assert (report.exit_code, report.verdict) == (0, "integrity-only")
    assert result_of(report, 8).status == "not run"
    assert result_of(report, 8).warnings[0].startswith(f"replay.json: {says}")


@pytest.mark.parametrize(
    "changes", [{"last_step": 6}, {"first_step": 4, "last_step": 2}, {"ranks": 3}]
)
def test_a_replay_of_steps_that_there_are_not_is_a_failure(
    make: Callable[..., Recording], changes: dict[str, Any]
) -> None:
    recording = make(ranks=2)
    write_replay(recording, **changes)
    report = check(recording)
    assert (report.exit_code, failures(report)) == (1, {8})
    finding = first_finding(report, 8)
    assert finding.where == "replay.json"
    assert finding.message.endswith("were equal; the recording has steps 1..5 of 2 processes")


def break_link(path: Path) -> None:
    target = path.with_name("elsewhere.json")
    path.rename(target)
    path.symlink_to(target)


BAD_REPLAYS: dict[str, tuple[Callable[[Recording], object], str]] = {
    "a stranger's": (
        lambda recording: write_replay(recording, generate_key()),
        "not a trusted key",
    ),
    "about another manifest": (
        lambda recording: write_replay(recording, statement_sha256="0" * 64),
        "about another manifest",
    ),
    "no JSON": (lambda r: (r.folder / "replay.json").write_bytes(b"verified"), "replay.json"),
    "the manifest itself": (
        lambda r: shutil.copy(r.path, r.folder / "replay.json"),
        "predicateType is another",
    ),
    "a link": (lambda r: break_link(write_replay(r)), "not a regular file but a symbolic link"),
    "a folder": (lambda r: (r.folder / "replay.json").mkdir(), "not a regular file but a folder"),
    "a stranger's, with findings": (
        lambda recording: write_replay(recording, generate_key(), findings=(DRIFT,)),
        "not a trusted key",
    ),
}


@pytest.mark.parametrize("name", BAD_REPLAYS)
def test_a_replay_that_does_not_count_is_a_warning(
    make: Callable[..., Recording], name: str
) -> None:
    write, says = BAD_REPLAYS[name]
    recording = make()
    write(recording)
    report = check(recording)
    assert (report.exit_code, report.verdict) == (0, "integrity-only")
    result = result_of(report, 8)
    assert result.status == "not run"
    assert says in result.warnings[0]


EARLY, LATE = (f"replay-{16 * c}-2026010{c}T000000000000Z.json" for c in "12")


@pytest.mark.parametrize("name", ["replay.json", LATE])
def test_nobody_vouches_for_himself(make: Callable[..., Recording], name: str) -> None:
    recording = make()
    write_replay(recording, recording.key, name)
    report = check(recording, strict=True)
    assert (report.exit_code, report.verdict) == (0, "integrity-only")
    assert result_of(report, 8).status == "not run"
    assert "the author says he replayed it" in result_of(report, 8).summary
    assert "the author says he replayed it" in report.replay
    (stated,) = report.replays
    assert (stated.file, stated.says, stated.by_author, stated.counts) == (
        *(name, "equal", True, False),
    )


def test_a_key_that_shares_a_principal_with_the_authors_is_the_authors(
    make: Callable[..., Recording],
) -> None:
    recording, second = make(), generate_key()
    write_replay(recording, second)
    plain = TrustedKey(fingerprint(second), second.public_key(), "test")
    assert check(recording, trusted=[*recording.trusted, plain]).verdict == "verified"
    of_alice = [replace(key, principals=("alice@x",)) for key in (recording.trusted[0], plain)]
    report = check(recording, trusted=of_alice)
    assert report.verdict == "integrity-only"
    assert report.replays[0].by_author


def test_what_the_author_says_against_himself_counts(make: Callable[..., Recording]) -> None:
    recording = make()
    write_replay(recording, recording.key, findings=(DRIFT,), last_step=3)
    report = check(recording)
    assert (report.exit_code, failures(report)) == (1, {8})
    assert report.replays[0].remark.startswith("the author says he replayed it (steps 1..3")


def test_what_the_author_could_not_decide_says_nothing(make: Callable[..., Recording]) -> None:
    recording = make()
    write_replay(recording, recording.key, findings=(replace(DRIFT, exit_code=6),))
    assert check(recording).verdict == "integrity-only"


def test_a_good_replay_outweighs_an_undecided_one_and_no_bad_one(
    make: Callable[..., Recording],
) -> None:
    recording = make()
    write_replay(recording, findings=(replace(DRIFT, exit_code=6),))
    assert check(recording).verdict == "undecided"
    write_replay(recording, name=EARLY)
    assert check(recording).verdict == "verified"
    write_replay(recording, name=LATE, findings=(DRIFT,), last_step=3)
    write_replay(recording, recording.key, f"{LATE[:-7]}1Z.json")
    report = check(recording)
    assert (report.exit_code, failures(report)) == (1, {8})
    assert [item.says for item in report.replays] == ["different", "undecided", "equal", "equal"]
    assert [item.counts for item in report.replays] == [True, True, True, False]
    assert report.replay.endswith("; 1 found everything equal")


def test_nothing_counts_where_nobody_is_known_to_have_signed_the_recording(
    make: Callable[..., Recording],
) -> None:
    recording = make()
    write_replay(recording)
    report = check(recording, trusted=recording.trusted[1:])
    assert (report.exit_code, result_of(report, 8).status) == (3, "not run")
    assert "own signature is not in order" in report.replays[0].remark


def test_more_replays_than_anybody_writes_are_left_unread(make: Callable[..., Recording]) -> None:
    recording = make()
    data = write_replay(recording).read_bytes()
    for number in range(102):
        (recording.folder / f"replay-{number:016x}-20260101T000000000000Z.json").write_bytes(data)
    report = check(recording, strict=True)
    assert (report.verdict, len(report.replays)) == ("verified", 101)
    assert result_of(report, 8).warnings == ("2 more files are named as replays and were not read",)


def test_a_replay_on_another_machine_says_what_was_other(make: Callable[..., Recording]) -> None:
    recording = make()
    environment = recording.recorded.environment
    write_replay(recording, environment=replace(environment, python="3.12.0 CPython"))
    report = check(recording)
    assert report.verdict == "verified"
    assert report.environment_differences == ("python: 3.11.7 CPython there, 3.12.0 CPython here",)


def test_findings_of_a_replay_that_ask_for_no_failure_are_refused(
    make: Callable[..., Recording],
) -> None:
    recording = make()
    path = write_replay(recording, findings=(Finding("odd"),))
    run = Recording(path.parent, recording.key)
    manifest = run.path.read_bytes()
    run.path.write_bytes(path.read_bytes())
    forging.edit_predicate(run, lambda p: p["findings"][0].update(exit_code=0))
    path.write_bytes(run.path.read_bytes())
    run.path.write_bytes(manifest)
    report = check(recording)
    assert report.verdict == "integrity-only"
    assert "exit_code" in result_of(report, 8).warnings[0]


def places(node: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items: list[tuple[str | int, Any]] = []
    if isinstance(node, dict):
        items = list(node.items())
    elif isinstance(node, list):
        items = list(enumerate(node))
    return [(*path, key) for key, _ in items] + [
        place for key, value in items for place in places(value, (*path, key))
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), value=st.sampled_from([None, 0, 7, 10**9, -1, "", "../x", [], {}, True]))
def test_no_value_of_a_manifest_is_more_than_a_finding(
    templates: Callable[[Loop], Recording],
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    value: Any,
) -> None:
    source = templates(Loop(ranks=2, loader="val", checkpoints=(0, 2, 5)))
    folder = tmp_path_factory.mktemp("fuzz") / "run"
    shutil.copytree(source.folder, folder)
    recording = Recording(folder, source.key)
    statement = forging.statement_of(recording)
    path = data.draw(st.sampled_from(places(statement)))
    holder: Any = statement
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = value
    forging.sign_payload(recording, canonical.dumps(statement))
    report = check(recording)
    assert report.exit_code in (0, 1, 5)
    assert report.verdict in ("integrity-only", "failed")
