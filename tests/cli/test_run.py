"""``auditkit run``: what it writes, what its options mean, and how it refuses.

Whatever is refused is one line on stderr with the right exit code, and changes nothing.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_shell import (
    PATIENCE,
    Process,
    Shell,
    content,
    names_in,
    statement_bytes,
    timeless,
    wait_for,
)

from auditkit.signing.keys import generate_key, private_key_bytes

TINY = "tiny_study.py"

#: The shortest study: one seed, four branches.
SMALL = ("--seeds", "0", "--perturb", "carry")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell.at(tmp_path_factory.mktemp("run") / "user")


@pytest.fixture(scope="module")
def finished(shell: Shell) -> Path:
    """A finished run of the shortest study."""
    done = shell("run", TINY, *SMALL, "--out", "finished")
    assert (done.code, done.err) == (0, "")
    return shell.folder / "finished"


@pytest.fixture
def out(tmp_path: Path) -> str:
    """A folder that does not exist yet."""
    return str(tmp_path / "out")


def plan_of(manifest: Path) -> dict[str, object]:
    """The plan that a manifest holds."""
    plan = timeless(manifest)["predicate"]["plan"]
    assert isinstance(plan, dict)
    return plan


# What it does


def test_a_run_tells_its_manifest_its_key_and_what_comes_next(shell: Shell, out: str) -> None:
    key = shell("keygen").out.splitlines()[1]
    done = shell("run", TINY, *SMALL, "--out", out)
    assert (done.code, done.err) == (0, "")
    first, *others = (line.rstrip() for line in done.out.splitlines())
    assert first.startswith("1 seed, 4 branches each, to step 14: 38 training steps, about ")
    assert first.endswith("kB a seed")
    assert others.pop(0) == (
        "tv, 2 tests (1 perturbation x 2 times): no test can reach 0.05 with 1 seed; 6 are the "
        "fewest that can with 1 placebo a seed"
    )
    told = " ".join(" ".join(others).split())
    assert f"manifest: {out}/manifest.json" in told.replace(" /", "/") or out in told
    assert key.replace("fingerprint", "signed by") in told


def test_options_override_the_study_of_the_program(shell: Shell, out: str) -> None:
    options = "--fork-at 4 --window 2 --horizon 9 --seeds 3,5 --placebos 2 --probe-at 5,7-8"
    perturbations = ("--perturb", "order-swap", "--perturb", "ulp:scale=2")
    done = shell("run", TINY, "--out", out, *options.split(), *perturbations)
    assert done.code == 0, done.err
    plan = plan_of(Path(out, "manifest.json"))
    expected = {"fork_at": 4, "window": 2, "horizon": 9, "seeds": [3, 5], "placebos": 2}
    assert {name: plan[name] for name in expected} == expected
    assert plan["probe_at"] == [5, 7, 8]
    assert plan["perturbations"] == [
        {"name": "order-swap", "parameters": {}},
        {"name": "ulp", "parameters": {"draw": 0, "scale": 2}},
    ]
    assert names_in(Path(out)) == [
        "code",
        "manifest.json",
        "seed-0003",
        "seed-0005",
        "signer.pub",
    ]


def test_a_program_without_a_study_is_told_by_options_alone(shell: Shell, out: str) -> None:
    shell.write("plain.py", "from tiny_study import make_program\n")
    partly = shell("run", "plain.py", "--out", out, "--fork-at", "3", "--perturb", "carry")
    assert partly.code == 2
    assert "no option gives window, horizon, seeds; write STUDY" in partly.line
    rest = ("--window", "2", "--horizon", "6", "--placebos", "1")
    done = shell("run", "plain.py", "--out", out, "--fork-at", "3", *rest, *SMALL)
    assert done.code == 0, done.err


def test_a_dry_run_tells_the_cost_and_writes_nothing(shell: Shell, out: str) -> None:
    before = names_in(shell.folder)
    done = shell("run", TINY, "--dry-run", "--jobs", "2", "--probe-at", "7,12")
    assert (done.code, done.err) == (0, "")
    split = (re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in done.out.splitlines())
    rows = dict(row for row in split if len(row) == 2)
    assert rows["seeds x branches"] == "2 x 7, seeds 0-1"
    assert rows["branches"].startswith("control, replica, 1 placebo, carry, momentum-reset, batch")
    assert rows["training steps"] == str(2 * (14 + 6 * 8))
    assert rows["further steps"].startswith("7, 12: every branch is evaluated there, too")
    assert rows["one step"].endswith(" ms with its evidence")
    assert rows["processor time"].endswith(", process starts included")
    assert rows["wall time"].endswith(" with --jobs 2")
    assert rows["to verify"].startswith("as long")
    assert " a seed, " in rows["disk"]
    assert rows["primary metric"] == "tv, 8 tests (4 perturbations x 2 times)"
    assert rows["smallest p"] == "none: fewer than 3 seeds are not tested"
    assert rows["seeds"] == (
        "no test can reach 0.05 with 2 seeds; 8 are the fewest that can with 1 placebo a seed"
    )
    text = " ".join(done.out.split())
    assert rows["placebo"].startswith("scale 1 ulp, up to 0.000012 % of a float32 weight; nudged")
    assert "after step 6 of seed 0 alone, a placebo was TV " in text
    assert "from the control after 8 steps, as long as a branch (0.001 counts as grown): " in text
    assert "it is not likely to have grown by T: give --placebo-scale auto, or T later" in text
    assert not Path(out).exists()
    assert names_in(shell.folder) == before


def test_files_that_no_argument_names_are_warned_of_before_anything_is_spent(
    tmp_path: Path,
) -> None:
    shell = Shell.at(tmp_path / "user")
    (shell.folder / "numbers").mkdir()
    shell.write("numbers/points.txt", "0.5 " * 56)
    dry = shell("run", "beside_study.py", "--dry-run")
    assert dry.line.startswith("warning: the program opened files of its own folder")
    done = shell("run", "beside_study.py", *SMALL, "--out", "out")
    assert done.line == dry.line  # once
    assert "--arg data=numbers" in done.line
    named = shell("run", "beside_study.py", "--dry-run", "--arg", "data=numbers")
    assert named.err == ""


def test_what_cannot_be_told_yet_is_said_before_anything_is_spent(tmp_path: Path) -> None:
    shell = Shell.at(tmp_path / "user")
    shell.write(
        "own.py",
        "import tiny_study, torch\n"
        "from dataclasses import replace\n"
        "def make_program(seed):\n"
        "    p = tiny_study.make_program(seed)\n"
        "    ends = torch.optim.lr_scheduler.OneCycleLR(p.optimizer, 0.1, total_steps=10)\n"
        "    def step(program, batch, t):\n"
        "        program.optimizer.step(); program.scheduler.step()\n"
        "    return replace(p, scheduler=ends, step=step)\n"
        "STUDY = tiny_study.STUDY\n",
    )
    done = shell("run", "own.py", "--seeds", "0", "--perturb", "carry", "--out", "out")
    warning, error = done.err.splitlines()
    assert "OneCycleLR, at step 11 of 14, raised ValueError" in warning
    assert "step 11 raised ValueError" in error


def test_a_dry_run_makes_no_key(tmp_path: Path) -> None:
    shell = Shell.at(tmp_path / "user", keygen=False)
    assert shell("run", TINY, "--out", "out", "--dry-run").code == 0
    assert not (shell.folder / "config").exists()


def test_the_first_run_says_that_it_made_a_key_and_later_ones_do_not(tmp_path: Path) -> None:
    shell = Shell.at(tmp_path / "user", keygen=False)
    done = shell("run", TINY, *SMALL, "--out", "out")
    assert done.code == 0
    assert re.fullmatch(
        r"made a signing key, SHA256:\S+, in \S+key; this machine trusts it", done.line
    )
    assert shell("verify", "out/manifest.json", "--replay", "none").code == 0
    assert shell("run", TINY, *SMALL, "--out", "again").err == ""


def test_a_named_key_signs_and_no_other_is_made(tmp_path: Path) -> None:
    shell = Shell.at(tmp_path / "user", keygen=False)
    shell("keygen", "--out", "mine")
    assert shell("run", TINY, *SMALL, "--out", "out", "--key", "mine").code == 0
    assert not (shell.folder / "config").exists()
    pub, signer = shell.folder / "mine.pub", shell.folder / "out" / "signer.pub"
    assert signer.read_text() == pub.read_text()
    verify = ("verify", "out/manifest.json", "--replay", "none")
    assert (shell(*verify).code, shell(*verify, "--key", "mine.pub").code) == (3, 0)


# Programs


def test_a_program_takes_its_neighbours_along_and_is_replayed_from_them_alone(
    shell: Shell, out: str, tmp_path: Path
) -> None:
    home = tmp_path / "programs"
    (home / "parts").mkdir(parents=True)
    tiny = (shell.folder / TINY).read_text()
    (home / "parts" / "__init__.py").write_text("")
    (home / "parts" / "tiny.py").write_text(tiny)
    (home / "parts" / "unused.py").write_text("raise AssertionError\n")
    (home / "neighbour.py").write_text("from parts.tiny import make_program as built\n")
    text = "import neighbour\nfrom parts.tiny import STUDY\nmake_program = neighbour.built\n"
    (home / "my-study.py").write_text(text)
    done = shell("run", str(home / "my-study.py"), *SMALL, "--out", out)
    assert done.code == 0, done.err
    assert sorted(content(Path(out, "code"))) == [
        "my-study.py",
        "neighbour.py",
        "parts/__init__.py",
        "parts/tiny.py",
    ]
    for file in sorted(home.rglob("*.py")):
        file.unlink()
    verified = shell("verify", f"{out}/manifest.json")
    assert verified.code == 0, verified.out


def test_a_module_of_a_package_is_a_program(shell: Shell, out: str) -> None:
    shell.write("package/__init__.py", "")
    shell.write("package/inner/__init__.py", "")
    shell.write("package/inner/study.py", "from tiny_study import STUDY, make_program as other\n")
    done = shell("run", "package.inner.study:other", *SMALL, "--out", out)
    assert done.code == 0, done.err
    program = timeless(Path(out, "manifest.json"))["predicate"]["program"]
    assert program["target"] == "package.inner.study:other"
    assert sorted(content(Path(out, "code"))) == [
        "package/__init__.py",
        "package/inner/__init__.py",
        "package/inner/study.py",
        "tiny_study.py",
    ]
    assert shell("verify", f"{out}/manifest.json").code == 0


@pytest.mark.parametrize(
    ("program", "arguments"),
    [("odd_study.py:dict_batches", ()), (TINY, ("--arg", "data=iterable"))],
    ids=["text and numbers in a batch", "a loader without a length"],
)
def test_unusual_data_are_run_and_verified(
    program: str, arguments: tuple[str, ...], shell: Shell, out: str
) -> None:
    done = shell("run", program, *SMALL, *arguments, "--out", out)
    assert done.code == 0, done.err
    assert shell("verify", f"{out}/manifest.json").code == 0


def test_a_path_below_the_home_folder_is_recorded_without_it_and_found_again(
    shell: Shell, out: str, tmp_path: Path
) -> None:
    numbers = " ".join(str(n % 7) for n in range(56))
    path = shell.write("data/numbers.txt", numbers)
    done = shell("run", TINY, *SMALL, "--out", out, "--arg", f"path={path}")
    assert done.code == 0, done.err
    manifest = Path(out, "manifest.json")
    statement = timeless(manifest)
    assert statement["predicate"]["program"]["arguments"] == {"path": "~/data/numbers.txt"}
    assert str(shell.folder).encode() not in statement_bytes(manifest)
    assert shell("verify", str(manifest)).code == 0
    reviewer = Shell.at(tmp_path / "reviewer")
    trusting = ("verify", str(manifest), "--key", f"{out}/signer.pub", "--allow-code")
    missing = reviewer(*trusting)
    assert missing.code == 6
    assert "FileNotFoundError" in missing.out
    elsewhere = reviewer.write("other/place.txt", numbers)
    assert reviewer(*trusting, "--arg", f"path={elsewhere}").code == 0
    reviewer.write("data/numbers.txt", numbers)
    assert reviewer(*trusting).code == 0
    reviewer.write("data/numbers.txt", numbers.replace("1", "2"))
    assert reviewer(*trusting).code == 1


def test_a_branch_that_diverges_is_marked_and_is_no_failure(shell: Shell, out: str) -> None:
    arguments = ("--arg", "at=7", "--arg", "without_momentum=yes", "--seeds", "0")
    perturbations = ("--perturb", "carry", "--perturb", "momentum-reset")
    done = shell("run", "odd_study.py:diverging", *arguments, *perturbations, "--out", out)
    assert done.code == 0, done.err
    (seed,) = timeless(Path(out, "manifest.json"))["predicate"]["seeds"]
    diverged = {branch["name"]: branch["diverged_at"] for branch in seed["branches"]}
    assert diverged.pop("momentum-reset") == 7
    assert set(diverged.values()) == {None}
    assert "diverged at step 7" in shell("show", f"{out}/manifest.json").out
    verified = shell("verify", f"{out}/manifest.json")
    assert verified.code == 0, verified.out
    assert "Diverged and left out, by number of seeds: momentum-reset in 1" in verified.out


def test_a_program_that_is_not_deterministic_ends_with_1_and_can_be_looked_into(
    shell: Shell, out: str
) -> None:
    done = shell("run", "faulty_study.py:make_clock_program", *SMALL, "--out", out)
    assert done.code == 1
    text = " ".join(done.err.split())
    assert "seed 0, replica is not what the control is; 1 more such branch" in text
    assert f"`auditkit diff {out}#seed-0/control {out}#seed-0/replica`" in text
    parted = shell("diff", f"{out}#seed-0/control", f"{out}#seed-0/replica")
    step, component = re.search(r"step (\d+), (\w+):", text).groups()  # type: ignore[union-attr]
    assert parted.code == 1
    assert f"step {step} gave another {component} (state drift)" in parted.out
    assert shell("verify", f"{out}/manifest.json").code == 1


def test_a_study_of_which_everything_diverged_is_run_but_shows_nothing(
    shell: Shell, out: str
) -> None:
    done = shell("run", "odd_study.py:diverging", *SMALL, "--out", out)
    assert done.code == 0, done.err
    verified = shell("verify", f"{out}/manifest.json")
    assert verified.code == 1
    assert "check 10 estimands: no pair is left" in verified.out


# What is refused


def refusal(shell: Shell, code: int, *arguments: str) -> str:
    """The one line with which a run is refused."""
    done = shell("run", *arguments)
    assert (done.code, done.out) == (code, "")
    return done.line


@pytest.mark.parametrize(
    ("program", "code", "line"),
    [
        ("nowhere.py", 2, "no such program file: nowhere.py"),
        ("no.such:thing", 2, "no such module: no.such; give FILE.py:NAME or package.module:NAME"),
        ("tiny_study.py:nope", 2, "tiny_study.py has no function 'nope'; name one: "),
        ("tiny_study.py:N_SAMPLES", 2, "tiny_study.py has no function 'N_SAMPLES'; name one: "),
        ("study.txt", 2, "no such module: study.txt"),
    ],
)
def test_a_program_that_is_not_there_is_named(
    program: str, code: int, line: str, shell: Shell, out: str
) -> None:
    assert refusal(shell, code, program, "--out", out).startswith(line)
    assert not Path(out).exists()


@pytest.mark.parametrize(
    ("source", "code", "line"),
    [
        ("import nothing_like_it\n", 1, "bad.py:1: importing bad.py raised ModuleNotFoundError: "),
        ("1 / 0\n", 1, "bad.py:1: importing bad.py raised ZeroDivisionError: division by zero"),
        ("def (:\n", 1, "importing bad.py raised SyntaxError: "),
        ("def make_program(seed): ...\nSTUDY = 3\n", 2, "STUDY must be an auditkit.StudyPlan"),
        (
            "import auditkit as ak\nSTUDY = ak.StudyPlan(9, 9, 9, [0], ['carry'])\n",
            2,
            "the window ends at step 18, beyond the horizon 9; lower --fork-at or --window",
        ),
    ],
    ids=["missing import", "error", "syntax", "study of another type", "contradictory study"],
)
def test_a_program_that_cannot_be_imported_is_told_with_its_error(
    source: str, code: int, line: str, shell: Shell, out: str
) -> None:
    shell.write("bad.py", source)
    assert line in refusal(shell, code, "bad.py", "--out", out)
    assert not Path(out).exists()


@pytest.mark.parametrize(
    ("factory", "code", "line"),
    [
        ("raises", 1, "LookupError: no data for seed 0"),
        ("returns_none", 2, "the factory returns_none returned no Program"),
        ("wrong_model", 2, "Program.model has the wrong type"),
        ("wrong_loader", 2, "Program.loader has the wrong type"),
        ("wrong_optimizer", 2, "the optimizer holds no parameter of the model"),
        ("wrong_labels", 2, "Probe.labels must hold one class index an example"),
        ("no_probe", 2, "Program.probe has the wrong type"),
        ("no_batches", 2, "the data loader yields no batch"),
        ("opaque_batches", 1, "odd_study.Opaque"),
    ],
)
def test_a_factory_that_builds_something_else_is_told_with_its_seed(
    factory: str, code: int, line: str, shell: Shell, out: str
) -> None:
    told = refusal(shell, code, f"odd_study.py:{factory}", *SMALL, "--out", out)
    assert told.startswith("seed 0")
    assert line in told
    assert not Path(out, "manifest.json").exists()
    done = shell("run", TINY, *SMALL, "--out", out)
    assert done.code == 0, "a run without a complete seed is started anew"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--perturb nope", "unknown perturbation 'nope' (expected adam-reset, augmentation-off, "),
        (
            "--perturb adam-reset:x=1",
            "adam-reset has no parameter 'x' (expected moments, params, step)",
        ),
        ("--perturb adam-reset:moments=x", "moments=x is not allowed (expected m or v or mv)"),
        ("--perturb adam-reset:moments", "'moments' is not key=value"),
        ("--dry-run --key nowhere", "nowhere"),
        ("--perturb ulp:scale=0", "scale=0 is not allowed (expected a whole number of at least 1)"),
        ("--perturb carry:x=1", "carry has no parameter 'x' (expected no parameter)"),
        ("--perturb carry --perturb carry", "a perturbation is given twice"),
        ("--perturb ulp --perturb ulp:draw=0", "a perturbation is given twice"),
        ("--perturb=", "--perturb is empty"),
        ("--fork-at 14", "the window ends at step 17, beyond the horizon 14; lower --fork-at"),
        ("--fork-at 0", "fork_at must be a whole number of 1"),
        ("--window -1", "window must be a whole number of 1"),
        ("--horizon 8", "the window ends at step 9, beyond the horizon 8"),
        ("--seeds x", "--seeds takes whole numbers, such as 5, 0-7 or 1,3,5, not 'x'"),
        ("--seeds=", "--seeds is empty"),
        ("--seeds 1,1", "a seed is given twice"),
        ("--seeds 0-2,1", "a seed is given twice"),
        ("--seeds 99999999999999999999", "seeds must lie in 0 .. 2**63-1"),
        ("--placebos 0", "placebos must be a whole number of 1"),
        ("--jobs 0", "--jobs must be at least 1, not 0"),
        ("--arg data", "--arg 'data' is not name=value"),
        ("--arg a=1 --arg a=2", "--arg a is given twice"),
    ],
)
def test_options_that_cannot_mean_anything_are_refused_before_anything_is_done(
    options: str, line: str, shell: Shell, out: str
) -> None:
    assert line in refusal(shell, 2, TINY, "--out", out, *options.split())
    assert not Path(out).exists()


@pytest.mark.parametrize("name", ["nope", "seed"])
def test_an_argument_that_the_factory_does_not_take_is_told_with_those_it_takes(
    name: str, shell: Shell, out: str
) -> None:
    line = refusal(shell, 2, TINY, "--out", out, "--arg", f"{name}=1")
    assert f"the factory make_program takes no argument '{name}' (expected optimizer, " in line


@pytest.mark.parametrize(
    ("perturbation", "arguments", "line"),
    [
        (
            "adam-reset",
            (),
            "adam-reset:moments=mv,step=reset: SGD keeps no exp_avg at t0; it keeps "
            "momentum_buffer: momentum-reset or optimizer-reset fits",
        ),
        (
            "batchnorm-reset",
            ("--arg", "parts=dropout"),
            "batchnorm-reset: the model has no BatchNorm with running statistics",
        ),
    ],
)
def test_a_perturbation_that_does_not_fit_is_refused_before_anything_is_trained(
    perturbation: str, arguments: tuple[str, ...], line: str, shell: Shell, out: str
) -> None:
    options = (TINY, "--seeds", "0", "--perturb", perturbation, *arguments)
    said = f"seed 0, after 2 steps: this program cannot be perturbed as planned: {line}"
    assert refusal(shell, 2, *options, "--out", out) == said
    assert refusal(shell, 2, *options, "--dry-run") == said
    assert not Path(out).exists()


def test_a_folder_that_is_no_place_for_a_run_is_refused_and_kept(
    shell: Shell, finished: Path
) -> None:
    file = shell.write("places/file", "precious")
    cases = {
        "places/file": "cannot make the folder 'places/file': File exists",
        "places/file/below": "cannot make the folder 'places/file/below': Not a directory",
        "places": "places: the folder is not empty: it holds 'file'; give another --out",
        "finished": "finished: the folder holds a finished run; give another --out; auditkit run "
        "--add-seeds adds seeds to it",
    }
    before = content(finished)
    for place, line in cases.items():
        for resume in ((), ("--resume",)):
            assert refusal(shell, 2, TINY, *SMALL, "--out", place, *resume) == line
    assert file.read_text() == "precious"
    assert content(finished) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    line = refusal(shell, 2, TINY, *SMALL, "--out", str(tmp_path / "locked"))
    assert "Permission denied" in line


def test_a_key_that_cannot_sign_is_refused_before_training(shell: Shell, out: str) -> None:
    shell.write("garbage", "garbage")
    shell.write("empty", "")
    locked = shell.folder / "locked"
    locked.write_bytes(private_key_bytes(generate_key(), "secret"))
    cases = {
        "nowhere": "cannot read 'nowhere': No such file or directory",
        "garbage": "garbage: it holds no private key",
        "empty": "empty: the key file is empty",
        "locked": "locked: the key is encrypted: give its password; where no terminal can ask, "
        "$AUDITKIT_KEY_PASSWORD holds it",
        ".": "cannot read '.': not a regular file",
    }
    for key, line in cases.items():
        assert refusal(shell, 2, TINY, *SMALL, "--out", out, "--key", key) == line
    assert not Path(out).exists()


@pytest.mark.parametrize(
    "when",
    ["auditkit.study.runner.views", "studies.InProcessWorkers.stop", "auditkit.cli.run.print_run"],
)
def test_an_interrupt_of_a_run_that_is_complete_says_where_it_is(
    shell: Shell, out: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def interrupt(*_: object) -> None:
        if Path(out, "manifest.json").exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(when, interrupt)
    done = shell("run", TINY, *SMALL, "--out", out)
    assert done.code == 130
    assert done.line == f"interrupted; the run was complete: {out}/manifest.json"


def test_an_interrupt_of_seeds_that_are_added_does_not_call_them_complete(
    shell: Shell, finished: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    shutil.copytree(finished, out)
    monkeypatch.setattr("auditkit.study.runner.run_seeds", interrupt)
    done = shell("run", TINY, "--out", out, "--add-seeds", "1")
    assert (done.code, done.line) == (130, "interrupted; nothing to keep yet")


# Progress and interrupts, in processes of their own


@pytest.fixture
def halt(tmp_path: Path) -> Callable[[int, int], dict[str, str]]:
    """Lets the halting program wait: variables by build and step."""
    return lambda build, step: {"AUDITKIT_TEST_HALT": f"{build}:{step}:{tmp_path / 'halted'}"}


def end(process: Process) -> tuple[str, str]:
    """Wait for a process."""
    try:
        return process.communicate(timeout=PATIENCE)
    finally:
        process.kill()


def test_ctrl_c_is_one_line_and_leaves_only_partial_files(
    shell: Shell, out: str, tmp_path: Path, halt: Callable[[int, int], dict[str, str]]
) -> None:
    force = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}  # no reason to draw a bar into a file
    process = shell.start("run", "halting_study.py", "--out", out, env={**halt(1, 3), **force})
    wait_for((tmp_path / "halted").exists)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to parent and workers
    _, stderr = end(process)
    assert stderr == "auditkit: interrupted; nothing to keep yet\n"
    assert process.returncode == 130
    files = [path for path in Path(out).rglob("*") if path.is_file()]
    assert files
    assert all(path.suffix == ".partial" for path in files)


def test_a_terminal_shows_seed_branch_and_step(
    shell: Shell, out: str, tmp_path: Path, halt: Callable[[int, int], dict[str, str]]
) -> None:
    terminal, its_end = pty.openpty()
    options = ("--out", out, "--jobs", "1", *SMALL)
    env = {**halt(2, 11), "TERM": "xterm", "COLUMNS": "120"}
    process = shell.start("run", "halting_study.py", *options, stderr=its_end, env=env)
    os.close(its_end)
    shown = b""
    deadline = time.monotonic() + PATIENCE
    wanted = re.compile(rb"seed 0: (placebo-0|carry|replica), step \d+")
    try:
        while not wanted.search(shown):
            assert time.monotonic() < deadline, shown
            if select.select([terminal], [], [], 0.1)[0]:
                shown += os.read(terminal, 65536)
        assert re.search(rb"run: +\d+ of 38 steps", shown), "steps of all branches"
        process.send_signal(signal.SIGINT)
        end(process)  # what it still writes fits into the terminal's buffer
        assert process.returncode == 130
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def test_a_full_disk_is_one_line(shell: Shell, out: str) -> None:
    # A file may not grow beyond 4 KiB: traces fit, the snapshot does not.
    limited = (
        f"ulimit -f 4; exec {sys.executable} -m auditkit run {TINY} --out {out} {' '.join(SMALL)}"
    )
    done = subprocess.run(
        ["bash", "-c", limited],  # noqa: S607 # any that knows ulimit
        cwd=shell.folder,
        env=shell.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    topic = re.escape(" (auditkit explain StoreError)")
    assert re.fullmatch(rf"auditkit: .*cannot write '.*': File too large{topic}\n", done.stderr)
    assert not list(Path(out).rglob("manifest.json"))
