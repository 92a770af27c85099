"""Two studies of one plan, bit by bit: other states, and tables that are not of their states."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forging
import numpy as np
import pytest
from studies import Run

from auditkit.errors import ArtifactMismatch
from auditkit.records.agreement import ReproductionReport
from auditkit.verification.reproduction import compare_studies, read_study

BRANCH = "momentum-reset"


def compared(recorded: Run, reproduced: Run) -> ReproductionReport:
    """The two side by side."""
    studies = [read_study(run.path, _sha256(run.path)) for run in (recorded, reproduced)]
    return compare_studies(studies[0], studies[1])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def other_end(predicate: dict[str, Any]) -> None:
    """Commit to another state at the end of a branch."""
    (branch,) = [b for b in predicate["seeds"][0]["branches"] if b["name"] == BRANCH]
    branch["digests"]["T"]["params"] = "0" * 64


def other_states(run: Run) -> None:
    """Let a branch have ended in another state, as on another machine."""
    forging.edit_predicate(run, other_end)
    forging.edit_trace(run, BRANCH, run.manifest.plan.horizon + 1, "params")


def test_a_study_beside_itself_has_equal_bits(small: Run) -> None:
    report = compared(small, small)
    assert (report.bit_identical, report.edited) == (True, ())
    assert report.recorded_sha256 == report.reproduced_sha256 == _sha256(small.path)


def test_code_and_data_that_are_not_the_recorded_ones_are_named(
    small: Run, copied: Callable[[Run], Run]
) -> None:
    """A reproduction imports from its caller's environment, too: it names what it ran instead."""

    def listed(sha256: str) -> Callable[[dict[str, Any]], None]:
        file = {"name": "data/root/x", "size": 1, "sha256": sha256, "reason": None}

        def edit(predicate: dict[str, Any]) -> None:
            predicate["opened"] = {"files": [file], "left_out": 0}

        return edit

    other = copied(small)
    assert compared(small, other).other_code == ()
    forging.edit_predicate(small_data := copied_to(other), listed("a" * 64))
    forging.edit_predicate(other, listed("b" * 64))
    assert compared(small_data, other).other_data == ("data/root/x",)
    assert compared(small_data, small_data).other_data == ()

    def helper(predicate: dict[str, Any]) -> None:
        code = predicate["program"]["code"]
        code[0]["sha256"] = "0" * 64
        code.insert(0, {"name": "helper.py", "sha256": "1" * 64})

    forging.edit_predicate(other, helper)
    assert compared(small, other).other_code == ("helper.py", "tiny_study.py")


def copied_to(run: Run) -> Run:
    """A further copy beside a run."""
    folder = run.folder.with_name("further")
    shutil.copytree(run.folder, folder)
    return Run(folder, run.key)


@pytest.mark.parametrize("tables_too", [False, True])
def test_other_states_are_another_machine_and_no_edit(
    small: Run, copied: Callable[[Run], Run], tables_too: bool
) -> None:
    other = copied(small)
    other_states(other)
    if tables_too:
        forging.edit_outcome(other, BRANCH, "T", forging.flatter)
    report = compared(other, small)
    assert (report.bit_identical, report.edited) == (False, ())


def test_every_other_table_and_label_of_equal_states_is_named(
    small: Run, copied: Callable[[Run], Run]
) -> None:
    def next_class(labels: np.ndarray[Any, Any]) -> None:
        labels[0] = (labels[0] + 1) % 2

    other = copied(small)
    for time in ("T", "t0+W"):
        forging.edit_outcome(other, BRANCH, time, forging.flatter)
    forging.edit_outcome(other, BRANCH, "labels", next_class)
    report = compared(other, small)
    seed = small.manifest.seeds[0].seed
    assert not report.bit_identical
    assert report.edited == tuple(
        f"seed {seed}, {BRANCH}: the recorded {what} is not of the recorded states"
        for what in ("table t0+W", "table T", "label column")
    )


def test_a_table_is_not_excused_by_another_commitment_beside_it(
    small: Run, copied: Callable[[Run], Run]
) -> None:
    """The evidence of every row says that the state is the recorded one."""
    other = copied(small)
    forging.edit_predicate(other, other_end)
    forging.edit_outcome(other, BRANCH, "T", forging.flatter)
    edited = compared(other, small).edited
    assert [line.partition("recorded ")[2].partition(" is not")[0] for line in edited] == [
        "table T",
        "commitment to params after step 14",
    ]


def test_a_table_of_another_time_than_the_states_that_differ_is_named(
    small: Run, copied: Callable[[Run], Run]
) -> None:
    other = copied(small)
    other_states(other)
    forging.edit_outcome(other, BRANCH, "t0+W", forging.flatter)
    (line,) = compared(other, small).edited
    assert "table t0+W" in line


def test_another_probe_of_equal_states_is_named_for_every_branch(
    small: Run, copied: Callable[[Run], Run]
) -> None:
    def edit(predicate: dict[str, Any]) -> None:
        predicate["seeds"][0]["data"]["probe_sha256"] = "0" * 64

    other = copied(small)
    forging.edit_predicate(other, edit)
    forging.edit_outcome(other, BRANCH, "T", forging.flatter)
    report = compared(other, small)
    assert not report.bit_identical
    assert len(report.edited) == len(small.manifest.plan.branch_names)
    assert all("the recorded probe is not the one here" in line for line in report.edited)


def test_a_manifest_that_is_not_the_verified_one_is_not_read(small: Run) -> None:
    with pytest.raises(ArtifactMismatch, match="changed after it was verified") as caught:
        read_study(small.path, "0" * 64)
    assert caught.value.exit_code == 1
