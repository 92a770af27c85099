"""Odd but honest programs: each is verified, or refused in words that say what to do.

Every function ``NAME(seed)`` of ``tests/programs/odd/odd_*.py`` is a program. By the command line,
in processes of their own, its study is run and then verified with every branch replayed.
"""

from __future__ import annotations

import ast
import shutil

import numpy as np
import pytest
from cli_shell import CompletedCommand, Shell
from documents import PAGES
from studies import PROGRAMS

ODD = PROGRAMS / "odd"

#: Seconds that a command may take; the compiler needs most of them.
TIMEOUT = 300

#: Words of the command line that a program needs.
_ORDER_ONLY, _STATE_ONLY = "--perturb order-reverse", "--perturb optimizer-reset"
OPTIONS = {
    "sparse_embedding_with_sgd": _ORDER_ONLY,  # an optimizer without state
    "sharpness_aware": _ORDER_ONLY,
    "sharpness_aware_registered": _ORDER_ONLY,
    "stream": _STATE_ONLY,  # batches without indices
    "stream_by_workers": _STATE_ONLY,
    # each epoch of each branch starts a process that imports torch
    "spawned_workers": f"--fork-at 1 --window 1 --horizon 2 {_ORDER_ONLY}",
    "data_file": "--arg path=points.csv",
    "mapped_file": "--arg path=points.npy",
    "dataclasses_and_enums": "--arg activation=relu",
}

#: What ``run`` refuses: the whole line.
REFUSED = {
    "bounded_embedding": (
        "seed 0, params: evaluating the probe changed the training state; Probe.predict must not "
        "train, draw or write; where the model itself writes, let it call a copy.deepcopy of it"
    ),
    "pruned_while_training": (
        "seed 0, params: 0.weight was added, removed or replaced while training; "
        "the factory must build the same objects for the same seed, and training must add, "
        "rename or remove none before t0; a loop of its own must have them before its first "
        "batch, where rec.step is past the step that changes them"
    ),
    "own_generator_unnamed": (
        "seed 0, rng: loss's noise is a torch.Generator whose state no snapshot would hold; "
        "register it: extras={'noise': <that generator>}"
    ),
}

#: State that these forget to name, and that no search finds: the replica and check 9 do.
FORGETFUL = {
    "adversaries_of_one_optimizer_each",
    "moving_teacher_unnamed",
    "counter_of_its_own",
}
UNHELD = "kernels are not deterministic, or the program keeps state that no snapshot holds"


def _programs() -> list[str]:
    """``FILE.py:NAME`` of every program."""
    found = [
        f"{file.name}:{node.name}"
        for file in sorted(ODD.glob("odd_*.py"))
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.args.args[:1]
        if node.args.args[0].arg == "seed"
    ]
    return [
        *found,
        "odd_training.py:methods",
        "odd_training.py:partial_loss",
        "lab.study:make_program",
    ]


TARGETS = {target.partition(":")[2]: target for target in _programs()}


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A user's folder with all the programs and what they read."""
    made = Shell.at(tmp_path_factory.mktemp("odd") / "home")
    shutil.copytree(ODD, made.folder, dirs_exist_ok=True)
    chance = np.random.default_rng(1)
    table = np.column_stack([chance.normal(size=(24, 6)).round(3), np.arange(24) % 3])
    np.save(made.folder / "points.npy", table.astype(np.float32))
    np.savetxt(made.folder / "points.csv", table, delimiter=",", fmt="%.3f")
    return made


def _call(shell: Shell, *arguments: str) -> CompletedCommand:
    process = shell.start(*arguments)
    out, err = process.communicate(timeout=TIMEOUT)
    return CompletedCommand(process.returncode, out, err)


def test_the_tables_name_programs_that_there_are_and_the_manual_counts_them() -> None:
    assert {*OPTIONS, *REFUSED, *FORGETFUL} <= set(TARGETS)
    n_verified = len(TARGETS) - len(REFUSED) - len(FORGETFUL)
    assert n_verified >= 60
    assert (
        f"Of {len(TARGETS)} odd but honest programs (`pytest -m slow "
        f"tests/study/test_odd_programs.py`) {n_verified} are verified, {len(REFUSED)} are refused "
    ) in PAGES["limits"]
    assert f"; the other {len(FORGETFUL)} " in PAGES["limits"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_an_odd_program_is_verified_or_told_what_to_do(name: str, shell: Shell) -> None:
    if name == "compiled" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("torch.compile needs a C++ compiler, and none is installed")
    out = f"runs/{name}"
    ran = _call(shell, "run", TARGETS[name], "--out", out, *OPTIONS.get(name, "").split())
    if name in REFUSED:
        assert ran.code == 1, ran.err
        assert ran.line == REFUSED[name]
        return
    assert ran.code == (name in FORGETFUL), ran.err
    report = _call(shell, "verify", f"{out}/manifest.json", "--replay", "all")
    told = report.out + report.err
    if name in FORGETFUL:
        assert report.code == 1, told
        assert "Verdict: failed (exit 1)" in report.out
        assert UNHELD in told
        return
    assert report.code == 0, told
    assert "Verdict: verified (exit 0)" in report.out


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_program_is_told_what_to_do_and_leaves_no_manifest(
    name: str, shell: Shell
) -> None:
    """In this process, which takes no time."""
    out = f"runs/{name}-here"
    assert shell("run", TARGETS[name], "--out", out).line == REFUSED[name]
    assert not (shell.folder / out / "manifest.json").exists()
