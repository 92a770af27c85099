from __future__ import annotations

import base64
import hashlib
import json
import shutil
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checklist_example import example_manifest, example_report
from click.testing import CliRunner, Result
from report_reading import named, parsed, tables, words
from self_checking import held_by
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak
from auditkit.cli import report as command
from auditkit.cli.group import main
from auditkit.errors import UsageError
from auditkit.formats import canonical
from auditkit.formats.statements import to_statement
from auditkit.records.estimate import ControlLevel, Interval, Persistence, SignedEstimate
from auditkit.records.report import CHECKS, CheckResult, Finding, VerificationReport
from auditkit.signing.envelopes import open_envelope, sign_statement
from auditkit.signing.keys import generate_key, public_line
from auditkit.verification.report_files import cached
from auditkit.verification.request import VerifyRequest

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1"

DISTANCES = "Distance from the control, and its excess over the placebo floor"
EFFECTS = "Treatment minus control, paired by seed"


def full_report() -> VerificationReport:
    """The example's report with a number in every column."""
    report = example_report()
    assert report.estimates is not None
    effects = [
        SignedEstimate(
            perturbation=name,
            metric=metric,
            variant="as-is",
            time=time,
            family="exploratory",
            seeds=(0, 1, 2, 3),
            per_seed=(0.1, 0.2, 0.3, 0.4),
            n=4,
            n_left_out=0,
            ate=1 / (3 + n),
            sd=0.1291,
            interval=Interval(-0.0123456 * (n + 1), 0.56789, 0.95),
            ate_in_control_sd=1.23456 + n,
            t_p=0.00012345 * (n + 1),
            adjusted_p=0.023456,
        )
        for n, (name, metric, time) in enumerate(
            (name, metric, time)
            for name in ("momentum-reset", "order-reverse")
            for metric in ("accuracy", "nll", "brier")
            for time in ("t0+W", "T")
        )
    ]
    levels = [
        ControlLevel("accuracy", "as-is", time, (0.9, 0.91, 0.92, 0.94), 0.91754, 0.1012, False)
        for time in ("t0+W", "T")
    ]
    lasting = Persistence("order-reverse", "tv", "as-is", 0.33333, Interval(0.1, None, 0.95))
    estimates = replace(
        report.estimates,
        signed=tuple(effects),
        levels=tuple(levels),
        persistence=(lasting,),
    )
    return replace(report, estimates=estimates)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's manifest, signed; its files do not exist."""
    folder = tmp_path_factory.mktemp("run")
    key = generate_key()
    path = folder / "manifest.json"
    path.write_bytes(sign_statement(to_statement(example_manifest()), key))
    (folder / "author.pub").write_text(public_line(key) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def told(signed: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., VerificationReport]:
    """Has the verifier find what is given."""
    digest = hashlib.sha256(open_envelope(signed.read_bytes()).payload).hexdigest()

    def tell(report: VerificationReport, **changes: Any) -> VerificationReport:
        found = replace(report, statement_sha256=digest, **changes)
        monkeypatch.setattr(command, "verify_path", lambda path, request: found)
        return found

    return tell


def invoke(path: Path, *options: str) -> Result:
    key = path.parent / "author.pub"
    return CliRunner().invoke(main, ["report", str(path), "--key", str(key), *options])


def three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def p_value(value: float | None) -> str:
    if value is None:
        return "-"
    if value < 0.001:
        return f"{value:.2g}"
    return f"{value:.4f}" if 0.0475 <= value <= 0.0525 else f"{value:.3f}"


def adjusted(row: dict[str, Any]) -> str:
    name = "Holm" if row["family"] == "primary" else "q"
    return "-" if row["adjusted_p"] is None else f"{p_value(row['adjusted_p'])} {name}"


def ends(row: dict[str, Any]) -> str:
    bounds = row["interval"]
    if bounds is None:
        return "-"
    return f"[{three(bounds['low'])}, {three(bounds['high'])}]"


def distance_cells(row: dict[str, Any]) -> list[str]:
    return [
        *(row[name] for name in ("perturbation", "metric", "time")),
        *(three(row[name]) for name in ("mean_distance", "floor", "excess")),
        "-" if row["rho"] is None else f"{row['rho']:.2f}",
        p_value(row["permutation_p"]),
        adjusted(row),
        row["verdict"],
    ]


def effect_cells(row: dict[str, Any]) -> list[str]:
    sds = row["ate_in_control_sd"]
    return [
        *(row[name] for name in ("perturbation", "metric", "time")),
        three(row["ate"]),
        ends(row),
        "-" if sds is None else f"{sds:.2f}",
        p_value(row["t_p"]),
        adjusted(row),
        row["verdict"],
    ]


def test_every_cell_is_the_number_of_the_json_report(
    signed: Path, told: Callable[..., VerificationReport], tmp_path: Path
) -> None:
    report = told(full_report())
    out = tmp_path / "report.html"
    assert invoke(signed, "--out", str(out), "--replay", "all", "--allow-code").exit_code == 0
    found = tables(out.read_text(encoding="utf-8"))
    estimates = json.loads(canonical.encode(report))["estimates"]
    distances = [distance_cells(row) for row in estimates["distances"]]
    effects = [effect_cells(row) for row in estimates["signed"]]
    bare = [[cell.rstrip(" ^*") for cell in row] for row in found[f"{EFFECTS}: all rows"][1:]]
    assert bare == effects
    assert len(effects) == 12
    assert found[f"{DISTANCES}: all rows"][1:] == distances
    assert found[DISTANCES][1:] == distances
    shown = [row for row in effects if row[1] != "brier"]
    assert [row[3:7] for row in found[EFFECTS][1:]] == [row[3:7] for row in shown]
    assert found["What the control reaches: mean over 4 seeds"][1:] == [
        ["accuracy", time, "0.918", "0.0171", "0.101", "better"] for time in ("t0+W", "T")
    ]
    assert found["Persistence: the effect at T over that at t0+W"][1:] == [
        ["order-reverse", "tv", "0.333", "[0.1, inf]", ""]
    ]


def test_pictures_and_tables_are_files(
    signed: Path, told: Callable[..., VerificationReport], tmp_path: Path
) -> None:
    told(full_report())
    options = ("--out", "r.html", "--figures", "figures", "--tables", "tables")
    placed = [str(tmp_path / o) if not o.startswith("-") else o for o in options]
    for _ in range(2):  # its own files are written again
        assert invoke(signed, *placed, "--replay", "all", "--allow-code").exit_code == 0
    names = {file.name for file in (tmp_path / "figures").iterdir()}
    pictures = ("seeds", "distances", "forest")
    assert names == {f"{name}.{form}" for name in pictures for form in ("pdf", "png")}
    names = {file.name for file in (tmp_path / "tables").iterdir()}
    kinds = ("levels", "distances", "effects", "persistence")
    further = {f"{kind}.csv" for kind in ("spread", "generalised", "profile")}
    assert names == {f"{kind}.{form}" for kind in kinds for form in ("csv", "tex")} | further
    assert (tmp_path / "tables" / "distances.tex").read_text().count(r" \\") == 5


def test_what_lies_in_the_files_is_drawn_and_what_has_gone_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(GOLDEN / "study", run)
    payload = open_envelope((run / "manifest.json").read_bytes()).payload
    found = replace(full_report(), statement_sha256=hashlib.sha256(payload).hexdigest())
    monkeypatch.setattr(command, "verify_path", lambda path, request: found)
    asked = [
        "report",
        str(run),
        "--key",
        str(run / "signer.pub"),
        "--out",
        str(tmp_path / "r.html"),
    ]
    asked += ["--figures", str(tmp_path / "f"), "--replay", "all", "--allow-code"]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0
    assert "not drawn" not in result.stderr
    names = {file.stem for file in (tmp_path / "f").iterdir()}
    assert {"divergence", "reliability"} <= names
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert {"Divergence over steps", "Reliability at T"} <= {
        words(node) for node in named(parsed(page), "h3")
    }
    (run / "seed-0000" / "placebo-0.trace.safetensors").unlink()
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0
    assert "not drawn: seed-0000/placebo-0.trace.safetensors" in result.stderr
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Divergence over steps" not in page
    assert "Reliability at T" in page


def test_where_there_is_nothing_to_draw_it_says_so(
    signed: Path, told: Callable[..., VerificationReport], tmp_path: Path
) -> None:
    told(example_report(replayed=False))
    (tmp_path / "t").mkdir()
    folders = ("--figures", str(tmp_path / "f" / "g"), "--tables", str(tmp_path / "t"))
    result = invoke(signed, "--out", str(tmp_path / "r.HTM"), *folders)
    assert result.exit_code == 0
    why = "(check 10, nothing was replayed"
    assert f"no figures: there is nothing to draw {why})" in result.stderr
    assert f"no tables: there are no estimates {why})" in result.stderr
    page = (tmp_path / "r.HTM").read_text(encoding="utf-8")
    assert f"None are shown {why}; auditkit report --replay all computes them)." in page
    assert not (tmp_path / "f").exists()  # what it made is gone, what was there is left
    assert (tmp_path / "t").is_dir()


def test_a_page_is_called_one(signed: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("page.txt", "page", "there"):
        result = invoke(signed, "--out", str(tmp_path / name), "--tables", str(tmp_path / "t"))
        assert (result.exit_code, "does not end in .html" in result.stderr) == (2, True)
    assert {path.name for path in tmp_path.iterdir()} & {"page.txt", "page", "t"} == set()


def test_a_large_study_stays_below_two_megabytes(
    signed: Path, told: Callable[..., VerificationReport], tmp_path: Path
) -> None:
    report = full_report()
    assert report.estimates is not None
    (row, *_) = report.estimates.signed
    many = tuple(replace(row, metric="brier", time=f"t0+{n}") for n in range(1990))
    told(replace(report, estimates=replace(report.estimates, signed=many)))
    out = tmp_path / "r.html"
    assert invoke(signed, "--out", str(out), "--replay", "all", "--allow-code").exit_code == 0
    assert f"{EFFECTS}: all rows" in out.read_text(encoding="utf-8")
    assert out.stat().st_size < 2_000_000
    told(replace(report, estimates=replace(report.estimates, signed=many * 20)))
    assert invoke(signed, "--out", str(out), "--replay", "all", "--allow-code").exit_code == 0
    assert f"{EFFECTS}: all rows" not in out.read_text(encoding="utf-8")
    assert "too many for a page" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("option", "name"), [("--figures", "forest.pdf"), ("--tables", "levels.csv")]
)
def test_a_file_of_somebody_else_is_not_replaced(
    signed: Path,
    told: Callable[..., VerificationReport],
    tmp_path: Path,
    option: str,
    name: str,
) -> None:
    told(full_report())
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / name).write_text("mine")
    result = invoke(signed, "--out", str(tmp_path / "r.html"), option, str(tmp_path / "there"))
    assert result.exit_code == 2
    assert "exists already" in result.stderr
    assert (tmp_path / "there" / name).read_text() == "mine"
    assert not (tmp_path / "r.html").exists()


def test_a_manifest_that_fails_says_so_and_its_exit_code_is_the_verifier_s(
    signed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    result = invoke(signed, "--out", str(out))  # really verified: none of its files exists
    assert result.exit_code == 1
    tree = parsed(out.read_text(encoding="utf-8"))
    first = next(text for text in tree.find("body").itertext() if text.strip())
    assert first.startswith("Does not verify")
    assert "code/study.py" in words(tree.find("body"))


def test_a_report_fills_what_needs_a_replay_and_the_page_says_where_it_is_from(
    signed: Path, told: Callable[..., VerificationReport], tmp_path: Path
) -> None:
    here = told(example_report(replayed=False))
    file = tmp_path / "report.json"
    earlier = replace(example_report(), statement_sha256=here.statement_sha256)
    file.write_bytes(canonical.encode(earlier))
    out = tmp_path / "report.html"
    assert invoke(signed, "--out", str(out), "--report", str(file)).exit_code == 0
    page = out.read_text(encoding="utf-8")
    assert DISTANCES in tables(page)
    assert "that nobody signed" in page
    both = invoke(signed, "--out", str(out), "--report", str(file), "--replay", "all")
    assert both.exit_code == 2


@pytest.mark.parametrize("number", [8, 10])
def test_a_page_of_what_did_not_verify_says_so_and_does_not_end_with_0(
    signed: Path, told: Callable[..., VerificationReport], tmp_path: Path, number: int
) -> None:
    here = told(example_report(replayed=False))
    wrong = CheckResult(number, "failed", "1 finding", (Finding("another number"),))
    checks = tuple(wrong if check.number == number else check for check in here.checks)
    seen = example_manifest().environment
    replayed = replace(here, checks=checks, verdict="failed", exit_code=1, environment=seen)
    kept = cached(here.manifest_sha256)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(canonical.encode(replayed))
    out = tmp_path / "report.html"
    result = invoke(signed, "--out", str(out))
    assert result.exit_code == 1
    assert f"check {number} {CHECKS[number]}: another number" in result.stderr
    page = out.read_text(encoding="utf-8")
    assert "Does not verify" in page
    assert "checks 1 to 3 were made again for this page" in page
    assert invoke(signed, "--out", str(out), "--replay", "none").exit_code == 0
    kept.write_bytes(canonical.encode(replace(replayed, environment=None)))  # it was not executed
    assert invoke(signed, "--out", str(out)).exit_code == 0
    kept.unlink()


def test_a_study_of_an_earlier_build_is_shown(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "study", tmp_path / "study")
    key, out = tmp_path / "study" / "signer.pub", tmp_path / "r.html"
    words_ = ["report", str(tmp_path / "study"), "--key", str(key), "--out", str(out)]
    assert CliRunner().invoke(main, words_).exit_code == 0
    page = out.read_text(encoding="utf-8")
    assert "Integrity only" in page
    assert {"Hardware", "Packages", "The plan and the program"} <= set(tables(page))
    assert "Not shown: that this was the only run" in page
    payload = open_envelope((GOLDEN / "study" / "manifest.json").read_bytes()).payload
    statement = base64.b64decode(held_by(page)["statement"])  # which the page checks itself
    assert zlib.decompress(statement) == payload


def test_a_recording_is_shown_with_components_and_checkpoints(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "recording", tmp_path / "exp")
    key, out = tmp_path / "exp" / "signer.pub", tmp_path / "r.html"
    words_ = ["report", str(tmp_path / "exp"), "--key", str(key), "--out", str(out)]
    assert CliRunner().invoke(main, words_).exit_code == 0
    found = tables(out.read_text(encoding="utf-8"))
    assert found["Checkpoints"][1][:2] == ["0", "10"]
    changed = {row[0]: row[3] for row in found["Components of rank 0"][1:]}
    assert changed["params"] == "yes"
    assert "Estimands" not in found


def test_the_loss_that_a_loop_logged_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(torch.ones(8, 3)), batch_size=2)
    with ak.Recorder(tmp_path / "exp") as recorder:
        recorder.wrap(model, optimizer, loader)
        for (x,) in loader:
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.log(loss=1 / 4, broken=float("nan"))
    out = tmp_path / "r.html"
    figures = ("--figures", str(tmp_path / "figures"))
    result = CliRunner().invoke(
        main, ["report", str(tmp_path / "exp"), "--out", str(out), *figures]
    )
    assert result.exit_code == 0
    page = out.read_text(encoding="utf-8")
    rows = {row[1]: row for row in tables(page)["Numbers that the loop logged"][1:]}
    assert rows["loss"] == ["0", "loss", "4", "0.25 at 1", "0.25 at 4", "0.25", "0.25"]
    assert rows["broken"][3:] == ["nan at 1", "nan at 4", "-", "-"]
    (picture,) = named(parsed(page), "svg")
    assert "loss, rank 0" in {words(node) for node in named(picture, "text")}
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {"loss.pdf", "loss.png"}


def test_without_matplotlib_nothing_is_begun(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise UsageError("auditkit report needs matplotlib, which is not installed")

    def verify(path: Path, request: VerifyRequest) -> VerificationReport:
        raise AssertionError("verified")

    monkeypatch.setattr(command, "require_matplotlib", missing)
    monkeypatch.setattr(command, "verify_path", verify)
    result = invoke(signed, "--out", str(tmp_path / "r.html"))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "r.html").exists()
