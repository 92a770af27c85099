from __future__ import annotations

from pathlib import Path
from typing import Any

import forging
import pytest
from numpy.typing import NDArray
from studies import Run
from synthetic_studies import Size, write_study

from auditkit.evidence import reader
from auditkit.files import artifacts, steady_file
from auditkit.records import evidence
from auditkit.signing.keys import TrustedKey, fingerprint, generate_key
from auditkit.verification.procedure import VerifyRequest, verify


def test_what_the_content_checks_have_read_whole_is_not_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = generate_key()
    manifest = write_study(tmp_path / "study", key, Size(seeds=2))
    hashed: list[str] = []
    file_sha256 = artifacts.file_sha256

    def noted(root: str | Path, name: str, *, expected_size: int | None = None) -> str:
        hashed.append(name)
        return file_sha256(root, name, expected_size=expected_size)

    monkeypatch.setattr(artifacts, "file_sha256", noted)
    trusted = [TrustedKey(fingerprint(key), key.public_key(), "test", own=True)]
    assert verify(manifest, VerifyRequest(trusted, replay="none")).exit_code == 0
    read = ("trace.safetensors", "outcome.safetensors", "order.safetensors")
    assert [name for name in hashed if name.endswith(read)] == []
    assert any(name.endswith("fork.safetensors") for name in hashed)

    hashed.clear()
    edited = min(manifest.parent.rglob("replica.trace.safetensors"))
    data = bytearray(edited.read_bytes())
    data[-1] ^= 1
    edited.write_bytes(data)
    report = verify(manifest, VerifyRequest(trusted, replay="none"))
    third = next(check for check in report.checks if check.number == 3)
    assert edited.relative_to(manifest.parent).as_posix() in str(third.findings)
    assert [name for name in hashed if name.endswith("trace.safetensors")] == [
        edited.relative_to(manifest.parent).as_posix()
    ]


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trace and order stays in its file, and few rows are looked at together."""
    monkeypatch.setattr(reader, "_AT_ONCE", 0)
    monkeypatch.setattr(evidence, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(steady_file, "BLOCK_BYTES", 1000)


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize(
    ("branch", "column", "row", "number"),
    [
        ("replica", "batchnorm", 30, 9),
        ("replica", "loss_bits", 20, 9),
        ("placebo-0", "batch", 33, 6),
        ("control", "order", 34, 6),
        ("trunk", "order", 2, 6),
        ("order-shuffle--draw-0", "order", 3, 6),
        ("momentum-reset", "params", 0, 7),
        (None, "", 0, 0),
    ],
)
def test_what_is_read_in_pieces_is_judged_as_what_is_read_whole(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    branch: str | None,
    column: str,
    row: int,
    number: int,
) -> None:
    key = generate_key()
    manifest = write_study(tmp_path / "study", key, Size(seeds=1))
    if branch is not None:
        run = Run(manifest.parent, key)
        name = f"seed-0000/{branch}.trace.safetensors"
        forging.edit_tensors(run, name, lambda arrays: _change(arrays[column], row))
    trusted = [TrustedKey(fingerprint(key), key.public_key(), "test", own=True)]
    request = VerifyRequest(trusted, replay="none")
    report = verify(manifest, request)
    assert number in {check.number for check in report.checks if check.findings} | {0}
    monkeypatch.undo()
    assert verify(manifest, request) == report
    assert (report.exit_code == 0) == (branch is None)


def _change(cells: NDArray[Any], row: int) -> None:
    cells[row] ^= cells.dtype.type(1)


@pytest.mark.usefixtures("in_pieces")
def test_a_file_that_changes_after_it_was_found_intact_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = generate_key()
    manifest = write_study(tmp_path / "study", key, Size(seeds=1))

    class Exchanged(steady_file.SteadyFile):
        """A control's trace, exchanged for another one as soon as its digest is known."""

        def __init__(self, root: Path, name: str, size: int, sha256: str) -> None:
            super().__init__(root, name, size, sha256)
            if name.endswith("control.trace.safetensors"):
                data = bytearray((root / name).read_bytes())
                data[-400:] = bytes(400)
                (root / name).write_bytes(data)

    monkeypatch.setattr(reader, "SteadyFile", Exchanged)
    trusted = [TrustedKey(fingerprint(key), key.public_key(), "test", own=True)]
    report = verify(manifest, VerifyRequest(trusted, replay="none"))
    assert report.exit_code == 1
    found = {check.number: str(check.findings) for check in report.checks}
    assert "sha256 is" in found[3]
    assert "changed while it was read" in found[9]
