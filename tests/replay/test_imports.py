"""Every file that a replaying process imported is judged, by what it holds."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import auditkit
from auditkit.files import installed
from auditkit.files.store import read_bytes
from auditkit.processes.interpreter import isolated_environment
from auditkit.records.imports import ImportedFiles
from auditkit.records.manifest import CodeFile
from auditkit.records.report import Finding
from auditkit.replay import imports
from auditkit.replay.imports import ImportJudge

SOURCE = b"X = 1\n"


@pytest.fixture
def judge(tmp_path: Path) -> ImportJudge:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "study.py").write_bytes(SOURCE)
    return ImportJudge([CodeFile("study.py", hashlib.sha256(SOURCE).hexdigest())], tmp_path)


def since(judge: ImportJudge, path: Path | str, module: str = "") -> list[Finding]:
    return judge.findings(ImportedFiles((), {str(path): module}))


def test_listed_and_installed_files_and_pythons_own_are_known(
    judge: ImportJudge, tmp_path: Path
) -> None:
    for path in (tmp_path / "code" / "study.py", Path(np.__file__), Path(json.__file__)):
        assert since(judge, path) == []


def test_a_file_in_the_code_folder_that_is_not_listed(judge: ImportJudge, tmp_path: Path) -> None:
    (tmp_path / "code" / "made.py").write_bytes(SOURCE)
    (finding,) = since(judge, tmp_path / "code" / "made.py", "made")
    assert (finding.where, finding.exit_code) == ("made.py", 1)


def test_a_listed_file_that_the_replay_changed(judge: ImportJudge, tmp_path: Path) -> None:
    (tmp_path / "code" / "study.py").write_bytes(b"X = 2\n")
    (finding,) = since(judge, tmp_path / "code" / "study.py", "study")
    assert finding.where == "code/study.py"


@pytest.mark.parametrize("name", ["code/study.py", "elsewhere/study.py"])
def test_a_file_that_held_other_bytes_when_it_ran(
    judge: ImportJudge, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(SOURCE)
    ran = hashlib.sha256(b"X = 2\n").hexdigest()
    (finding,) = judge.findings(ImportedFiles((), {str(path): "study"}, (), {str(path): (ran,)}))
    assert (finding.where, finding.exit_code) == ("code/study.py", 1)


def test_listed_bytes_may_lie_elsewhere(judge: ImportJudge, tmp_path: Path) -> None:
    path = tmp_path / "data" / "study.py"
    path.parent.mkdir()
    path.write_bytes(SOURCE)
    assert since(judge, path) == []


def test_other_programs_are_said(judge: ImportJudge) -> None:
    programs = tuple(f"git log {number}" for number in range(7))
    assert judge.findings(ImportedFiles((), {}, programs)) == []
    (text,) = judge.warnings()
    assert "'git log 4'; and 2 more" in text


@pytest.mark.parametrize(("text", "n_findings"), [(SOURCE, 0), (b"X = 2\n", 1)])
def test_a_listed_module_that_was_found_elsewhere(
    judge: ImportJudge, tmp_path: Path, text: bytes, n_findings: int
) -> None:
    (tmp_path / "study.py").write_bytes(text)
    assert len(since(judge, tmp_path / "study.py", "study")) == n_findings


def test_a_kernel_is_compiled_anew_and_other_code_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "generated" / "inductor"
    folder.mkdir(parents=True)
    names = ("kernel.so", "kernel.py")
    listed = [CodeFile(name, hashlib.sha256(SOURCE).hexdigest()) for name in names]
    for name in names:
        (folder / name).write_bytes(b"other")
        found = since(ImportJudge(listed, tmp_path), folder / name, "kernel")
        assert [finding.where for finding in found] == ["code/kernel.py"] * (name == "kernel.py")


def test_each_file_is_named_once(judge: ImportJudge, tmp_path: Path) -> None:
    assert len(since(judge, tmp_path / "x.py")) == 1
    assert since(judge, tmp_path / "x.py") == []


def test_a_process_that_says_nothing_is_not_believed(judge: ImportJudge) -> None:
    assert judge.findings(None)[0].exit_code == 6


def test_an_installed_file_that_was_changed_is_named(
    judge: ImportJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "is_as_recorded", lambda *_: False)
    (finding,) = since(judge, np.__file__, "numpy")
    assert "RECORD of numpy" in finding.message
    assert finding.exit_code == 6


def test_auditkit_without_a_record_is_said(
    judge: ImportJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed.Distributions, "find", lambda *_: None)
    assert judge.findings(ImportedFiles((auditkit.__file__,), {})) == []
    assert any("auditkit itself" in text for text in judge.warnings())


def test_a_replay_looks_for_modules_in_no_folder_of_the_environment(tmp_path: Path) -> None:
    found = isolated_environment({**os.environ, "PYTHONPATH": "/x"}, tmp_path)
    assert "PYTHONPATH" not in found
    assert found["PYTHONNOUSERSITE"] == "1"


def test_other_bytes_in_a_later_process_are_judged_again(
    judge: ImportJudge, tmp_path: Path
) -> None:
    path = tmp_path / "elsewhere" / "study.py"
    path.parent.mkdir()
    path.write_bytes(SOURCE)
    found = []
    for data in (SOURCE, SOURCE, b"X = 2\n", b"X = 2\n"):
        ran = hashlib.sha256(data).hexdigest()
        imported = ImportedFiles((), {str(path): "study"}, (), {str(path): (ran,)})
        found.append(len(judge.findings(imported)))
    assert found == [0, 0, 1, 0]


def test_what_is_installed_is_read_once_and_what_is_pythons_own_never(
    judge: ImportJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def noted(path: Path | str, **options: Any) -> bytes:
        read.append(str(path))
        return read_bytes(path, **options)

    monkeypatch.setattr(installed, "read_bytes", noted)
    monkeypatch.setattr(imports, "read_bytes", noted)
    for _ in range(2):
        assert since(judge, np.__file__, "numpy") == since(judge, json.__file__, "json") == []
    assert read.count(np.__file__) == 1
    assert json.__file__ not in read
