"""A reviewer, from what he received to a verdict, with what the messages tell him to type."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_shell import CompletedCommand, Shell
from studies import Run, study_in_process

from auditkit.records.manifest import CodeFile
from auditkit.signing.keys import PrivateKey, fingerprint, generate_key, public_line
from auditkit.signing.trust import ensure_default_key
from auditkit.verification import report_files
from auditkit.verification.program_code import refuse_unknown_arguments


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of the study, which the reviewer has elsewhere."""
    path = tmp_path_factory.mktemp("data") / "points.txt"
    path.write_text(" ".join(f"{(7 * n) % 11 / 4 - 1:.2f}" for n in range(56)))
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey, points: Path) -> Run:
    """A study whose data are not where they were."""
    out = tmp_path_factory.mktemp("study") / "run"
    run = study_in_process(out, key, arguments={"path": str(points)})
    points.rename(points.with_name("moved.txt"))
    return run


@pytest.fixture
def received(study: Run, tmp_path: Path) -> Run:
    """The study as it was received."""
    shutil.copytree(study.folder, tmp_path / "received")
    return Run(tmp_path / "received", study.key)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Shell.at(tmp_path / "reviewer")


def next_line(done: CompletedCommand) -> list[str]:
    """What the messages say is to be typed."""
    (line,) = (line for line in done.out.splitlines() if line.startswith("next: auditkit "))
    return shlex.split(line.removeprefix("next: auditkit "))


def report_of(done: CompletedCommand) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(done.out)
    return told


def test_two_commands_lead_from_an_archive_to_a_replay(
    shell: Shell, study: Run, points: Path
) -> None:
    assert shell("pack", str(study.folder), "--out", "study.zip").code == 0
    first = shell("verify", "study.zip", "--replay", "2")
    assert first.code == 3
    name = fingerprint(study.key)
    typed = next_line(first)
    options = ["--fingerprint", name, "--allow-code", "--arg", "path=PATH"]
    assert typed == ["verify", "study.zip", "--replay", "2", *options]
    assert "gives this very fingerprint" in " ".join(first.out.split())
    moved = points.with_name("moved.txt")
    second = shell(*(word.replace("PATH", str(moved)) for word in typed))
    assert (second.code, "Verdict: sampled (exit 0)" in second.out) == (0, True), second.out
    assert second.out.splitlines()[-1] == "Verdict: sampled (exit 0)"
    assert f"--fingerprint {name}" in " ".join(second.out.split())  # Set by the verifier


def test_everything_that_is_lacking_is_in_the_json_too(shell: Shell, received: Run) -> None:
    told = report_of(shell("verify", str(received.folder), "--json", "-"))
    assert [need["option"] for need in told["needs"]] == [
        f"--fingerprint {fingerprint(received.key)}",
        "--allow-code",
        "--arg path=PATH",
    ]
    told = report_of(shell("verify", str(received.folder), "--replay", "none", "--json", "-"))
    assert len(told["needs"]) == 1  # nothing is executed
    (received.folder / "signer.pub").unlink()
    told = report_of(shell("verify", str(received.folder), "--replay", "none", "--json", "-"))
    assert [need["option"] for need in told["needs"]] == ["--key FILE"]
    (received.folder / "code" / "tiny_study.py").unlink()
    told = report_of(shell("verify", str(received.folder), "--json", "-"))
    assert (told["exit_code"], told["needs"]) == (1, [])  # no option mends that


def test_without_consent_nothing_has_failed(shell: Shell, received: Run) -> None:
    done = shell("verify", str(received.folder), "--fingerprint", fingerprint(received.key))
    assert (done.code, "Verdict: undecided (exit 6)" in done.out) == (6, True)
    assert "needs consent" in done.out
    assert "failed" not in done.out
    assert next_line(done)[-3:] == ["--allow-code", "--arg", "path=PATH"]


def test_missing_data_could_not_run_and_name_the_argument(shell: Shell, received: Run) -> None:
    options = ("--fingerprint", fingerprint(received.key), "--allow-code")
    done = shell("verify", str(received.folder), *options)
    assert (done.code, "could not run" in done.out) == (6, True)
    assert "where data lie elsewhere here, give --arg path=PATH" in " ".join(done.out.split())
    assert next_line(done)[-2:] == ["--arg", "path=PATH"]


def test_data_that_were_looked_for_in_vain_are_asked_for_again(
    shell: Shell, received: Run, points: Path
) -> None:
    options = ("--fingerprint", fingerprint(received.key), "--allow-code")
    for given in (("--arg", "path=nowhere.txt"), ("--arg=path=nowhere.txt",)):
        done = shell("verify", str(received.folder), *given, *options, "--replay", "1")
        assert done.code == 6
        assert "--arg path=PATH where it lies here: the replay" in " ".join(done.out.split())
        typed = next_line(done)
        assert [word for word in typed if "path=" in word] == ["path=PATH"]
    moved = str(points.with_name("moved.txt"))
    assert shell(*(word.replace("PATH", moved) for word in typed)).code == 0


LAZY = """
import tiny_study
STUDY = tiny_study.STUDY

def make_program(seed, root="data"):
    program = tiny_study.make_program(seed)
    points = program.loader.dataset

    class Files(type(points)):
        def __getitem__(self, index):
            open(f"{root}/{index}.txt").close()
            return super().__getitem__(index)

    points.__class__ = Files
    return program
"""


def test_data_that_are_missing_while_it_trains_are_asked_for(shell: Shell) -> None:
    shell.write("lazy.py", LAZY)
    for index in range(14):
        shell.write(f"data/{index}.txt", "")
    small = ("--seeds", "0", "--perturb", "carry")
    done = shell("run", "lazy.py", "--out", "lazy", *small)
    assert done.code == 0, done.err
    (shell.folder / "data").rename(shell.folder / "moved")
    done = shell("verify", "lazy")
    assert (done.code, next_line(done)) == (6, ["verify", "lazy", "--arg", "root=PATH"])
    assert shell("verify", "lazy", "--arg", "root=moved").code == 0


def test_an_argument_that_is_mistyped_is_wrong_use_before_anybody_is_trusted(
    shell: Shell, received: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("something was executed")

    monkeypatch.setattr("auditkit.replay.study_replay.replay", never)
    for options in ((), ("--fingerprint", fingerprint(received.key), "--allow-code")):
        done = shell("verify", str(received.folder), *options, "--arg", "pth=x")
        assert (done.code, done.out) == (2, "")
        assert done.line.startswith("the factory make_program takes no argument 'pth' (expected ")
        assert "path" in done.line


@pytest.mark.parametrize(
    "source",
    [
        "make_program = functools.partial(other)",
        "@wrapped\ndef make_program(seed): ...",
        "def make_program(seed): ...\nmake_program = other(make_program)",
        "from kit import *\ndef make_program(seed): ...",
        "def make_program(seed, **more): ...",
        "def make_program(seed, *more): ...",
        "if True:\n    def make_program(seed, path): ...",
        "def make_program(seed:",
    ],
)
def test_a_source_that_does_not_say_what_a_factory_takes_refuses_nothing(
    received: Run, source: str
) -> None:
    program = received.manifest.program
    file = received.folder / "code" / "tiny_study.py"
    file.write_text(source)
    digest = hashlib.sha256(source.encode()).hexdigest()
    code = (CodeFile("tiny_study.py", digest),)
    refuse_unknown_arguments(received.folder, replace(program, code=code), ["pth"])


def test_a_key_that_came_with_the_files_is_called_that(shell: Shell, received: Run) -> None:
    done = shell(
        *("verify", str(received.folder), "--replay", "none"),
        *("--key", str(received.folder / "signer.pub")),
    )
    said = " ".join(done.out.split())
    assert "check 2 signature, warning: that key came with the files" in said
    assert "Trust: trusted by signer.pub, which came with the files" in said


def test_naming_a_second_key_says_what_became_of_the_first(shell: Shell, received: Run) -> None:
    own, _ = ensure_default_key(shell.env)
    reviewer = shell.write("reviewer.pub", public_line(generate_key()) + "\n")
    mine = shell("run", "tiny_study.py", "--out", "mine", "--seeds", "0")
    assert mine.code == 0, mine.err
    done = shell("verify", "mine", "--replay", "none", "--key", str(reviewer))
    said = " ".join(done.out.split())
    assert done.code == 3
    assert "give the author's key as well: this machine trusts it, but where keys are" in said
    again = shell(*next_line(done))
    assert (again.code, "--fingerprint" in next_line(done)) == (0, True)
    assert fingerprint(own) in again.out
    other = shell("verify", str(received.folder), "--key", str(reviewer))
    assert "none of the keys that you named signed it" in " ".join(other.out.split())


def test_a_fingerprint_of_somebody_else_leads_to_no_other_one(shell: Shell, received: Run) -> None:
    paper = fingerprint(generate_key())
    assert shell("pack", str(received.folder), "--out", "received.zip").code == 0
    done = shell("verify", "received.zip", "--fingerprint", paper)
    assert (done.code, "next: " in done.out, "To go on" in done.out) == (3, False, False)
    said = " ".join(done.out.split())
    assert (
        "the fingerprint that you gave is not that of the key that signed "
        f"(expected {paper}, found {fingerprint(received.key)}); ask the author again"
    ) in said
    assert f"Set by the verifier: --fingerprint {paper}" in said
    assert "warning: --fingerprint: signer.pub: no key with that" in done.err  # nothing temporary


def test_the_right_fingerprint_of_a_key_that_is_not_there_asks_for_the_key(
    shell: Shell, received: Run
) -> None:
    (received.folder / "signer.pub").unlink()
    options = ("--replay", "none", "--fingerprint", fingerprint(received.key))
    done = shell("verify", str(received.folder), *options)
    assert (done.code, next_line(done)[-2:]) == (3, ["--key", "FILE"])
    assert "is not that of the key that signed" not in done.out


@pytest.mark.parametrize(
    ("require", "replay", "code"),
    [
        ("integrity", "none", 0),
        ("integrity-only", "none", 0),
        ("sampled", "none", 7),
        ("verified", "none", 7),
        ("sampled", "1", 0),
        ("verified", "1", 7),
        ("verified", "all", 0),
    ],
)
def test_less_than_required_has_an_exit_code_of_its_own(
    shell: Shell, small: Run, require: str, replay: str, code: int
) -> None:
    options = ("--fingerprint", fingerprint(small.key), "--replay", replay, "--allow-code")
    done = shell("verify", str(small.folder), *options, "--require", require)
    assert done.code == code, done.out
    assert f"(exit {code})" in done.out
    assert f"--require {require.removesuffix('-only')}" in " ".join(done.out.split())
    assert ("or more; this is less" in done.out) is (code == 7)
    assert "Shown: integrity" in done.out  # nothing is wrong


def test_what_is_wrong_outweighs_what_is_required(shell: Shell, small: Run) -> None:
    done = shell("verify", str(small.folder), "--replay", "none", "--require", "verified")
    assert done.code == 3


def test_a_report_is_left_and_the_checklist_finds_it(shell: Shell, received: Run) -> None:
    whole = ("--fingerprint", fingerprint(received.key), "--strict")
    before = shell("checklist", str(received.folder), *whole)
    assert (before.code, "Check 8 was not run" in before.out) == (0, True)
    moved = Path(received.manifest.program.arguments["path"]).with_name("moved.txt")
    done = shell(
        *("verify", str(received.folder), *whole, "--allow-code", "--arg", f"path={moved}")
    )
    report = received.folder / "report.json"
    assert (done.code, f"report: {report}" in done.err) == (0, True), done.out
    after = shell("checklist", str(received.folder), *whole)
    assert (after.code, "Check 8 was not run" in after.out) == (0, False)
    assert "with the report of your verification, " in after.err
    # It is listed nowhere, and --strict takes it for what it is.
    assert str(shell.folder) not in report.read_text()
    weaker = shell("verify", str(received.folder), *whole, "--replay", "none")
    assert (weaker.code, "report: " in weaker.err) == (0, False)
    assert json.loads(report.read_text())["verdict"] == "verified"


def test_a_report_that_somebody_put_there_is_not_used(shell: Shell, received: Run) -> None:
    (received.folder / "report.json").write_text('{"verdict": "verified"}')
    done = shell("checklist", str(received.folder), "--fingerprint", fingerprint(received.key))
    assert (done.code, "Check 8 was not run" in done.out) == (0, True)
    assert "report.json beside the manifest is not used" in done.err


def test_the_report_of_a_damaged_copy_is_not_used_and_it_is_said_what_left_it(
    shell: Shell, received: Run, tmp_path: Path
) -> None:
    copy = shutil.copytree(received.folder, tmp_path / "copy")
    outcome = next(copy.glob("seed-*/control.outcome.safetensors"))
    outcome.write_bytes(outcome.read_bytes()[:-1] + b"?")
    trust = ("--fingerprint", fingerprint(received.key))
    assert shell("verify", str(copy), *trust, "--allow-code").code == 1
    done = shell("checklist", str(received.folder), *trust)
    assert (done.code, "is not used" in done.err) == (0, True)
    again = f"`auditkit verify {received.folder / 'manifest.json'}` makes another"
    assert f"or in a copy, left it: {again}" in " ".join(done.err.split())


def test_a_report_in_a_folder_of_somebody_else_lies_in_the_cache(
    shell: Shell, received: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (received.folder / "report.json").write_text("somebody's own")
    done = shell(
        *("verify", str(received.folder), "--replay", "none"),
        *("--fingerprint", fingerprint(received.key)),
    )
    sha256 = hashlib.sha256(received.path.read_bytes()).hexdigest()
    assert f"report: {report_files.cached(sha256)}" in done.err
    assert (received.folder / "report.json").read_text() == "somebody's own"
