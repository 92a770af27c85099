"""What lies around a run in an RO-Crate is signed by nobody, and is not taken for signed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from studies import Run, check_files, result_of

from auditkit.signing.envelopes import open_envelope
from auditkit.verification.crate_around import UNSIGNED

OTHER = "statement.json of the RO-Crate around it is not what the manifest signs"


@pytest.fixture
def crated(forged: Run, tmp_path: Path) -> Run:
    """A run in a folder that is a crate's."""
    folder = tmp_path / "crate" / "study"
    folder.parent.mkdir()
    forged.folder.rename(folder)
    payload = open_envelope((folder / "manifest.json").read_bytes()).payload
    (folder.parent / "statement.json").write_bytes(payload)
    (folder.parent / "ro-crate-metadata.json").write_text("{}")
    return replace(forged, folder=folder)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def _edit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"horizon":14', b'"horizon":15'))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def test_a_true_copy_is_no_matter(crated: Run) -> None:
    for strict in (False, True):
        report = check_files(crated, strict=strict)
        assert report.exit_code == 0
        assert result_of(report, 3).warnings == (UNSIGNED,)


@pytest.mark.parametrize("change", [_cut, _longer, _edit, _folder])
def test_another_statement_is_named(crated: Run, change: Callable[[Path], None]) -> None:
    path = crated.folder.parent / "statement.json"
    before = path.read_bytes()
    change(path)
    assert path.is_dir() or path.read_bytes() != before
    report = check_files(crated)
    assert (report.exit_code, result_of(report, 3).warnings) == (0, (UNSIGNED, OTHER))
    strict = check_files(crated, strict=True)
    (finding,) = result_of(strict, 3).findings
    assert (strict.exit_code, finding.message) == (1, OTHER)


def test_outside_of_a_crate_such_a_file_says_nothing(crated: Run) -> None:
    (crated.folder.parent / "ro-crate-metadata.json").unlink()
    (crated.folder.parent / "statement.json").write_text("{}")
    assert result_of(check_files(crated), 3).warnings == ()
