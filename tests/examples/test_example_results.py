"""The page about the worked examples: what it shows was verified, and the control had learned."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from checklist_example import example_manifest, example_report
from cli_shell import PATIENCE, Process, Shell
from worked_examples import DATA, EXAMPLES, ROOT, STUDIES, data_of

from auditkit.formats import canonical
from auditkit.records.back_flow import Alignment, BackFlow
from auditkit.records.estimate import ControlLevel
from auditkit.records.report import VerificationReport

PAGE = (ROOT / "auditkit/manual/experiments.md").read_text()


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("examples.results")


TEXT = """#   check  result
Estimands over 3 seeds, 1 placebo each; t0+W = step 6, T = step 10; primary
metric tv

Distance from the control
tv   T   0.09
`auditkit explain WORD` explains: floor,
verdict, *

Treatment minus control
accuracy   T   0.01

Note: no test can
Trust: self-signed
"""


def write(folder: Path, report: VerificationReport) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tables.json").write_text(json.dumps({"text": TEXT, "run": 12, "verify": 13}))
    (folder / "report.json").write_bytes(canonical.encode(report))
    return folder


def learned(
    value: float, metric: str = "accuracy", guess: float | None = 0.1
) -> VerificationReport:
    """A report of what a control has reached at T, and what a constant guess has."""
    report = example_report()
    assert report.estimates is not None
    level = ControlLevel(
        metric, "as-is", "T", mean=value, constant_guess=guess, per_seed=(), at_chance=False
    )
    environment = example_manifest().environment
    hardware = {"processor": "EPYC", "cpu capability": "AVX2"}
    packages = {**environment.packages, "torch": "2.13.0"}
    return replace(
        report,
        estimates=replace(report.estimates, levels=(level,)),
        environment=replace(environment, hardware=hardware, packages=packages),
    )


def test_a_block_says_how_it_was_verified_and_shows_the_tables_alone(
    results: ModuleType, tmp_path: Path
) -> None:
    text = results.result("cifar10_resnet18", write(tmp_path / "a", learned(0.5)))
    about, block = text.split("\n\n```\n")
    assert "Verdict *verified*" in about
    assert "accuracy is 0.5, a constant guess's 0.1. 12 processor seconds to run and 13" in about
    assert learned(0.5).manifest_sha256[:16] in about
    start, end = TEXT.index("Estimands"), TEXT.index("\nNote")
    without_offer = TEXT[start:end].replace(
        "`auditkit explain WORD` explains: floor,\nverdict, *\n", ""
    )
    assert block == f"{without_offer.strip()}\n```"


def test_a_control_that_has_not_learned_ends_it(results: ModuleType, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", learned(0.44))
    with pytest.raises(SystemExit, match=r"cifar10_resnet18: the control's accuracy is 0.44 only"):
        results.result("cifar10_resnet18", folder)
    with pytest.raises(SystemExit, match="drifting_stream"):  # 0.4 better than a constant guess
        results.result("drifting_stream", write(tmp_path / "b", learned(0.44, "new/accuracy")))
    assert results.result("cifar10_vit", folder)


def test_a_measure_has_its_constant_guess_from_the_list_of_studies(
    results: ModuleType, tmp_path: Path
) -> None:
    folder = write(tmp_path / "a", learned(110.0, "measures/return", guess=None))
    text = results.result("dqn_cartpole", folder)
    assert "At T the control's measures/return is 110, a constant guess's 9.6." in text
    write(folder, learned(55.0, "measures/return", guess=None))
    with pytest.raises(SystemExit, match="dqn_cartpole: the control's measures/return is 55 only"):
        results.result("dqn_cartpole", folder)
    folder = write(tmp_path / "b", learned(0.5, guess=None))
    with pytest.raises(SystemExit, match="accuracy: nothing is guessed of it"):
        results.result("cifar10_vit", folder)


def test_only_the_block_of_a_study_is_written_anew(
    results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "out" / "drifting_stream", learned(0.9, "new/accuracy"))
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    options = ["--only-page", "--out", str(tmp_path / "out"), "--page", str(page)]
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["results", *options])
        results.main()
    new = page.read_text()
    begin, end = "<!-- drifting_stream:begin -->", "<!-- drifting_stream:end -->"
    assert new.split(begin)[0] == PAGE.split(begin)[0]
    assert new.split(end)[1] == PAGE.split(end)[1]
    assert new.count("accuracy is 0.9") == 1


def flows(carried: Sequence[float], broken: Sequence[float]) -> tuple[BackFlow, ...]:
    """Rows of total variation, of seeds 5, 6, ..."""
    contrast = [here - there for here, there in zip(carried, broken, strict=True)]
    seeds = tuple(range(5, 5 + len(carried)))
    floors = (0.0002,) * len(seeds)
    return tuple(
        BackFlow(
            *("data-change--name-blur", "classes/tv", "as-is", arm, seeds, tuple(values), floors),
            *(len(seeds), 0),
            exactly_zero=not any(values),
            verdict="verdict",
        )
        for arm, values in [("carried", carried), ("broken", broken), ("contrast", contrast)]
    )


def test_regimes_stand_beside_what_the_paper_prints(results: ModuleType, tmp_path: Path) -> None:
    given = {
        "resonant-strong": flows((0.01, 0.03), (-0.05, -0.03)),
        "resonant-mid": flows((0.0, -0.02), (-0.06, -0.06)),
        "negative": flows((0.0, 0.0), (0.0, 0.0)),
    }
    cosines = Alignment("control", (5, 6), (0.25, 0.75), 2, 0, mean=0.5)
    for regime, rows in given.items():
        report = learned(0.36, "classes/accuracy")
        assert report.estimates is not None
        estimates = replace(report.estimates, back_flow=rows, alignments=(cosines,))
        write(tmp_path / "back_flow" / regime, replace(report, estimates=estimates))
    text = results.result("back_flow", tmp_path / "back_flow")
    interval = "[-0.1071, +0.1471]"  # 0.02 and 12.706 * 0.01
    assert f"| resonant-strong | carried | 2 | +0.0200 {interval} | verdict | +0.0073 |" in text
    assert "| resonant-strong | carried less broken | 2 | +0.0600 | verdict | +0.0383 |" in text
    assert "| negative | broken | 2 | 0, to the bit | verdict | +0.0005 |" in text
    assert "paired by seed: carried +0.0300 [" in text
    assert ", 2 pairs, t = 1.50, p = 0.37; " in text  # 0.03 over 0.02; atan(2 / 3) * 2 / pi
    assert "at most 0.0002 in any seed: inside the paper's margin" in text
    assert "resonant-mid, A +0.5000 [" in text
    assert "resonant-strong, broken, seeds 5-6\n  -0.0500 -0.0300\n" in text
    assert text.count("Verdict *verified*, all ") == 3
    assert text.endswith("accuracy   T   0.01\n```")


def test_a_name_that_is_no_study_is_refused(
    results: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["results", "digit"])
    with pytest.raises(SystemExit) as ended:
        results.main()
    assert ended.value.code == 2
    assert "no study 'digit'; there are cifar10_resnet18" in capsys.readouterr().err


def test_its_help_says_how_it_is_called_and_what_there_is(
    results: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["results", "--help"])
    with pytest.raises(SystemExit) as ended:
        results.main()
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("usage: python -m examples.results ")
    assert all(name in text for name in STUDIES)
    assert "the downloads (data)" in text


# The page


def shown(name: str) -> str:
    """What the manual shows of a study."""
    return PAGE.split(f"<!-- {name}:begin -->\n")[1].split(f"<!-- {name}:end -->\n")[0]


def test_every_study_on_the_page_was_verified_and_stands_with_what_it_says(
    results: ModuleType,
) -> None:
    asked = {(study.program or name): study.data for name, study in results.STUDIES.items()}
    assert asked.items() <= STUDIES.items()
    told = re.findall(r"<!-- (\w+):begin -->", PAGE)
    assert len(told) == len(set(told)) >= 2
    for name in told:
        assert f"`examples/{results.STUDIES[name].program or name}.py`: " in PAGE
        block = shown(name)
        assert "Verdict *verified*, all " in block
        assert "\nWhat the control reaches: mean over" in block
        assert re.search(r"SHA-256 of the manifest: `[0-9a-f]{16}`", block)
    for start in ("It says", "It does not say"):
        assert PAGE.count(f"\n{start}: ") == len(told)


# Whole studies


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STUDIES))
def test_a_short_study_of_every_worked_example_runs_and_verifies(name: str, tmp_path: Path) -> None:
    where = data_of(name, STUDIES[name])
    shell = Shell.at(tmp_path / "user")
    # just before its second stage, or its segments
    fork_at = {"augmentation_stage": 147, "back_flow": 117}.get(name, 5)
    times = ["--fork-at", f"{fork_at}", "--window", "4", "--horizon", f"{fork_at + 6}"]
    short = ["--seeds", "0", "--placebos", "1", *times, "--out", "study"]
    finish(shell.start("run", str(EXAMPLES / f"{name}.py"), *where, *short))
    finish(shell.start("verify", "study", *where))


@pytest.mark.slow
def test_the_tables_of_the_stream_are_those_on_the_page(
    results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = platform(torch.backends.cpu.get_cpu_capability(), torch.__version__)
    if here not in shown("drifting_stream"):
        pytest.skip(f"the page is of another machine or torch: {here}")
    shell = Shell.at(tmp_path / "user")
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, shell.env[name])
    results.run("drifting_stream", DATA, tmp_path / "out")
    text = results.result("drifting_stream", tmp_path / "out" / "drifting_stream")
    assert text.split("\n\n```\n")[1] == shown("drifting_stream").strip().split("\n\n```\n")[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "two", "all_seeds"),
    [("back_flow", "5,6", "5-14"), ("back_flow_confirmed", "15,16", "15-78")],
)
def test_the_back_flow_of_two_seeds_is_that_on_the_page(
    results: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    two: str,
    all_seeds: str,
) -> None:
    here = platform(torch.backends.cpu.get_cpu_capability(), torch.__version__)
    if here not in shown(name) or not DATA.is_dir():
        pytest.skip(f"the page is of another machine or torch, or there are no data: {here}")
    shell = Shell.at(tmp_path / "user")
    for variable in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, shell.env[variable])
    results.run(name, DATA, tmp_path / "out", "resonant-strong", "--seeds", two)
    folder = tmp_path / "out" / name / "resonant-strong"
    estimates = json.loads((folder / "report.json").read_text())["estimates"]
    found = {row["arm"]: row for row in estimates["back_flow"] if row["metric"] == "classes/tv"}
    for arm in ("carried", "broken"):
        values = " ".join(f"{value:+.4f}" for value in found[arm]["per_seed"])
        assert f"resonant-strong, {arm}, seeds {all_seeds}\n  {values} " in shown(name)


def platform(capability: str, version: str) -> str:
    """Where tables came about, as the page says it: other kernels give other bits."""
    return f"with {capability} and torch {version}."


def finish(process: Process) -> None:
    """Wait for a command that must end well."""
    stdout, stderr = process.communicate(timeout=5 * PATIENCE)
    assert process.returncode == 0, f"{stdout}{stderr}"
