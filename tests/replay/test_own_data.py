"""Data beside the program, which no argument names: compared where a replay finds them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from studies import PROGRAMS, Run, check, failures, findings_text, result_of, study_in_process

from auditkit.records.plan import StudyPlan
from auditkit.signing.keys import PrivateKey

PLAN = StudyPlan(3, 2, 6, [0], ["carry"], placebos=1)
NUMBERS = "".join(f"{number / 7}\n" for number in range(56))
NAMES = {"by the working folder": "numbers/points.txt", "beside the code": "points.txt"}


def lay(folder: Path, text: str = NUMBERS) -> Path:
    """The data under both names."""
    (folder / "numbers").mkdir(parents=True)
    for name in NAMES.values():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Mapping[str, Run]:
    """A study of each kind, made in the program's own folder, and what it warned of."""
    found = {}
    for kind, arguments in zip(NAMES, ({}, {"table": "yes"}), strict=True):
        folder = tmp_path_factory.mktemp("own")
        for name in ("beside_study.py", "tiny_study.py"):
            (folder / "run-program").mkdir(exist_ok=True)
            shutil.copy(PROGRAMS / name, folder / "run-program")
        warnings: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(lay(folder / "run-program"))
            found[kind] = study_in_process(
                *(folder / "run", key, PLAN, "beside_study.py", Path.cwd(), arguments),
                warn=warnings.append,
            )
        (folder / "warnings").write_text("\n".join(warnings))
    return found


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_they_are_warned_of_with_what_to_type(runs: Mapping[str, Run], kind: str) -> None:
    run = runs[kind]
    assert run.manifest.opened is not None
    assert list(run.manifest.opened.hashed) == [f"program/{NAMES[kind]}"]
    warning = (run.folder.parent / "warnings").read_text()
    assert f"of its own folder that no argument names: program/{NAMES[kind]}; " in warning
    option = "--arg data=numbers" if "/" in NAMES[kind] else "take their path as an argument"
    assert option in warning


def test_what_lies_in_the_working_folder_is_compared(
    runs: Mapping[str, Run], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lay(tmp_path / "here"))
    report = check(runs[kind])
    assert report.verdict == "verified", findings_text(report)
    assert report.opened is not None
    assert (report.opened.compared, report.opened.unhashed) == (1, ())


def test_other_data_there_are_named(
    runs: Mapping[str, Run], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lay(tmp_path / "here", NUMBERS.replace("\n", " \n")))
    report = check(runs[kind])
    assert (report.exit_code, failures(report)) == (6, {8})
    (finding,) = result_of(report, 8).findings
    assert finding.where == f"program/{NAMES[kind]}"
    assert "the data differ" in finding.message
    opened = runs[kind].manifest.opened
    assert opened is not None
    assert str(opened.files[0].sha256) in finding.message


def test_missing_data_are_named(
    runs: Mapping[str, Run], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = check(runs[kind])
    assert (report.exit_code, result_of(report, 8).status) == (6, "could not run")
    assert "as the author re-ran it" in result_of(report, 9).summary
    assert "that changes are as declared was not replayed" in result_of(report, 7).summary
    missing, raised = result_of(report, 8).findings
    assert missing.where == f"program/{NAMES[kind]}"
    assert missing.message.startswith("data missing: ")
    assert missing.message.endswith(f"verify in a folder that holds {NAMES[kind]}")
    assert "FileNotFoundError" in raised.message
