"""Files that are laid beside copied code: those that are asked for, by names that lead nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditkit.files import own_data


def test_files_are_linked_and_what_is_absent_or_code_or_leads_elsewhere_is_not(
    tmp_path: Path,
) -> None:
    here, code = tmp_path / "here", tmp_path / "code"
    for name in ("in/a.csv", "b.csv", "helper.py", "study.py"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("mine")
    (tmp_path / "secret").write_text("mine")
    code.mkdir()
    (code / "study.py").write_text("theirs")
    names = ["b.csv", "b.csv/c.csv", "in/a.csv", "none.csv", "study.py", "helper.py", "in"]
    names += ["../secret", str(tmp_path / "secret"), "in/../b.csv", "", "x\0"]
    absent = own_data.lay(names, code, here)
    assert absent == ["b.csv/c.csv", "none.csv", "helper.py", *names[7:]]
    laid = sorted(path.relative_to(code) for path in code.rglob("*") if path.is_file())
    assert [str(path) for path in laid] == ["b.csv", "in/a.csv", "study.py"]
    assert (code / "in" / "a.csv").read_text() == "mine"
    assert (code / "study.py").read_text() == "theirs"


def test_nothing_lies_in_a_working_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, code = tmp_path / "here", tmp_path / "code"
    here.mkdir()
    code.mkdir()
    (here / "a.csv").write_text("mine")
    monkeypatch.chdir(here)
    assert own_data.lay(["a.csv"], code) == []
    assert (code / "a.csv").resolve() == here / "a.csv"
    (here / "a.csv").unlink()
    (code / "a.csv").unlink()
    here.rmdir()
    assert own_data.lay(["a.csv"], code) == ["a.csv"]
