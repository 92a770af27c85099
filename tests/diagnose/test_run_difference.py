"""Where and how far two runs differ."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import forging
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies import Run
from synthetic_recordings import Loop, Recording, write_recording, write_unfinished

from auditkit.diagnose import runs
from auditkit.diagnose.run_difference import FieldDifference, RunDifference, compare_runs
from auditkit.errors import AuditError, MalformedError, UsageError
from auditkit.formats import canonical
from auditkit.formats.structure import to_dict
from auditkit.records import evidence
from auditkit.records.recording import RecordingManifest
from auditkit.signing.keys import PrivateKey, generate_key

Write = Callable[..., Recording]


@pytest.fixture
def write(tmp_path: Path, key: PrivateKey) -> Write:
    """Writes recordings, each in a folder of its own."""

    def make(name: str, loop: Loop | None = None, **options: Any) -> Recording:
        return write_recording(tmp_path / name, key, loop, **options)

    return make


def compare(left: Run | Path | str, right: Run | Path | str) -> RunDifference:
    """Compare two runs; the answer can be written as JSON."""
    names = [str(side.folder if isinstance(side, Run) else side) for side in (left, right)]
    found = compare_runs(*names)
    canonical.dumps(to_dict(found))
    return found


def sections(found: RunDifference) -> set[str]:
    return {field.section for field in found.fields}


# Recordings


def test_each_component_has_a_first_step_of_its_own(write: Write) -> None:
    left = write("a", Loop(steps=1030, checkpoints=()))
    right = write("b", Loop(steps=1030, checkpoints=(), batch_at=7, state_at=1027))
    (trace,) = compare(left, right).traces
    assert (trace.step, trace.component) == (7, "batch")
    assert trace.first_steps == {"batch": 7, "params": 1027}
    assert compare(write("c"), write("d", Loop(steps=9))).traces[0].first_steps == {}


def test_equal_recordings_are_the_same(write: Write) -> None:
    found = compare(write("a", Loop(ranks=2)), write("b", Loop(ranks=2)))
    assert found.same
    assert (found.traces, found.fields, found.outcomes, found.notes) == ((), (), (), ())
    assert {"trace of rank 0", "trace of rank 1", "environment", "code"} <= set(found.equal)


@pytest.mark.parametrize(
    ("change", "kind", "component"),
    [
        ({"order_at": 3}, "order drift", "order"),
        ({"batch_at": 3}, "data drift", "batch"),
        ({"state_at": 3}, "state drift", "params"),
    ],
)
def test_the_first_step_and_component_are_named_and_classed(
    write: Write, change: dict[str, int], kind: str, component: str
) -> None:
    found = compare(write("a"), write("b", Loop(**change)))  # type: ignore[arg-type]
    (trace,) = found.traces
    assert (trace.trace, trace.kind, trace.step) == ("rank 0", kind, 3)
    assert trace.component == component
    assert "trace of rank 0 before step 3, where both have it" in found.equal


def test_a_second_loader_drifts_by_its_name(write: Write) -> None:
    left = write("a", Loop(loader="val"))
    right = write("b", Loop(loader="val"))

    def edit(arrays: forging.Arrays) -> None:
        arrays["order/val"][2, 0] ^= 1
        arrays["batch/val"][2, 0] ^= 1
        arrays["params"][2, 0] ^= 1

    forging.edit_tensors(right, "trace/000000.safetensors", edit)
    (trace,) = compare(left, right).traces
    assert (trace.kind, trace.component) == ("order drift", "order/val")
    assert trace.others == ("batch/val", "params")


def test_the_size_is_taken_from_the_first_checkpoint_after_the_difference(write: Write) -> None:
    loop = Loop(checkpoints=(1, 2, 4, 5))
    (trace,) = compare(write("a", loop), write("b", replace(loop, state_at=4))).traces
    assert trace.step == 4
    assert trace.distance is not None
    assert trace.distance.step == 5
    (params,) = trace.distance.components
    assert (params.component, params.absolute, params.absolute_tensor) == ("params", 0.5, "weight")
    assert params.relative == pytest.approx(0.5 / 5.5)
    assert params.elements == 1


def test_without_a_checkpoint_after_the_difference_there_is_no_size(write: Write) -> None:
    (trace,) = compare(write("a"), write("b", Loop(state_at=4))).traces
    assert trace.distance is None
    other = write("c", Loop(state_at=2, checkpoints=(3,)))
    assert compare(write("d", Loop(checkpoints=(4,))), other).traces[0].distance is None


def changed(**fields: Any) -> Callable[[RecordingManifest], RecordingManifest]:
    return lambda manifest: replace(manifest, **fields)


def test_what_the_manifests_say_differently_is_listed_by_section(write: Write) -> None:
    left = write("a")
    record = left.recorded
    cases: dict[str, Any] = {
        "environment": {"environment": replace(record.environment, python="3.12")},
        "seed": {"seed": None},
        "world": {"world": replace(record.world, settings={"bucket": "1"})},
        "program": {"program": replace(record.program, description={"model": "Net"})},
        "code": {
            "program": replace(
                record.program, code=(replace(record.program.code[0], sha256="0" * 64),)
            )
        },
        "RNG contract": {
            "ranks": (replace(record.ranks[0], rng=replace(record.ranks[0].rng, recipe="x")),)
        },
        "data": {"ranks": (replace(record.ranks[0], loaders={"": {"batch size": "3"}}),)},
        "commitments": {"ranks": (replace(record.ranks[0], consumed_sha256="0" * 64),)},
    }
    for section, fields in cases.items():
        found = compare(left, write(section, change=changed(**fields)))
        assert (found.same, sections(found), found.traces) == (False, {section}, ())


def test_the_two_values_stand_side_by_side(write: Write) -> None:
    environment = write("c").recorded.environment
    more = replace(environment, packages={"numpy": "2.4.6", "scipy": "1.0"})
    found = compare(write("d"), write("e", change=changed(environment=more)))
    assert found.fields == (
        FieldDifference("environment", "packages: scipy", None, "1.0"),
        FieldDifference("environment", "packages: torch", "2.13.0", None),
    )


def test_another_command_line_alone_is_a_note(write: Write) -> None:
    other = write("b", change=changed(command=("train.py", "--out", "1 2")))
    found = compare(write("a"), other)
    assert (found.same, found.ignored, found.fields) == (True, ("command",), ())
    assert found.notes == ("command: train.py --epochs 1; train.py --out '1 2'",)
    bare = write("c", change=changed(command=()))
    assert compare(bare, other).notes == ("command: none; train.py --out '1 2'",)


def test_what_is_ignored_is_noted_and_makes_no_difference(write: Write) -> None:
    left = write("a")
    environment = replace(left.recorded.environment, python="3.12")
    right = write("b", change=changed(environment=environment, seed=7))
    assert sections(compare(left, right)) == {"environment", "seed"}
    names = str(left.folder), str(right.folder)
    found = compare_runs(*names, ignored=("environment", "seed"))
    assert (found.same, found.ignored) == (True, ("environment", "seed"))
    assert "environment, python: 3.11.7 CPython; 3.12" in found.notes
    assert not compare_runs(*names, ignored=("seed",)).same


def test_loaders_that_are_set_up_alike_are_not_called_equal_data(write: Write) -> None:
    settings = (replace(write("x").recorded.ranks[0], loaders={"": {"workers": "0"}}),)
    left = write("a", change=changed(ranks=settings))
    drifted = replace(settings[0], consumed_sha256="0" * 64)
    right = write("b", Loop(batch_at=3), change=changed(ranks=(drifted,)))
    found = compare(left, right)
    assert "settings of the loaders of rank 0" in found.equal
    assert not any(text.startswith("data") for text in found.equal)


def test_the_step_that_made_a_state_is_told_beside_its_row(write: Write) -> None:
    (trace,) = compare(write("a"), write("b", Loop(state_at=3))).traces
    assert (trace.step, trace.made_by) == (3, 2)
    assert trace.text == "step 2 made another params, seen before step 3 (state drift)"
    (trace,) = compare(write("c"), write("d", Loop(state_at=1))).traces
    assert (trace.made_by, trace.text) == (
        0,
        "it begins with another params, before step 1 (state drift)",
    )
    (trace,) = compare(write("e"), write("f", Loop(batch_at=3))).traces
    assert (trace.step, trace.made_by) == (3, 3)
    assert "the same samples in the same order, with other bytes" in trace.text


def test_times_version_signer_and_core_count_are_notes(write: Write, tmp_path: Path) -> None:
    left = write("a")
    record = left.recorded
    other = write_recording(
        tmp_path / "b",
        generate_key(),
        Loop(),
        changed(
            run=replace(record.run, finished="2027-01-01T00:00:00Z"),
            producer=replace(record.producer, version="9"),
            program=replace(record.program, git_commit="0" * 40, git_dirty=True),
            environment=replace(
                record.environment, hardware={"processor": "x86_64", "cores": "64"}
            ),
        ),
    )
    found = compare(left, other)
    assert found.same
    starts = [note.partition(":")[0] for note in found.notes]
    assert starts == [
        "environment, hardware",
        "signed, so they say, by",
        "finished",
        "producer",
        "git commit",
    ]
    assert "environment, in all that can change bits" in found.equal


def test_a_rank_that_only_one_side_has_is_a_difference(write: Write) -> None:
    found = compare(write("a", Loop(ranks=2)), write("b", Loop(ranks=3)))
    assert FieldDifference("traces", "rank 2", None, "present") in found.fields
    assert "world" in sections(found)


def test_two_ranks_of_one_recording_can_be_compared(write: Write) -> None:
    recording = write("a", Loop(ranks=2))
    found = compare(f"{recording.folder}#rank-0", f"{recording.path}#rank-1")
    assert [trace.trace for trace in found.traces] == ["rank 0 / rank 1"]
    assert compare(f"{recording.folder}#rank-1", recording).same


# Unfinished runs


def test_an_unfinished_recording_is_compared_as_far_as_it_goes(
    write: Write, tmp_path: Path
) -> None:
    finished = write("a", Loop(ranks=2))
    same = write_unfinished(tmp_path / "b", Loop(ranks=2))
    found = compare(finished, same)
    assert found.same
    assert found.notes == ("a run without manifest: only traces and outcomes were compared",)
    short = write_unfinished(tmp_path / "c", Loop(steps=3, ranks=2))
    assert {(t.kind, t.step) for t in compare(short, finished).traces} == {("length", 4)}
    drifted = write_unfinished(tmp_path / "d", Loop(ranks=2, state_at=2))
    (trace, _) = compare(drifted, finished).traces
    assert (trace.kind, trace.step) == ("state drift", 2)
    assert trace.distance is not None
    assert compare(f"{drifted}#rank-0", f"{finished.folder}#rank-0").traces == (trace,)


def test_a_file_that_is_still_partial_counts_before_a_whole_one(tmp_path: Path) -> None:
    folder = write_unfinished(tmp_path / "a", Loop())
    shutil.copytree(write_unfinished(tmp_path / "b", Loop(state_at=1)) / "trace", tmp_path / "t")
    (tmp_path / "t" / "000000.safetensors.partial").rename(folder / "trace/000000.safetensors")
    assert compare(folder, write_unfinished(tmp_path / "c", Loop())).same


# Studies


def test_a_study_is_the_same_as_its_copy(small: Run, forged: Run) -> None:
    found = compare(small, forged)
    assert found.same
    assert "plan" in found.equal
    assert "outcome of seed 0, control" in found.equal
    assert "RNG contract of seed 0" in found.equal


def test_a_trace_and_an_outcome_of_a_study_that_differ_are_named(small: Run, forged: Run) -> None:
    forging.edit_trace(forged, "momentum-reset", 9, "params")
    forging.edit_outcome(forged, "carry", "T", forging.flatter)
    found = compare(small, forged)
    (trace,) = found.traces
    assert (trace.trace, trace.step, trace.kind) == ("seed 0, momentum-reset", 9, "state drift")
    (outcome,) = found.outcomes
    assert (outcome.trace, outcome.table) == ("seed 0, carry", "T")
    assert outcome.total_variation is not None
    assert 0 < outcome.total_variation < 1


def test_traces_that_stay_in_their_files_differ_at_the_same_place(
    small: Run, forged: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    forging.edit_trace(forged, "control", 8, "params")
    expected = compare(small, forged)
    monkeypatch.setattr(runs, "_AT_ONCE", 0)
    monkeypatch.setattr(evidence, "ROWS_AT_ONCE", 2)
    assert compare(small, forged) == expected
    assert expected.traces
    assert compare(small, small).same


def test_a_trace_that_stays_in_its_file_and_loses_its_end_is_malformed(
    forged: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_AT_ONCE", 0)
    run = runs.open_run(str(forged.folder))
    source = run.sources["seed 0, control"]
    (trace,) = run.trace(source)
    with (forged.folder / source.traces[0]).open("r+b") as file:
        file.truncate(100)
    with pytest.raises(MalformedError, match="another size"):
        trace.cell(trace.last_step + 1, "params")


def test_a_diverged_outcome_has_no_distance(small: Run, forged: Run) -> None:
    forging.edit_outcome(forged, "carry", "T", lambda table: table.fill(np.nan))
    (outcome,) = compare(small, forged).outcomes
    assert outcome.total_variation is None


def test_the_fork_tells_how_far_the_controls_are_apart(small: Run, forged: Run) -> None:
    component, entry = (
        "params",
        next(
            key
            for key in forging.read_arrays(small, "seed-0000/fork.safetensors")[0]
            if key.startswith("params/")
        ),
    )

    def edit(array: Any) -> None:
        array[...] += 0.25

    forging.edit_fork(forged, component, entry.removeprefix("params/"), edit)
    found = {trace.trace: trace for trace in compare(small, forged).traces}
    for name in ("seed 0, trunk", "seed 0, control"):
        apart = found[name].distance
        assert apart is not None
        assert (apart.step, apart.components[0].component) == (7, "params")
        assert apart.components[0].absolute == pytest.approx(0.25, rel=1e-3)
    assert found["seed 0, carry"].distance is None


def test_two_branches_of_one_study_are_compared(small: Run) -> None:
    control = f"{small.folder}#seed-0/control"
    found = compare(control, f"{small.path}#seed-0000/momentum-reset")
    (trace,) = found.traces
    assert trace.trace == "seed 0, control / seed 0, momentum-reset"
    assert (trace.step, trace.component) == (7, "optimizer/momentum_buffer")
    assert "plan" in found.equal
    assert compare(control, f"{small.folder}#seed-0/replica").same
    assert compare(control, small).same


def test_plans_are_compared_field_by_field(small: Run, forged: Run) -> None:
    def edit(predicate: dict[str, Any]) -> None:
        predicate["plan"]["placebo_scale"] = 3
        predicate["plan"]["margins"] = {"tv": 0.5}

    forging.edit_predicate(forged, edit)
    found = compare(small, forged)
    assert found.fields == (
        FieldDifference("plan", "margins", "{}", '{"tv":0.5}'),
        FieldDifference("plan", "placebo_scale", "1", "3"),
    )


def test_an_unfinished_study_is_compared_branch_by_branch(small: Run, forged: Run) -> None:
    forged.path.unlink()
    for file in (forged.folder / "seed-0000").iterdir():
        file.rename(file.with_name(f"{file.name}.partial"))
    assert compare(small, forged.folder).same
    (forged.folder / "seed-0000/carry.trace.safetensors.partial").unlink()
    found = compare(small, forged.folder)
    assert found.fields == (FieldDifference("traces", "seed 0, carry", "present", None),)
    assert compare(f"{forged.folder}#seed-0/control", f"{small.folder}#seed-0/control").same


def test_a_study_is_no_recording(small: Run, write: Write) -> None:
    found = compare(small, write("a"))
    assert FieldDifference("run", "kind", "study", "recording") in found.fields
    assert FieldDifference("traces", "rank 0", None, "present") in found.fields
    with pytest.raises(UsageError, match="no trace of one name"):
        compare(f"{small.folder}#seed-0/control", write("b", Loop(ranks=2)))
    found = compare(f"{small.folder}#seed-0/control", write("c", Loop(steps=20)))
    assert found.traces[0].step == 7


# Wrong use, and what is broken


@pytest.mark.parametrize(
    ("suffix", "says"),
    [
        ("#", "is not like"),
        ("#seed-0", "is not like"),
        ("#seed-x/control", "is not like"),
        ("#seed-0/control/x", "is not like"),
        ("#seed-1/control", r"no seed 1, control; did you mean seed 0, control\? there are"),
        ("#rank-0", "there is no rank 0; there are"),
        ("#seed-0/contrl", r"no seed 0, contrl; did you mean seed 0, control\? there are seed 0"),
        ("-nowhere", "No such file"),
        ("x" * 5000, "cannot read"),
        ("/\0", "cannot read"),
    ],
)
def test_what_means_nothing_is_wrong_use(small: Run, suffix: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        compare(f"{small.folder}{suffix}", small)
    assert caught.value.exit_code == 2


def test_a_folder_may_have_a_number_sign_in_its_name(write: Write) -> None:
    odd = write("run#1")
    assert compare(odd, f"{odd.folder}#rank-0").same


def test_a_folder_without_anything_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a manifest nor a trace"):
        compare(tmp_path, tmp_path)


TRACE = "trace/000000.safetensors"


def link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


BROKEN: dict[str, Callable[[Recording], object]] = {
    "no manifest": lambda run: run.path.write_bytes(b"{}"),
    "another statement": lambda run: forging.edit_statement(
        run, lambda statement: statement.update(predicateType="urn:x")
    ),
    "a missing trace": lambda run: (run.folder / TRACE).unlink(),
    "an empty trace": lambda run: (run.folder / TRACE).write_bytes(b""),
    "a cut trace": lambda run: (run.folder / TRACE).write_bytes(
        (run.folder / TRACE).read_bytes()[:-9]
    ),
    "a link": lambda run: link(run.folder / TRACE),
    "a name that leads elsewhere": lambda run: forging.edit_predicate(
        run, lambda predicate: predicate["ranks"][0].update(traces=["../a/" + TRACE])
    ),
    "one rank twice": lambda run: forging.edit_predicate(
        run, lambda predicate: predicate["ranks"].append(predicate["ranks"][0])
    ),
    "a checkpoint that is a trace": lambda run: shutil.copy(
        run.folder / TRACE, run.folder / "checkpoint-00000002.safetensors"
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_malformed_and_not_different(write: Write, name: str) -> None:
    good, bad = write("good", Loop(state_at=2)), write("bad")
    BROKEN[name](bad)
    for sides in ((good, bad), (bad, good)):
        with pytest.raises(MalformedError) as caught:
            compare(*sides)
        assert caught.value.exit_code == 5


@given(data=st.binary(max_size=400))
def test_no_bytes_of_a_trace_are_more_than_an_error(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = write_unfinished(tmp_path_factory.mktemp("fuzz") / "run")
    (folder / f"{TRACE}.partial").write_bytes(data)
    with pytest.raises(AuditError):
        compare(folder, folder)
