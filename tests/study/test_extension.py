"""Seeds that are added to a finished study: one manifest of all, which names the look."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forging
import pytest
from cli_shell import Shell, content, timeless
from studies import Run, check_files, failures, findings_text

from auditkit.files import store
from auditkit.signing.trust import load_private_key

TINY = "tiny_study.py"
SMALL = ("--perturb", "carry", "--jobs", "1")


@pytest.fixture(scope="module")
def author(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A user who ran seed 0, and all of seeds 0 to 2 elsewhere."""
    shell = Shell.at(tmp_path_factory.mktemp("extension") / "user")
    assert shell("run", TINY, *SMALL, "--seeds", "0", "--out", "first").code == 0
    assert shell("run", TINY, *SMALL, "--seeds", "0-2", "--out", "whole").code == 0
    shutil.copytree(shell.folder / "first", shell.folder / "out")
    done = shell("run", TINY, "--add-seeds", "1,2", "--out", "out", "--jobs", "1")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("2 seeds, 4 branches each, to step 14: 76 training steps")
    return shell


def of(author: Shell, name: str = "out") -> Run:
    """The extended study."""
    key = load_private_key(author.folder / "config/auditkit/key")
    return Run(author.folder / name, key)


@pytest.fixture
def forged(author: Shell, tmp_path: Path) -> Run:
    """A copy of it."""
    shutil.copytree(author.folder / "out", tmp_path / "out")
    return Run(tmp_path / "out", of(author).key)


def test_the_same_seeds_are_the_same_study_but_for_what_was_extended(author: Shell) -> None:
    extended, whole = content(author.folder / "out"), content(author.folder / "whole")
    earlier = extended.pop("manifest-1.json")
    assert earlier == (author.folder / "first/manifest.json").read_bytes()
    assert extended == whole
    ours, theirs = (timeless(author.folder / name / "manifest.json") for name in ("out", "whole"))
    (extension,) = ours["predicate"].pop("extends")
    assert theirs["predicate"].pop("extends") == []
    assert (extension["manifest"], extension["seeds"]) == ("manifest-1.json", [0])
    assert ours["predicate"]["seeds"] == theirs["predicate"]["seeds"]
    assert ours["predicate"]["plan"] == theirs["predicate"]["plan"]


def test_reports_and_show_say_that_there_was_a_look(author: Shell) -> None:
    done = author("verify", "out/manifest.json", "--json", "-")
    assert done.code == 0, done.err
    notes = json.loads(done.out)["estimates"]["notes"]
    assert notes[0] == (
        "seeds were added after the results of 1 seed could be seen; no p value and no interval "
        "here accounts for such a look"
    )
    assert "seeds added to" in author("show", "out/manifest.json").out


def test_seeds_are_added_twice(author: Shell) -> None:
    shutil.copytree(author.folder / "out", author.folder / "twice")
    done = author("run", TINY, "--add-seeds", "7", "--out", "twice", "--jobs", "1")
    assert done.code == 0, done.err
    run = of(author, "twice")
    assert [extension.manifest for extension in run.manifest.extends] == [
        "manifest-1.json",
        "manifest-2.json",
    ]
    assert [extension.seeds for extension in run.manifest.extends] == [(0,), (0, 1, 2)]
    assert run.manifest.plan.seeds == (0, 1, 2, 7)
    report = check_files(run, strict=True)
    assert report.exit_code == 0, findings_text(report)


def test_what_is_no_such_study_is_refused_and_nothing_changes(author: Shell) -> None:
    source, folder = author.folder / TINY, author.folder / "first"
    before, original = content(folder), source.read_text()
    shutil.copytree(folder, author.folder / "copied", dirs_exist_ok=True)

    def refusal(*options: str, out: str = "copied", program: str = TINY) -> str:
        done = author("run", program, "--out", out, *options)
        assert done.code == 2, done.err
        return done.line

    add = ("--add-seeds", "5")
    assert "the study has seed 0 already" in refusal("--add-seeds", "0-3")
    assert "--add-seeds and horizon exclude each other" in refusal(*add, "--horizon", "20")
    assert "--add-seeds and --dry-run exclude each other" in refusal(*add, "--dry-run")
    assert "there is no finished run that seeds could be added to" in refusal(*add, out="nowhere")
    assert "the study is of another program" in refusal(*add, program="faulty_study.py")
    source.write_text(original.replace("lr=0.05", "lr=0.06"))
    try:
        text = "seeds cannot be added: tiny_study.py is another file than in the study"
        assert text in refusal(*add)
    finally:
        source.write_text(original)
    taken = author.folder / "copied" / "manifest-1.json"
    taken.write_text("my notes")
    assert "manifest-1.json is not this study's" in refusal(*add)
    assert taken.read_text() == "my notes"
    taken.unlink()
    damaged = author.folder / "copied" / "seed-0000" / "control.outcome.safetensors"
    damaged.write_bytes(before["seed-0000/control.outcome.safetensors"] + b"x")
    assert "seed-0000/control.outcome.safetensors is not the listed file" in refusal(*add)
    damaged.unlink()
    assert "seed-0000/control.outcome.safetensors is not the listed file" in refusal(*add)
    damaged.write_bytes(before["seed-0000/control.outcome.safetensors"])
    other = Shell.at(author.folder.parent / "other")
    shutil.copytree(folder, other.folder / "out")
    assert other("run", TINY, *add, "--out", "out").code == 3  # signed by somebody else
    assert content(folder) == content(author.folder / "copied") == before


def test_adding_seeds_goes_on_where_it_was_stopped(
    author: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(author.folder / "first", author.folder / "stopped")
    real = store._write_new

    def full(path: Path, chunks: Any, mode: int) -> None:
        if "seed-0002/.carry.trace" in str(path):
            raise OSError(28, "No space left on device")
        real(path, chunks, mode)

    add = ("run", TINY, "--add-seeds", "1,2", "--out", "stopped", "--jobs", "1")
    with monkeypatch.context() as patch:
        patch.setattr(store, "_write_new", full)
        assert author(*add).code == 2
    assert check_files(of(author, "stopped")).exit_code == 0  # what was finished is as it was
    assert "seeds are being added to this run: 1 of 2 seeds complete" in author(*add).line
    done = author(*add, "--resume")
    assert done.code == 0, done.err
    assert timeless(author.folder / "stopped/manifest.json") == timeless(
        author.folder / "out/manifest.json"
    )


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda told: told["extends"].clear(), "listed are not those that are extended"),
        (lambda told: told["extends"][0].update(seeds=[0, 1]), "its seeds or its end are not"),
        (lambda told: told["seeds"][0].update(order_sha256="0" * 64), "is not what stands here"),
        (lambda told: told["plan"].update(placebo_scale=2), "differs in more than its seeds"),
    ],
    ids=["not named", "other seeds", "another record", "another plan"],
)
def test_a_manifest_that_says_something_else_of_the_earlier_study_fails_check_4(
    forged: Run, edit: Callable[[dict[str, Any]], object], text: str
) -> None:
    def change(predicate: dict[str, Any]) -> None:
        edit(predicate)

    forging.edit_predicate(forged, change)
    report = check_files(forged)
    assert 4 in failures(report)
    assert text in findings_text(report)


def test_an_earlier_manifest_that_somebody_else_signed_fails_check_4(
    author: Shell, forged: Run
) -> None:
    other = Shell.at(forged.folder.parent / "other")
    assert other("run", TINY, *SMALL, "--seeds", "0", "--out", "first").code == 0
    forging.replace_file(
        forged, "manifest-1.json", (other.folder / "first/manifest.json").read_bytes()
    )
    report = check_files(forged)
    assert failures(report) == {4}
    assert report.exit_code == 1
    text = "manifest-1.json: is not signed by who signed this study"
    assert text in findings_text(report)
