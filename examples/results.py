"""Run the worked examples on real data, verify them, and write their tables into the manual.

    python -m examples.results --data data               every study
    python -m examples.results --data data cifar10_vit   one study

``data`` is where the downloads are unpacked. What a study leaves lies below ``runs/results``;
the page is ``auditkit/manual/experiments.md``. Of it the lines between the comments ``NAME:begin``
and ``NAME:end`` are written anew, for every study that has left something.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import auditkit as ak
from auditkit.types import ControlLevel
from examples.back_flow_results import PAPER, block

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "auditkit" / "manual" / "experiments.md"


@dataclass(frozen=True)
class Study:
    """A worked example, and what its control must reach to be worth a table.

    Attributes:
        data: The folder of its data among the downloads; None where it needs none.
        metric: What the control is judged by at T.
        better_by: By how much it must be better than a constant guess.
        level: What it must reach; None where only ``better_by`` counts.
        guess: What a constant guess has of a measure, which the report does not know.
        regimes: Of a back-flow study; each is a study of its own.
        program: The example that is run; by default that of the study's name.
        options: Of ``run``, beside those of the example.
        is_long: It takes more than an hour: run only where it is named.
    """

    data: str | None
    metric: str = "accuracy"
    better_by: float = 0.1
    level: float | None = None
    guess: float | None = None
    regimes: tuple[str, ...] = ()
    program: str | None = None
    options: tuple[str, ...] = ()
    is_long: bool = False


STUDIES = {
    "cifar10_resnet18": Study("cifar-10-batches-bin", level=0.45),
    "imagenet_bn": Study("tiny-imagenet-200", level=0.30),
    "sst2_distilbert": Study("SST-2", level=0.78),
    "gpt2_text": Study("tinyshakespeare", metric="nll", better_by=0.8),
    "cifar10_vit": Study("cifar-10-batches-bin", better_by=0.2),
    "moco_queue": Study("cifar-10-batches-bin", better_by=0.1),
    "augmentation_stage": Study("cifar-10-batches-bin", better_by=0.25),
    "dqn_cartpole": Study(None, metric="measures/return", better_by=75, level=100, guess=9.6),
    "drifting_stream": Study(None, metric="new/accuracy", better_by=0.4),
    "back_flow": Study(
        "cifar-10-batches-bin", "classes/accuracy", better_by=0.2, regimes=tuple(PAPER)
    ),
    "back_flow_confirmed": Study(
        "cifar-10-batches-bin",
        "classes/accuracy",
        better_by=0.2,
        regimes=("resonant-strong", "resonant-mid"),
        program="back_flow",
        options=("--seeds", "15-78"),
        is_long=True,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m examples.results",
        description="Run the worked examples, verify them, and write their tables into a page.",
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"all where none is named: {', '.join(STUDIES)}")
    add("--data", type=Path, default="data", metavar="FOLDER", help="the downloads (%(default)s)")
    add("--out", type=Path, default="runs/results", metavar="FOLDER", help="runs (%(default)s)")
    add("--page", type=Path, default=PAGE, metavar="FILE", help="by default the manual's page")
    add("--only-page", action="store_true", help="run nothing: write what --out holds already")
    given = parser.parse_args()
    wrong = [name for name in given.names if name not in STUDIES]
    if wrong:
        parser.error(f"no study {wrong[0]!r}; there are {', '.join(STUDIES)}")
    short = [name for name, study in STUDIES.items() if not study.is_long]
    for name in [] if given.only_page else given.names or short:
        for regime in STUDIES[name].regimes or [""]:
            run(name, given.data, given.out, regime)
    page = given.page.read_text(encoding="utf-8")
    for name, study in STUDIES.items():
        left = [given.out / name / regime for regime in study.regimes or [""]]
        is_whole = all((folder / "tables.json").exists() for folder in left)
        if is_whole and f"<!-- {name}:begin -->" in page:
            page = replaced(page, name, result(name, given.out / name))
    given.page.write_text(page, encoding="utf-8")


def run(name: str, data: Path, out: Path, regime: str = "", *options: str) -> None:
    """Run and verify a study; what it printed and how long it took lies beside its folder."""
    study, folder = STUDIES[name], out / name / regime
    if folder.exists():
        sys.exit(f"{folder} is there already: move it away, or name another --out")
    folder.mkdir(parents=True)
    asked = [] if study.data is None else ["--arg", f"data={data / study.data}"]
    asked += ["--design", f"back-flow:{regime}"] if regime else []
    asked += options or study.options
    study_folder = str(folder / "study")
    program = f"{ROOT}/examples/{study.program or name}.py"
    _, run_time = call("run", program, *asked, "--out", study_folder)
    report = str(folder / "report.json")
    text, verify_time = call("verify", study_folder, "--json", report)
    times = {"run": round(run_time), "verify": round(verify_time)}
    (folder / "tables.json").write_text(json.dumps({"text": text, **times}, indent=1))


def call(*command: str) -> tuple[str, float]:
    """What auditkit printed, 80 columns wide, and its seconds on the processor, workers' too."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "auditkit", *command],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{done.stdout}\nauditkit {command[0]} ended with {done.returncode}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, spent


def result(name: str, folder: Path) -> str:
    """What the page has of a study's result.

    Raises:
        SystemExit: When its control did not learn what it should.
    """
    told: dict[str, Any]
    study = STUDIES[name]
    if study.regimes:
        for regime in study.regimes:
            require_learned(name, ak.load_report(folder / regime / "report.json"))
        told = json.loads((folder / study.regimes[0] / "tables.json").read_text())
        shown = f"`{study.regimes[0]}`:\n\n```\n{tables(told['text'])}\n```"
        return f"{block(folder, study.regimes)}\n\n{shown}"
    told = json.loads((folder / "tables.json").read_text())
    report = ak.load_report(folder / "report.json")
    if report.estimates is None or report.environment is None:
        sys.exit(f"{folder}: {report.verdict}")
    control, guess = require_learned(name, report)
    hardware, packages = report.environment.hardware, report.environment.packages
    about = (
        f"Verdict *{report.verdict}*, {report.replay}. At T the control's {study.metric} is "
        f"{control:.3g}, a constant guess's {guess:.3g}. "
        f"{told['run']} processor seconds to run and {told['verify']} to verify, on "
        f"{hardware['processor']} with {hardware['cpu capability']} and torch {packages['torch']}. "
        f"SHA-256 of the manifest: `{report.manifest_sha256[:16]}`."
    )
    return f"{about}\n\n```\n{tables(told['text'])}\n```"


def require_learned(name: str, report: ak.Report) -> tuple[float, float]:
    """What the control has at T, and a constant guess.

    Raises:
        SystemExit: When it did not learn what it should.
    """
    study = STUDIES[name]
    if report.estimates is None:
        sys.exit(f"{name}: {report.verdict}")
    control, guess = reached(study, report.estimates.levels)
    better = guess - control if study.metric.endswith("nll") else control - guess
    if better < study.better_by or (study.level is not None and control < study.level):
        sys.exit(f"{name}: the control's {study.metric} is {control:.3g} only")
    return control, guess


def reached(study: Study, levels: Sequence[ControlLevel]) -> tuple[float, float]:
    """What the control has at T, as a mean over the seeds, and a constant guess."""
    goal = (study.metric, "T", "as-is")
    level = next(each for each in levels if (each.metric, each.time, each.variant) == goal)
    guess = study.guess if level.constant_guess is None else level.constant_guess
    if guess is None:
        sys.exit(f"{study.metric}: nothing is guessed of it")
    return level.mean, guess


def tables(text: str) -> str:
    """The tables of a report, without what else stands in it."""
    start = text.index("Estimands over")
    end = min(text.index(word) for word in ("\nNote:", "\nTrust:") if word in text)
    kept, offer = [], False
    for line in text[start:end].strip().splitlines():
        offer = line.startswith("`auditkit explain") or (offer and bool(line))
        if not offer:
            kept.append(line.rstrip())
    return "\n".join(kept).strip()


def replaced(page: str, name: str, new: str) -> str:
    """The page with another block of a study."""
    begin, end = (f"<!-- {name}:{border} -->\n" for border in ("begin", "end"))
    before, rest = page.split(begin)
    return f"{before}{begin}\n{new}\n\n{end}{rest.split(end)[1]}"


if __name__ == "__main__":
    main()
