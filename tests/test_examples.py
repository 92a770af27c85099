"""The examples: they run, they verify, and the full ones show what they are meant to show."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checklist_example import example_report
from cli_shell import PATIENCE, Process, Shell

import auditkit
from auditkit.evidence.reader import RunEvidence
from auditkit.files import store
from auditkit.formats import canonical
from auditkit.records.manifest import StudyManifest
from auditkit.records.plan import StudyPlan
from auditkit.statistics.estimands import estimate
from auditkit.statistics.outcomes import SeedOutcomes
from auditkit.verification.branch_tables import branch_tables

EXAMPLES = Path(__file__).parents[1] / "examples"
DIGITS = str(EXAMPLES / "digits.py")

#: Runs a script that is killed in its 81st step.
KILLED = """
import os, runpy
from torch.optim.optimizer import register_optimizer_step_pre_hook
steps = []
def die(optimizer, args, kwargs):
    steps.append(1)
    if len(steps) == 81:
        os._exit(9)
register_optimizer_step_pre_hook(die)
runpy.run_path({script!r}, run_name="__main__")
"""


def test_there_is_a_test_of_every_example() -> None:
    here = ["digits", "find_nondeterminism", "paper_table", "plain_loop"]
    on_real_data = ["augmentation_stage", "cifar10_resnet18", "cifar10_vit", "dqn_cartpole"]
    on_real_data += [
        "drifting_stream",
        "gpt2_text",
        "imagenet_bn",
        "moco_queue",
        "sst2_distilbert",
        "back_flow",
    ]  # tests/examples
    names = sorted([*here, *on_real_data, "__init__", "results", "back_flow_results"])
    assert [path.stem for path in sorted(EXAMPLES.glob("*.py"))] == names


def test_a_short_study_of_digits_runs_and_verifies(tmp_path: Path) -> None:
    shell = Shell.at(tmp_path / "user")
    short = ["--seeds", "0", "--fork-at", "6", "--window", "3", "--horizon", "12"]
    done = shell("run", DIGITS, "--out", "digits", *short)
    assert (done.code, done.err) == (0, "")
    verified = shell("verify", "digits/manifest.json")
    assert verified.code == 0, verified.out


def test_the_table_of_a_paper_comes_from_the_report_alone(tmp_path: Path) -> None:
    report = example_report()
    path = tmp_path / "report.json"
    path.write_bytes(canonical.encode(report))
    shown = subprocess.run(
        [sys.executable, str(EXAMPLES / "paper_table.py"), str(path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    estimates = report.estimates
    assert estimates is not None
    rows = [line for line in shown.splitlines() if line.endswith(r"\\")]
    wanted = [
        row
        for row in estimates.distances
        if (row.metric, row.variant, row.time) == ("tv", "as-is", "T")
    ]
    assert [line.split(" & ")[0] for line in rows] == [
        row.perturbation.replace("--", " ") for row in wanted
    ]
    assert all(len(line.split(" & ")) == 5 for line in rows)
    assert f"{wanted[0].excess:.3g}" in rows[0]
    withheld = replace(example_report(replayed=False), estimates=None)
    path.write_bytes(canonical.encode(withheld))
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run([sys.executable, str(EXAMPLES / "paper_table.py"), str(path)], check=True)


def test_the_examples_are_type_checked_strictly() -> None:
    checked = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())["tool"]["mypy"]
    assert checked["strict"] is True
    assert "examples" in checked["files"]
    assert "ignore" not in (EXAMPLES / "paper_table.py").read_text()


def finish(process: Process) -> str:
    """Wait for a command that must end well; what it printed."""
    stdout, stderr = process.communicate(timeout=10 * PATIENCE)
    assert process.returncode == 0, f"{stdout}{stderr}"
    return stdout


@pytest.mark.slow
def test_the_fault_of_the_loop_is_found_by_the_doctor(tmp_path: Path) -> None:
    shell = Shell.at(tmp_path / "user")
    script = str(EXAMPLES / "find_nondeterminism.py")
    options = ["--steps", "6", "--json", "found.json"]
    process = shell.start("doctor", *options, "--", sys.executable, script)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, f"{stdout}{stderr}"
    text = " ".join(stdout.split())
    assert text.startswith("Not repeatable: step 1 made another ")
    assert re.search(r"task\d+ \(Linear\) input ran here where task\d+ \(Linear\) input", text)
    assert "tried PYTHONHASHSEED=0: equal" in text
    assert "the order of a set or dict of strings decides: sort it" in text
    assert json.loads((shell.folder / "found.json").read_bytes())["repeatable"] is False
    assert not (shell.folder / "runs").exists()


def test_the_plain_loop_goes_on_after_a_kill_and_replays(tmp_path: Path, interpreters: Any) -> None:
    shell = Shell.at(tmp_path / "user")
    script = str(EXAMPLES / "plain_loop.py")
    killed = shell.write("killed.py", KILLED.format(script=script))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with interpreters.Popen(
        [sys.executable, str(killed), "plain"], cwd=shell.folder, env=shell.env, **pipes
    ) as dead:
        _, said = dead.communicate(timeout=PATIENCE)
    assert dead.returncode == 9, said
    command = [sys.executable, script, "plain"]
    whole = subprocess.run(
        command, cwd=shell.folder, env=shell.env, capture_output=True, text=True, check=True
    )
    assert whole.stdout.startswith("accuracy 0.9")
    manifest = "plain/manifest.json"
    replayed = shell("replay", manifest, "--", *command)
    assert replayed.code == 0, replayed.err
    assert "Equal: 150 steps" in replayed.out
    verified = shell("verify", manifest)
    assert verified.code == 0  # by the author himself, so that it is his word
    assert "Verdict: integrity-only (exit 0)" in " ".join(verified.out.split())


def test_the_plain_loop_is_short_and_its_recorder_is_three_lines() -> None:
    lines = (EXAMPLES / "plain_loop.py").read_text().splitlines()
    assert len(lines) < 60
    assert [line[-6:] for line in lines if "# Recorder, line" in line] == [
        f"line {number}" for number in (1, 2, 3)
    ]


# The whole study


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The run of the README's first command, and the report of verifying it."""
    shell = Shell.at(tmp_path_factory.mktemp("digits") / "user")

    manifest = shell.folder / "digits" / "manifest.json"
    finish(shell.start("run", DIGITS, "--out", "digits"))
    finish(shell.start("verify", str(manifest), "--json", "report.json"))
    report: dict[str, Any] = json.loads((shell.folder / "report.json").read_bytes())
    return manifest.parent, report


def rows(report: dict[str, Any], kind: str, **fields: str) -> list[dict[str, Any]]:
    """Rows of the estimand tables."""
    found = [
        row
        for row in report["estimates"][kind]
        if all(row[name] == value for name, value in fields.items())
    ]
    assert found, fields
    return found


@pytest.mark.slow
def test_the_digits_are_verified_by_replay(digits: tuple[Path, dict[str, Any]]) -> None:
    _, report = digits
    assert (report["verdict"], report["exit_code"]) == ("verified", 0)
    assert [check["status"] for check in report["checks"]] == ["passed"] * 10
    assert report["estimates"]["n_seeds"] == 8


@pytest.mark.slow
def test_the_floor_of_the_digits_has_developed(digits: tuple[Path, dict[str, Any]]) -> None:
    floor = digits[1]["estimates"]["floor"]
    assert floor["developed"] is True
    assert floor["n_above"] >= 0.8 * floor["n_placebos"]


def outcomes_of(folder: Path) -> tuple[list[SeedOutcomes], StudyPlan]:
    """The recorded tables of the digits, which a replay has confirmed."""
    manifest = auditkit.load_manifest(folder)
    assert isinstance(manifest, StudyManifest)
    return branch_tables(RunEvidence(folder, manifest), {}), manifest.plan


@pytest.mark.slow
def test_of_the_digits_a_placebo_that_poses_as_treatment_is_rarely_an_effect(
    digits: tuple[Path, dict[str, Any]],
) -> None:
    """In every seed another of its placebos, drawn anew in each of 400 tries."""
    outcomes, plan = outcomes_of(digits[0])
    treated, *_ = plan.perturbations
    posing = replace(plan, placebos=plan.placebos - 1, perturbations=(treated,))
    (name,), found, random = posing.treatment_names, 0, np.random.default_rng(0)
    for _ in range(400):
        drawn = []
        for outcome in outcomes:
            chosen = int(random.integers(plan.placebos))
            rest = (p for number, p in enumerate(outcome.placebos) if number != chosen)
            treatments = {name: outcome.placebos[chosen]}
            drawn.append(replace(outcome, placebos=tuple(rest), treatments=treatments))
        rows = estimate(drawn, posing).distances
        found += any(row.verdict == "effect" for row in rows if row.family == "primary")
    assert found <= 0.05 * 400


@pytest.mark.slow
def test_of_the_digits_a_momentum_reset_is_always_an_effect_after_the_window(
    digits: tuple[Path, dict[str, Any]],
) -> None:
    """With whichever six of the eight seeds."""
    outcomes, plan = outcomes_of(digits[0])
    for chosen in combinations(outcomes, 6):
        own = replace(plan, seeds=tuple(outcome.seed for outcome in chosen))
        (row,) = (
            row
            for row in estimate(chosen, own).distances
            if (row.perturbation, row.metric) == ("momentum-reset", "tv")
            and (row.variant, row.time) == ("as-is", "t0+W")
        )
        assert row.verdict == "effect"


@pytest.mark.slow
@pytest.mark.parametrize("time", ["t0+W", "T"])
@pytest.mark.parametrize("variant", ["as-is", "recalibrated"])
@pytest.mark.parametrize("perturbation", ["momentum-reset", "order-reverse", "batchnorm-reset"])
def test_accuracy_never_changes_more_than_answers_do(
    perturbation: str, variant: str, time: str, digits: tuple[Path, dict[str, Any]]
) -> None:
    place = {"perturbation": perturbation, "variant": variant, "time": time}
    (accuracy,) = rows(digits[1], "signed", metric="accuracy", **place)
    (churn,) = rows(digits[1], "distances", metric="churn", **place)
    assert accuracy["seeds"] == churn["seeds"] == list(range(8))
    for change, answers in zip(accuracy["per_seed"], churn["per_seed"], strict=True):
        assert abs(change) <= answers + 1e-12


@pytest.mark.slow
def test_a_batchnorm_reset_moves_no_parameter_of_a_model_in_train_mode(
    digits: tuple[Path, dict[str, Any]],
) -> None:
    folder, report = digits
    for seed in range(8):
        traces = [
            store.read_tensors(folder / f"seed-{seed:04d}/{name}.trace.safetensors", what=name)[0]
            for name in ("control", "batchnorm-reset")
        ]
        control, treated = (
            {k: np.asarray(t.data).tobytes() for k, t in trace.items()} for trace in traces
        )
        assert control["params"] == treated["params"]
        assert control["loss_bits"] == treated["loss_bits"]
        assert control["batchnorm"] != treated["batchnorm"]
    for kind in ("signed", "distances"):
        for row in rows(report, kind, perturbation="batchnorm-reset", variant="recalibrated"):
            assert row["exactly_zero"] is True
            assert set(row["per_seed"]) == {0.0}
            assert row["verdict"] == "exactly 0 (bit-identical)"


@pytest.mark.slow
def test_the_digits_can_be_shown(digits: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = digits
    shell = Shell(folder.parent)
    assert shell("show", str(folder / "manifest.json")).code == 0
