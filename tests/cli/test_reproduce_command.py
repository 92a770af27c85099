"""``auditkit reproduce``: the same plan on this machine, and the two sets of estimands."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forging
import pytest
from cli_shell import Shell
from studies import Run

from auditkit.signing.keys import public_line

TINY = "tiny_study.py"
SMALL = ("--seeds", "0-1", "--perturb", "carry", "--perturb", "momentum-reset")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell.at(tmp_path_factory.mktemp("reproduce") / "user")


@pytest.fixture(scope="module")
def recorded(shell: Shell) -> Path:
    assert shell("run", TINY, *SMALL, "--out", "recorded").code == 0
    return shell.folder / "recorded/manifest.json"


def test_on_the_same_machine_every_estimand_agrees_in_its_bits(
    shell: Shell, recorded: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    done = shell("reproduce", str(recorded), "--out", str(out), "--json", "compared.json")
    assert done.code == 0, done.out + done.err
    assert "Every branch ended in the very bits of the record." in done.out
    compared = json.loads((shell.folder / "compared.json").read_bytes())
    assert (compared["bit_identical"], compared["edited"]) == (True, [])
    assert {row["verdict"] for row in compared["rows"]} == {"agree"}
    assert shell("verify", str(out / "manifest.json"), "--replay", "none").code == 0


def test_the_new_manifest_is_of_the_same_plan_and_code(
    shell: Shell, recorded: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    assert shell("reproduce", str(recorded), "--out", str(out)).code == 0
    said = [
        json.loads(shell("show", str(path), "--json").out)
        for path in (recorded, out / "manifest.json")
    ]
    for part in ("plan", "program"):
        assert said[0]["predicate"][part] == said[1]["predicate"][part]


def test_somebody_elses_code_is_not_run_unasked(shell: Shell, small: Run, tmp_path: Path) -> None:
    author = shell.write("author.pub", public_line(small.key) + "\n")
    out = str(tmp_path / "out")
    refused = shell("reproduce", str(small.path), "--out", out, "--key", str(author))
    assert (refused.code, "signed by somebody else's key" in refused.line) == (2, True)
    assert not Path(out).exists()
    options = ("--key", str(author), "--allow-code")
    assert shell("reproduce", str(small.path), "--out", out, *options).code == 0


def test_a_study_that_does_not_verify_is_not_run(
    shell: Shell, small: Run, copied: Callable[[Run], Run], tmp_path: Path
) -> None:
    forged = copied(small)
    forging.edit_trace(forged, "replica", 12, "params")
    author = shell.write("author.pub", public_line(small.key) + "\n")
    out = str(tmp_path / "out")
    options = ("--key", str(author), "--allow-code", "--out", out)
    done = shell("reproduce", str(forged.path), *options)
    assert done.code == 1
    assert "check 9 noise floor" in done.out
    assert not Path(out).exists()


@pytest.fixture
def edited(small: Run, copied: Callable[[Run], Run]) -> Run:
    """A study whose author moved one probe table, and signed again."""
    forged = copied(small)
    forging.edit_outcome(forged, "momentum-reset", "T", forging.flatter)
    return forged


def test_an_edited_outcome_is_said_and_exits_1(
    shell: Shell, small: Run, edited: Run, tmp_path: Path
) -> None:
    author = shell.write("author.pub", public_line(small.key) + "\n")
    options = ("--key", str(author), "--allow-code", "--out", str(tmp_path / "out"))
    done = shell("reproduce", str(edited.path), *options)
    seed = edited.manifest.seeds[0].seed
    assert done.code == 1
    line = f"mismatch: seed {seed}, momentum-reset: the recorded table T is not of the recorded"
    assert line in done.out
    assert done.out.count("mismatch:") == 1
    assert "the very bits" not in done.out


def test_the_estimands_of_an_edited_outcome_disagree_or_cannot_be_told(
    shell: Shell, small: Run, edited: Run, tmp_path: Path
) -> None:
    author = shell.write("author.pub", public_line(small.key) + "\n")
    options = ("--key", str(author), "--allow-code", "--out", str(tmp_path / "out"), "--json", "-")
    done = shell("reproduce", str(edited.path), *options)
    compared = json.loads(done.out)
    rows = [
        row
        for row in compared["rows"]
        if (row["perturbation"], row["time"], row["metric"], row["variant"])
        == ("momentum-reset", "T", "nll", "as-is")
    ]
    assert rows
    assert all(row["verdict"] != "agree" for row in rows)
    assert (done.code, compared["bit_identical"], len(compared["edited"])) == (1, False, 1)


@pytest.mark.parametrize("which", ["recorded", "reproduced"])
def test_a_manifest_that_changes_after_it_was_verified_is_not_used(
    shell: Shell, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    study, out = tmp_path / "recorded", tmp_path / "out"
    shutil.copytree(recorded.parent, study)
    module = importlib.import_module("auditkit.cli.reproduce")
    verify, target = module.verify, (study if which == "recorded" else out) / "manifest.json"

    def verify_and_swap(path: Path, *given: Any) -> Any:
        report = verify(path, *given)
        if path == target:
            path.write_bytes(path.read_bytes() + b"\n")
        return report

    monkeypatch.setattr(module, "verify", verify_and_swap)
    done = shell("reproduce", str(study / "manifest.json"), "--out", str(out))
    assert (done.code, "changed after it was verified" in done.line) == (1, True)
    assert out.exists() == (which == "reproduced")


def test_a_command_for_a_program_is_refused(shell: Shell, recorded: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    done = shell("reproduce", str(recorded), "--out", out, "--", "python", "train.py")
    assert (done.code, "not a command" in done.line) == (2, True)


def test_a_co_signature_is_no_consent_to_run_the_code(
    shell: Shell, small: Run, copied: Callable[[Run], Run], tmp_path: Path
) -> None:
    run = copied(small)
    assert shell("sign", str(run.path)).code == 0  # with this machine's own key
    out = str(tmp_path / "out")
    refused = shell("reproduce", str(run.path), "--out", out)
    assert (refused.code, "signed by somebody else's key" in refused.line) == (2, True)
    assert not Path(out).exists()
