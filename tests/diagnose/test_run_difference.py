"""Where and how far two runs differ."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import forging
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings_by_hand import Loop, Recording, traces_of, write_recording, write_unfinished
from studies import Run

from auditkit.diagnose.first_difference import part
from auditkit.diagnose.run_difference import FieldDifference, RunDifference, compare_runs
from auditkit.errors import AuditError, FormatError, MalformedError, UsageError
from auditkit.evidence.comparison import compare_traces
from auditkit.evidence.magnitudes import Magnitude, measure
from auditkit.formats import canonical
from auditkit.formats.snapshot_file import FORMAT, tensor_key
from auditkit.formats.structure import to_dict
from auditkit.records.evidence import Trace
from auditkit.records.recording import RecordingManifest
from auditkit.records.tensor import RawTensor
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


# Traces that come in pieces


def cut(trace: Trace, *lengths: int) -> list[Trace]:
    """A trace in pieces of so many steps, the rest last."""
    pieces, first = [], trace.first_step
    for length in (*lengths, trace.n_rows):
        last = min(first + length - 1, trace.last_step)
        start, stop = first - trace.first_step, last - trace.first_step + 2
        columns = {}
        for name, column in trace.columns.items():
            cells = bytearray(column[start * 16 : stop * 16])
            if name in ("order", "batch") and last < trace.last_step:
                cells[-16:] = bytes(16)
            columns[name] = bytes(cells)
        losses = bytearray(trace.loss_bits[start * 8 : stop * 8])
        if last < trace.last_step:
            losses[-8:] = bytes(8)
        pieces.append(Trace(first, bytes(losses), columns))
        first = last + 1
        if first > trace.last_step:
            break
    return pieces


def whole(loop: Loop) -> Trace:
    (trace,) = traces_of(loop, 0)
    return trace


@given(
    st.sampled_from([{}, {"order_at": 4}, {"batch_at": 7}, {"state_at": 5}, {"state_at": 10}]),
    st.lists(st.integers(1, 4), max_size=5),
    st.lists(st.integers(1, 4), max_size=5),
)
def test_pieces_part_where_the_whole_does(
    change: dict[str, int], left: list[int], right: list[int]
) -> None:
    one, other = whole(Loop(steps=9)), whole(replace(Loop(steps=9), **change))  # type: ignore[arg-type]
    assert part("x", cut(one, *left), cut(other, *right)) == compare_traces("x", one, other)


@pytest.mark.parametrize(
    ("left", "right", "step", "kind"),
    [
        (Loop(steps=5), Loop(steps=9), 6, "length"),
        (Loop(steps=9), Loop(steps=5), 6, "length"),
        (Loop(steps=5), Loop(steps=9, state_at=6), 6, "state drift"),
        (Loop(steps=5), Loop(steps=9, state_at=7), 6, "length"),
        (Loop(steps=5), Loop(steps=9, order_at=6), 6, "length"),
        (Loop(steps=5, order_at=5), Loop(steps=9), 5, "order drift"),
    ],
)
def test_a_longer_trace_parts_where_the_shorter_one_ends(
    left: Loop, right: Loop, step: int, kind: str
) -> None:
    parting = part("x", [whole(left)], [whole(right)])
    assert parting is not None
    assert (parting.step, parting.kind) == (step, kind)


def test_traces_that_begin_elsewhere_are_compared_where_they_overlap() -> None:
    early, late = whole(Loop(steps=9)), cut(whole(Loop(steps=9)), 3)[1]
    parting = part("x", [early], [late])
    assert parting is not None
    assert (parting.step, parting.kind, parting.component) == (1, "length", "steps")
    moved = cut(whole(Loop(steps=9, batch_at=6)), 3)[1]
    parting = part("x", [early], [moved])
    assert parting is not None
    assert (parting.step, parting.kind) == (6, "data drift")
    parting = part("x", [cut(early, 3)[0]], [late])
    assert parting is not None
    assert parting.kind == "length"


def test_each_component_has_a_first_step_of_its_own(write: Write) -> None:
    left = write("a", Loop(steps=1030, checkpoints=()))
    right = write("b", Loop(steps=1030, checkpoints=(), batch_at=7, state_at=1027))
    (trace,) = compare(left, right).traces
    assert (trace.step, trace.component) == (7, "batch")
    assert trace.first_steps == {"batch": 7, "params": 1027}
    assert compare(write("c"), write("d", Loop(steps=9))).traces[0].first_steps == {}


def test_a_missing_piece_is_malformed_and_no_difference() -> None:
    pieces = cut(whole(Loop(steps=9)), 3, 3)
    with pytest.raises(FormatError, match="begins at step 7, not at 4"):
        part("x", [pieces[0], pieces[2]], [whole(Loop(steps=9))])


# Magnitudes


def snapshot(**tensors: RawTensor | bytes) -> tuple[Mapping[str, RawTensor], object]:
    specs: dict[str, Any] = {}
    stored = {}
    for name, value in tensors.items():
        if isinstance(value, bytes):
            specs[name] = {"json": json.loads(value)}
            continue
        specs[name] = {"dtype": value.dtype, "shape": list(value.shape)}
        as_bytes = RawTensor("uint8", (value.n_bytes,), value.data)
        stored[tensor_key("params", name)] = as_bytes if value.dtype == "complex64" else value
    return stored, {"format": FORMAT, "components": {"params": specs}}


def raw(dtype: str, values: Any, kind: str | None = None) -> RawTensor:
    array = np.array(values, dtype=kind or dtype)
    return RawTensor(dtype, array.shape, array.tobytes())


def gap(left: RawTensor | bytes, right: RawTensor | bytes) -> Magnitude:
    (found,) = measure(snapshot(x=left), snapshot(x=right))
    return found


@pytest.mark.parametrize(
    ("left", "right", "absolute", "relative"),
    [
        (raw("float32", [1, 2, 3]), raw("float32", [1, 4, 3.5]), 2.0, 0.5),
        (raw("float64", [0.0, -1]), raw("float64", [1e-9, -1]), 1e-9, 1.0),
        (raw("float64", [1.0]), raw("float64", [-1.0]), 2.0, 2.0),
        (raw("float16", [1.0]), raw("float16", [1.5]), 0.5, 1 / 3),
        (raw("bfloat16", [0x3F80], "<u2"), raw("bfloat16", [0x4000], "<u2"), 1.0, 0.5),
        (raw("float8_e4m3fn", [0x38], "u1"), raw("float8_e4m3fn", [0x40], "u1"), 1.0, 0.5),
        (raw("float8_e4m3fn", [0x01], "u1"), raw("float8_e4m3fn", [0x81], "u1"), 2**-8, 2.0),
        (raw("float8_e5m2", [0x3C], "u1"), raw("float8_e5m2", [0x40], "u1"), 1.0, 0.5),
        (raw("complex64", [3 + 4j]), raw("complex64", [0j]), 5.0, 1.0),
        (raw("bool", [True]), raw("bool", [False]), 1.0, 1.0),
        (raw("int8", [-128]), raw("int8", [127]), 255.0, 255 / 128),
        (raw("uint8", [0]), raw("uint8", [255]), 255.0, 1.0),
        (raw("int64", [2**62]), raw("int64", [2**62 + 1]), 1.0, 2**-62),
        (raw("int64", [-(2**63)]), raw("int64", [2**63 - 1]), 2.0**64, 2.0),
        (raw("uint64", [2**64 - 1]), raw("uint64", [0]), 2.0**64, 1.0),
        (raw("float32", [0.0]), raw("float32", [-0.0]), 0.0, 0.0),
        (raw("float32", 2.0), raw("float32", 3.0), 1.0, 1 / 3),
    ],
)
def test_the_largest_difference_is_found_in_every_dtype(
    left: RawTensor, right: RawTensor, absolute: float, relative: float
) -> None:
    found = gap(left, right)
    assert found.absolute == absolute
    assert found.relative == pytest.approx(relative)
    assert (found.absolute_tensor, found.relative_tensor, found.not_finite) == ("x", "x", 0)
    assert measure(snapshot(x=left), snapshot(x=left)) == ()


def test_each_largest_difference_names_its_tensor() -> None:
    left = snapshot(big=raw("float32", [100.0]), small=raw("float32", [1e-3, 5]))
    right = snapshot(big=raw("float32", [101.0]), small=raw("float32", [2e-3, 5]))
    (found,) = measure(left, right)
    assert (found.absolute_tensor, found.relative_tensor, found.elements) == ("big", "small", 2)


def test_what_is_not_finite_is_counted() -> None:
    found = gap(raw("float32", [math.nan, math.inf, 1]), raw("float32", [1, -math.inf, 2]))
    assert (found.elements, found.not_finite, found.absolute) == (3, 2, 1.0)
    found = gap(raw("float32", [math.nan]), raw("float32", [0]))
    assert (found.not_finite, found.absolute, found.relative) == (1, None, None)


def test_what_has_no_number_is_named() -> None:
    for left, right in (
        (raw("float32", [1.0]), raw("float32", [1.0, 2.0])),
        (raw("float32", [1.0]), raw("float64", [1.0])),
        (raw("float32", [1.0]), b"1"),
        (b"1", b"2"),
    ):
        found = gap(left, right)
        assert (found.unmeasured, found.absolute) == (("x",), None)
    (found,) = measure(snapshot(x=b"1"), snapshot(y=b"1"))
    assert found.unmeasured == ("x", "y")


# Recordings


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
        "command": {"command": ("train.py", "--lr", "1 2")},
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
    found = compare(write("a"), write("b", change=changed(command=("train.py", "--lr", "1 2"))))
    assert found.fields == (
        FieldDifference("command", "command", "train.py --epochs 1", "train.py --lr '1 2'"),
    )
    environment = write("c").recorded.environment
    more = replace(environment, packages={"numpy": "2.4.6", "scipy": "1.0"})
    found = compare(write("d"), write("e", change=changed(environment=more)))
    assert found.fields == (
        FieldDifference("environment", "packages: scipy", None, "1.0"),
        FieldDifference("environment", "packages: torch", "2.13.0", None),
    )


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
        ("#seed-1/control", "there is no seed 1, control; there are seed 0, trunk; seed 0, cont"),
        ("#rank-0", "there is no rank 0"),
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
