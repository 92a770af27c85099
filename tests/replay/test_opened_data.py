"""Other data than the recorded ones are named; what nobody hashed is named, too."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import forging
import numpy as np
import pytest
from studies import Run, check, check_files, failures, findings_text, result_of, study_in_process

from auditkit.cli.tables import print_report
from auditkit.formats import canonical
from auditkit.formats.structure import to_dict
from auditkit.paper.checklist import fill
from auditkit.paper.rendering import to_markdown
from auditkit.records.opened import OpenedFile, OpenedFiles, unhashed_notes
from auditkit.records.plan import StudyPlan
from auditkit.replay.opened import OpenedHere, OpenedJudge
from auditkit.signing.keys import PrivateKey
from auditkit.verification.program_code import opened_report, unopened_finding
from auditkit.verification.report_json import report_from_json

READING = "reading_study.py:make_program"
PLAN = StudyPlan(3, 2, 6, [0], ["carry"], placebos=1)
LISTED = ["data/root/inputs.npy", "data/root/labels/labels.csv"]


def lay(folder: Path, *, first: int = 0) -> Path:
    """The data of the reading study."""
    (folder / "labels").mkdir(parents=True)
    inputs = np.linspace(-1, 1, 56, dtype=np.float32).reshape(14, 4)
    np.save(folder / "inputs.npy", inputs)
    labels = [first, *(n % 3 for n in range(1, 14))]
    (folder / "labels" / "labels.csv").write_text("".join(f"{label}\n" for label in labels))
    return folder


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    """A study of files, one of which lies where no argument leads."""
    folder = tmp_path_factory.mktemp("reading")
    beside = folder / "beside.bin"
    beside.write_bytes(b"beside")
    arguments = {"root": str(lay(folder / "data")), "beside": f"file:{beside}"}
    return study_in_process(folder / "run", key, PLAN, READING, arguments=arguments)


def data_of(run: Run) -> Path:
    return run.folder.parent / "data"


def test_data_are_listed_and_a_replay_of_them_passes(reading: Run) -> None:
    opened = reading.manifest.opened
    assert opened is not None
    assert list(opened.hashed) == LISTED
    (beside,) = opened.unhashed
    assert Path(beside).name == "beside.bin"
    report = check(reading)
    assert report.verdict == "verified", findings_text(report)
    assert report.opened is not None
    assert (report.opened.hashed, report.opened.compared) == (2, 2)
    assert report.opened.unhashed == (beside,)


def test_a_program_that_opens_nothing_says_so(small: Run) -> None:
    assert small.manifest.opened == OpenedFiles(())
    report = check_files(small)
    assert report.opened is not None
    assert (report.opened.hashed, report.opened.n_unhashed) == (0, 0)


def test_the_same_data_elsewhere(reading: Run, tmp_path: Path) -> None:
    here = shutil.copytree(data_of(reading), tmp_path / "mine")
    report = check(reading, arguments={"root": str(here)})
    assert report.verdict == "verified", findings_text(report)
    assert report.opened is not None
    assert report.opened.compared == 2


def test_another_file_is_named(reading: Run, tmp_path: Path) -> None:
    here = lay(tmp_path / "mine", first=2)
    report = check(reading, arguments={"root": str(here)})
    assert report.exit_code != 0
    findings = result_of(report, 8).findings
    (named,) = [finding for finding in findings if "the data differ" in finding.message]
    assert (named.where, named.exit_code) == (LISTED[1], 6)
    assert report.opened is not None
    assert report.opened.compared == 1


@pytest.mark.parametrize("fresh", [False, True])
def test_other_bytes_that_give_the_same_training_cannot_be_judged(
    reading: Run, tmp_path: Path, fresh: bool
) -> None:
    here = shutil.copytree(data_of(reading), tmp_path / "mine")
    with (here / "labels" / "labels.csv").open("r+", newline="") as file:
        lines = file.read().replace("\n", "\r\n")
        file.seek(0)
        file.write(lines)
    report = check(reading, arguments={"root": str(here)}, fresh=fresh)
    assert (report.verdict, report.exit_code, failures(report)) == ("undecided", 6, {8})


def test_a_file_that_is_not_listed_is_one_that_nobody_hashed(reading: Run, tmp_path: Path) -> None:
    further = tmp_path / "further.bin"
    further.write_bytes(b"further")
    report = check(reading, arguments={"beside": f"file:{further}"})
    assert report.verdict == "verified", findings_text(report)
    assert report.opened is not None
    assert str(further) in report.opened.unhashed
    assert report.opened.n_unhashed == 2


def test_the_author_is_told_what_nobody_hashed(reading: Run) -> None:
    (note,) = unhashed_notes(reading.manifest.opened)
    assert "beside.bin" in note


def test_text_json_and_checklist_have_the_list(
    reading: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    report = check(reading)
    print_report(report, everything=False)
    out = capsys.readouterr().out
    assert "2 listed by SHA-256, 2 of them opened here and equal; 1 that nobody hashed" in out
    assert "beside.bin" in "".join(out.split())
    assert report_from_json(canonical.dumps(to_dict(report)), what="report") == report
    text = to_markdown(fill(reading.manifest, report, ()))
    assert "2 listed by SHA-256, 1 that nobody hashed" in text
    assert f"opened {LISTED[0]}" in text


def drop(told: dict[str, Any]) -> None:
    """As earlier builds wrote it."""
    del told["opened"]


def test_a_manifest_that_says_nothing_verifies(reading: Run, tmp_path: Path) -> None:
    shutil.copytree(reading.folder, tmp_path / "run")
    run = Run(tmp_path / "run", reading.key)
    forging.edit_predicate(run, drop)
    report = check(run)
    assert report.verdict == "verified", findings_text(report)
    assert report.opened is not None
    assert set(LISTED) < set(report.opened.unhashed)
    assert check_files(run).opened is None


def _twice(told: dict[str, Any]) -> None:
    told["opened"]["files"].append({**told["opened"]["files"][-1]})


def _both(told: dict[str, Any]) -> None:
    told["opened"]["files"][-1]["reason"] = "elsewhere"


@pytest.mark.parametrize("edit", [_twice, _both])
def test_a_list_that_contradicts_itself(reading: Run, tmp_path: Path, edit: Any) -> None:
    shutil.copytree(reading.folder, tmp_path / "run")
    run = Run(tmp_path / "run", reading.key)
    forging.edit_predicate(run, edit)
    assert failures(check_files(run)) == {4}


def test_another_digest_in_the_record_is_named(reading: Run, tmp_path: Path) -> None:
    shutil.copytree(reading.folder, tmp_path / "run")
    run = Run(tmp_path / "run", reading.key)
    forging.edit_predicate(run, lambda told: told["opened"]["files"][1].update(sha256="0" * 64))
    report = check(run)
    assert (report.exit_code, failures(report)) == (6, {8})


def _phantom(told: dict[str, Any]) -> None:
    files = told["opened"]["files"]
    files.append({**PHANTOM})
    files.sort(key=lambda file: str(file["name"]))


PHANTOM = {"name": "data/root/extra.bin", "size": 5, "sha256": "a" * 64, "reason": None}


@pytest.fixture
def with_phantom(reading: Run, tmp_path: Path) -> Run:
    """A study that lists a file which its program never opens."""
    shutil.copytree(reading.folder, tmp_path / "run")
    run = Run(tmp_path / "run", reading.key)
    forging.edit_predicate(run, _phantom)
    return run


def test_a_listed_file_that_nothing_opens_is_named(
    with_phantom: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_files(with_phantom).exit_code == 0
    report = check(with_phantom)
    assert (report.verdict, report.exit_code, failures(report)) == ("undecided", 6, {8})
    (finding,) = result_of(report, 8).findings
    assert "no process of the replay opened it: data/root/extra.bin" in finding.message
    assert report.opened is not None
    assert (report.opened.unopened, report.opened.n_unopened) == (("data/root/extra.bin",), 1)
    print_report(report, everything=False)
    assert "listed and not opened here: data/root/extra.bin" in capsys.readouterr().out
    assert report_from_json(canonical.dumps(to_dict(report)), what="report") == report
    text = to_markdown(fill(with_phantom.manifest, report, ()))
    assert "opened data/root/extra.bin" not in text
    assert "listed and not opened in the replay, data/root/extra.bin" in text
    assert "Listed besides, and opened by no process of the replay: 1." in text
    assert f"opened {LISTED[0]}" in text


def test_what_a_sample_did_not_open_is_a_warning(with_phantom: Run) -> None:
    report = check(with_phantom, replay=1, replay_seed=1)
    assert (report.verdict, report.exit_code) == ("sampled", 0)
    (warning,) = [text for text in result_of(report, 8).warnings if "not opened" in text]
    assert "data/root/extra.bin; not everything was replayed" in warning
    assert report.opened is not None
    assert report.opened.n_unopened == 1


def test_a_file_opened_by_one_process_of_several_counts() -> None:
    files = [OpenedFile(f"data/root/{name}", 1, "a" * 64) for name in "xy"]
    recorded = OpenedFiles(tuple(files))
    judge = OpenedJudge(recorded)
    judge.findings(OpenedFiles((files[0],)))
    assert judge.here.unopened(recorded) == ["data/root/y"]
    assert unopened_finding(recorded, judge.here) is not None
    judge.findings(OpenedFiles((files[1],)))
    assert judge.here.unopened(recorded) == []
    assert unopened_finding(recorded, judge.here) is None


@pytest.mark.parametrize(
    ("name", "elsewhere", "is_seen"),
    [
        ("program/labels/x.csv", "~/mine/labels/x.csv", True),
        ("data/root/labels/x.csv", "/srv/labels/x.csv", True),
        ("data/root/labels/x.csv", "/srv/x.csv", False),
        ("program/x.csv", "/srv/other-x.csv", False),
        ("data/root", "/srv/data", False),
    ],
)
def test_a_file_opened_under_no_name_is_none_that_nothing_opened(
    name: str, elsewhere: str, is_seen: bool
) -> None:
    recorded = OpenedFiles((OpenedFile(name, 1, "a" * 64),))
    judge = OpenedJudge(recorded)
    judge.findings(OpenedFiles((OpenedFile(elsewhere, None, None, "elsewhere"),)))
    assert judge.here.unopened(recorded) == [name]
    assert (unopened_finding(recorded, judge.here) is None) is is_seen


def test_each_difference_is_said_once_and_nothing_of_a_script() -> None:
    judge = OpenedJudge(OpenedFiles((OpenedFile("data/x", 1, "a" * 64),)))
    other = OpenedFiles((OpenedFile("data/x", 2, "b" * 64),), 7)
    assert len(judge.findings(other)) == 1
    assert judge.findings(other) == []
    assert judge.findings(None) == []
    assert judge.here == OpenedHere(left_out=7, listed=frozenset({"data/x"}))
    report = opened_report(None, judge.here)
    assert report is not None
    assert report.n_unhashed == 7
    assert opened_report(None, None) is None
