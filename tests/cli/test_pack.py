"""``auditkit pack``, and that what it makes verifies as the folder does."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_shell import CompletedCommand, Shell
from studies import Run

from auditkit.signing.keys import public_line


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell.at(tmp_path_factory.mktemp("pack") / "user")


@pytest.fixture
def trusting(shell: Shell, small: Run) -> tuple[str, ...]:
    return ("--key", str(shell.write("author.pub", public_line(small.key) + "\n")))


def verdict(done: CompletedCommand) -> str:
    return next(line for line in done.out.splitlines() if line.startswith("Verdict:"))


def test_a_packed_study_verifies_as_its_folder_does(
    shell: Shell, small: Run, trusting: tuple[str, ...], tmp_path: Path
) -> None:
    archive = tmp_path / "study.zip"
    packed = shell("pack", str(small.folder), "--out", str(archive))
    assert packed.code == 0, packed.err
    assert f"a reader: auditkit verify {archive} --fingerprint SHA256:" in packed.out
    for options in (("--replay", "none"), ("--allow-code",)):
        whole = shell("verify", str(small.folder), *trusting, *options)
        taken = shell("verify", str(archive), *trusting, *options)
        assert (taken.code, verdict(taken)) == (0, verdict(whole))
    assert shell("show", str(archive)).code == 0


def test_the_archive_holds_what_is_listed_and_what_was_made_from_it(
    shell: Shell, forged: Run, tmp_path: Path
) -> None:
    for name in ("notes.txt", "report.json", "CHECKLIST.md", "countersign-0123456789abcdef.json"):
        (forged.folder / name).write_text("{}")
    assert shell("pack", str(forged.folder), "--out", str(tmp_path / "a.zip")).code == 0
    listed = [file.name for file in forged.manifest.files]
    beside = ["manifest.json", "signer.pub", "countersign-0123456789abcdef.json"]
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == sorted(f"study/{name}" for name in (*listed, *beside))
        assert archive.testzip() is None


def test_equal_folders_give_equal_bytes(
    shell: Shell, small: Run, copied: Callable[[Run], Run], tmp_path: Path
) -> None:
    other = copied(small)
    for path in other.folder.rglob("*"):
        os.utime(path, (10**9, 10**9))
        path.chmod(0o700)
    made = []
    for n, run in enumerate((small, other)):
        assert shell("pack", str(run.folder), "--out", str(tmp_path / f"{n}.zip")).code == 0
        made.append((tmp_path / f"{n}.zip").read_bytes())
    assert made[0] == made[1]


def test_what_is_not_what_was_signed_is_not_packed(
    shell: Shell, forged: Run, tmp_path: Path
) -> None:
    code = forged.folder / "code" / "tiny_study.py"
    code.write_text(code.read_text().replace("import torch", "import torch "))
    done = shell("pack", str(forged.folder), "--out", str(tmp_path / "a.zip"))
    assert (done.code, "code/tiny_study.py: not packed: another SHA-256" in done.line) == (1, True)
    code.unlink()
    done = shell("pack", str(forged.folder), "--out", str(tmp_path / "a.zip"))
    assert (done.code, "code/tiny_study.py: no such file" in done.line) == (1, True)
    assert list(tmp_path.glob("*.zip")) == []


def test_by_default_it_lies_beside_the_folder_and_replaces_nothing(
    shell: Shell, forged: Run
) -> None:
    assert shell("pack", str(forged.folder)).code == 0
    archive = forged.folder.with_name("copy.zip")
    assert zipfile.is_zipfile(archive)
    again = shell("pack", str(forged.path))
    assert (again.code, "is never overwritten" in again.line) == (2, True)


@pytest.mark.parametrize("name", ["a.tar.gz", "study"])
def test_another_kind_of_archive_is_wrong_use(
    shell: Shell, small: Run, tmp_path: Path, name: str
) -> None:
    done = shell("pack", str(small.folder), "--out", str(tmp_path / name))
    assert (done.code, "does not end in .zip" in done.line) == (2, True)


def test_a_tar_file_is_verified_too_and_a_broken_one_is_malformed(
    shell: Shell, small: Run, trusting: tuple[str, ...], tmp_path: Path
) -> None:
    archive = shutil.make_archive(
        str(tmp_path / "study"), "gztar", small.folder.parent, small.folder.name
    )
    done = shell("verify", archive, *trusting, "--replay", "none")
    assert (done.code, verdict(done)) == (0, "Verdict: integrity-only (exit 0)")
    (tmp_path / "cut.tgz").write_bytes(Path(archive).read_bytes()[:5000])
    done = shell("verify", str(tmp_path / "cut.tgz"))
    assert done.code == 5
    assert done.line.startswith("cut.tgz: a broken archive: ")


def test_what_stays_beside_a_manifest_cannot_stay_in_an_archive(
    shell: Shell, small: Run, tmp_path: Path
) -> None:
    archive = str(tmp_path / "study.zip")
    assert shell("pack", str(small.folder), "--out", archive).code == 0
    key = str(shell.folder / "config" / "auditkit" / "key")
    done = shell("verify", archive, "--countersign", key)
    assert (done.code, "unpack it, verify the folder, and pack that again" in done.line) == (
        2,
        True,
    )
    for command in (("sign", archive), ("reproduce", archive, "--out", "again")):
        done = shell(*command)
        assert done.code == 2
        assert "study.zip is an archive; auditkit verify takes it as it is" in done.line
