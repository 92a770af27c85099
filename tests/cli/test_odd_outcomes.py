"""What is said, command by command, of outcomes from which nothing can be told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_shell import Shell

PROGRAM = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import auditkit as ak


def make_program(seed: int, kind: str) -> ak.Program:
    draw = torch.Generator().manual_seed(7)
    x = torch.randn(16, 3, generator=draw)
    y = (x[:, 0] > 0).long()
    model = nn.Linear(3, 2)
    given = {
        "nan": lambda model, x: model(x) * float("nan"),
        "unnormalised": lambda model, x: model(x).exp(),
        "negative": lambda model, x: torch.tensor([[1.5, -0.5]]).expand(len(x), 2),
        "constant": lambda model, x: torch.zeros(len(x), 2),
    }
    labels = torch.ones(16, dtype=torch.long) if kind == "one-class" else y
    probe = ak.Probe(
        x, labels, given.get(kind), probabilities=kind in ("unnormalised", "negative")
    )
    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        loader=DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True),
        loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        probe=probe,
    )


STUDY = ak.StudyPlan(
    fork_at=3, window=1, horizon=5, seeds=range(3), perturbations=["momentum-reset"], placebos=1
)
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    shell = Shell.at(tmp_path_factory.mktemp("odd") / "home")
    shell.write("odd.py", PROGRAM)
    return shell


def run(shell: Shell, kind: str, *options: str) -> str:
    """What a run says; its folder is called after the kind."""
    out = kind + "".join(options)
    done = shell(*("run", "odd.py", "--out", out, "--arg", f"kind={kind}", "--jobs", "1", *options))
    assert done.code == 0, done.err
    return " ".join(done.err.split())


def said(shell: Shell, *arguments: str) -> tuple[int, str]:
    done = shell(*arguments)
    assert "Traceback" not in done.err
    return done.code, " ".join(f"{done.out} {done.err}".split())


@pytest.mark.parametrize(
    ("kind", "found"), [("unnormalised", "sums to "), ("negative", "sums to 1, least -0.5")]
)
def test_what_is_no_probability_is_refused_before_anything_is_spent(
    shell: Shell, kind: str, found: str
) -> None:
    for options in (("--dry-run",), ("--out", kind)):
        code, text = said(shell, "run", "odd.py", "--arg", f"kind={kind}", *options)
        assert code == 2
        assert "the probe gives no probabilities (expected rows of numbers" in text
        assert found in text
        assert "leave out Probe(probabilities=True)" in text


@pytest.mark.slow
def test_outcomes_that_are_nan_are_divergence_and_every_command_says_so(shell: Shell) -> None:
    told = run(shell, "nan")
    assert "control in 3 of 3 seeds (first at step 3)" in told
    assert "no pair is left, so verify will give no estimates" in told
    code, text = said(shell, "verify", "nan", "--jobs", "1", "--json", "nan.json")
    assert code == 1
    assert "no pair is left: every control or treatment diverged" in text
    json.loads((shell.folder / "nan.json").read_text(), parse_constant=pytest.fail)
    code, text = said(shell, "power", "nan", "--effect", "0.1")
    assert code == 2
    assert "no pair of the pilot is left: every control or treatment diverged" in text
    for command, out in (("report", "nan.html"), ("checklist", "nan.md")):
        code, text = said(shell, command, "nan", "--replay", "all", "--out", out)
        assert code == 1
        page = (shell.folder / out).read_text()
        assert "no pair is left: every control or treatment diverged" in page or (
            "no pair is left" in text and "does not verify" in page
        )


@pytest.mark.slow
def test_constant_outcomes_and_one_class_are_verified_and_told(shell: Shell) -> None:
    run(shell, "constant")
    code, text = said(shell, "verify", "constant", "--jobs", "1", "--all", "--json", "c.json")
    assert code == 0
    assert "exactly 0 (bit-identical)" in text
    assert " nan" not in text.lower().replace("nanoseconds", "")
    json.loads((shell.folder / "c.json").read_text(), parse_constant=pytest.fail)
    code, text = said(shell, "power", "constant", "--effect", "0.1")
    assert (code, "every effect of the pilot is exactly 0" in text) == (2, True)
    run(shell, "one-class")
    code, text = said(shell, "verify", "one-class", "--jobs", "1")
    assert (code, "every example of the probe has the label 1" in text) == (0, True)


@pytest.mark.slow
def test_a_single_seed_gives_values_only_everywhere(shell: Shell) -> None:
    run(shell, "plain", "--seeds=0")
    code, text = said(shell, "verify", "plain--seeds=0", "--jobs", "1", "--all")
    assert code == 0
    assert "fewer than 3" in text
    code, text = said(shell, "power", "plain--seeds=0", "--effect", "0.1")
    assert (code, "have no spread (expected two seeds at least" in text) == (2, True)
    for command, out in (("report", "one.html"), ("checklist", "one.md")):
        assert said(shell, command, "plain--seeds=0", "--out", out)[0] == 0
        assert Path(shell.folder / out).stat().st_size > 1000
