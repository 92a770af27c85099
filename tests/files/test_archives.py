"""What is taken out of an archive, and what of somebody else's archive is refused."""

from __future__ import annotations

import contextlib
import gzip
import io
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from auditkit.errors import ArchiveError, AuditError, StoreError
from auditkit.files import archives
from auditkit.files.archive_kinds import is_archive
from auditkit.files.archives import LIMITS, unpacked

FILES = {"manifest.json": b"{}", "seed-0000/fork.safetensors": b"weights", "code/a.py": b""}

Zip = Callable[[zipfile.ZipFile], object]
Tar = Callable[[tarfile.TarFile], object]


def zipped(
    path: Path, top: str = "", files: dict[str, bytes] = FILES, more: Zip | None = None
) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(top + name, data)
        if more is not None:
            more(archive)
    return path


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    return info


def tarred(
    path: Path, top: str = "", files: dict[str, bytes] = FILES, more: Tar | None = None
) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            archive.addfile(member(top + name, data), io.BytesIO(data))
        if more is not None:
            more(archive)
    return path


def refused(path: Path, words: str, limits: archives.Limits = LIMITS) -> AuditError:
    """The error that ends taking an archive out, which says some words."""
    with pytest.raises(AuditError) as caught, unpacked(path, limits):
        pass
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def taken_out(path: Path) -> dict[str, bytes]:
    with unpacked(path) as manifest:
        root = manifest.parent
        files = {str(p.relative_to(root)): p for p in root.rglob("*") if p.is_file()}
        return {name: file.read_bytes() for name, file in files.items()}


@pytest.mark.parametrize("top", ["", "study/", "a/b/"])
@pytest.mark.parametrize("make", [zipped, tarred])
def test_an_archive_is_taken_out_whole(tmp_path: Path, make: Callable[..., Path], top: str) -> None:
    archive = make(tmp_path / "received", top)  # told by its content, whatever it is called
    assert is_archive(archive)
    assert taken_out(archive) == FILES


def test_nothing_of_it_stays_and_its_modes_are_not_taken_over(tmp_path: Path) -> None:
    def more(archive: tarfile.TarFile) -> None:
        info = member("run.sh")
        info.mode = 0o4777
        archive.addfile(info)

    with unpacked(tarred(tmp_path / "a.tgz", more=more)) as manifest:
        kept = manifest.parent
        assert stat.S_IMODE((kept / "run.sh").stat().st_mode) == 0o600
        assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert not kept.exists()


def test_what_folders_and_a_dot_are_called_does_not_matter(tmp_path: Path) -> None:
    def folders(archive: tarfile.TarFile) -> None:
        for name in (".", "./code", "./empty/"):
            archive.addfile(member(name, kind=tarfile.DIRTYPE))

    assert taken_out(tarred(tmp_path / "a.tar.gz", "./", more=folders)) == FILES
    mac = {f"study/{name}": data for name, data in FILES.items()} | {
        "__MACOSX/._manifest.json": b""
    }
    assert taken_out(zipped(tmp_path / "b.zip", files=mac)) == FILES


def linked(kind: bytes, target: str = "/etc/passwd") -> Tar:
    def add(archive: tarfile.TarFile) -> None:
        info = member("link", kind=kind)
        info.linkname = target
        archive.addfile(info)

    return add


def tar_entry(name: str, kind: bytes = tarfile.REGTYPE) -> Tar:
    return lambda archive: archive.addfile(member(name, kind=kind))


def long_header(archive: tarfile.TarFile) -> None:
    info = member("long")
    info.pax_headers = {"comment": "x" * 2**24}
    archive.addfile(info)


def sparse(archive: tarfile.TarFile) -> None:
    archive.addfile(member("holes", kind=tarfile.GNUTYPE_SPARSE))


TARS: dict[str, tuple[Tar, str]] = {
    "a symbolic link": (linked(tarfile.SYMTYPE), "no regular file"),
    "a hard link": (linked(tarfile.LNKTYPE, "manifest.json"), "no regular file"),
    "a device": (tar_entry("null", tarfile.CHRTYPE), "no regular file"),
    "a FIFO": (tar_entry("pipe", tarfile.FIFOTYPE), "no regular file"),
    "a file with holes": (sparse, "no regular file"),
    "above": (tar_entry("../evil"), "unsafe path"),
    "above, in between": (tar_entry("code/../../evil"), "unsafe path"),
    "absolute": (tar_entry("/tmp/evil"), "unsafe path"),  # noqa: S108 # nothing is written there
    "a folder above": (tar_entry("../evil", tarfile.DIRTYPE), "unsafe path"),
    "no UTF-8": (tar_entry("caf\udce9"), "unsafe path"),
    "the same name": (tar_entry("manifest.json"), "stands there twice"),
    "the same name in capitals": (tar_entry("MANIFEST.json"), "stands there twice"),
    "a file where a folder is": (tar_entry("code"), "stands there twice"),
    "a folder where a file is": (tar_entry("manifest.json/x"), "stands there twice"),
    "too deep": (tar_entry("d/" * 70 + "x"), "too deep"),
    "a header of 16 MiB": (long_header, "a header that is too long"),
}


@pytest.mark.parametrize("kind", TARS)
def test_a_tar_file_with_what_must_not_be_in_it_is_refused(tmp_path: Path, kind: str) -> None:
    more, words = TARS[kind]
    archive = tarred(tmp_path / "a.tar.gz", more=more)
    with pytest.raises(ArchiveError, match=words) as caught, unpacked(archive):
        pass
    assert "\n" not in str(caught.value)


def zip_entry(name: str, kind: int = 0, **fields: int) -> Zip:
    def add(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr = kind << 16
        for field, value in fields.items():
            setattr(info, field, value)
        archive.writestr(info, b"target")

    return add


ZIPS: dict[str, tuple[Zip, str]] = {
    "a link": (zip_entry("link", stat.S_IFLNK | 0o777), "no regular file"),
    "a device": (zip_entry("null", stat.S_IFCHR), "no regular file"),
    "a link that ends like a folder": (zip_entry("link/", stat.S_IFLNK), "no regular file"),
    "above": (zip_entry("../evil"), "unsafe path"),
    "absolute": (zip_entry("/evil"), "unsafe path"),
    "a drive": (zip_entry("C:evil"), "unsafe path"),
    "a backslash": (zip_entry("..\\evil"), "unsafe path"),
    "the same name in capitals": (zip_entry("Code/a.py"), "stands there twice"),
    "another compressor": (
        zip_entry("big", compress_type=zipfile.ZIP_BZIP2),
        "compressed in a way that is not read",
    ),
}


@pytest.mark.parametrize("kind", ZIPS)
def test_a_zip_file_with_what_must_not_be_in_it_is_refused(tmp_path: Path, kind: str) -> None:
    more, words = ZIPS[kind]
    archive = zipped(tmp_path / "a.zip", more=more)
    with pytest.raises(ArchiveError, match=words), unpacked(archive):
        pass


def patched(path: Path, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


def test_a_name_that_ends_before_its_end_is_refused(tmp_path: Path) -> None:
    archive = patched(zipped(tmp_path / "a.zip"), b"code/a.py", b"code/a\0py")
    with pytest.raises(ArchiveError, match="ends before its end"), unpacked(archive):
        pass


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", files={"manifest.json": b"{}"})
    data = bytearray(archive.read_bytes())
    for start, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(start) + at] |= 1
    archive.write_bytes(data)
    with pytest.raises(ArchiveError, match="is encrypted"), unpacked(archive):
        pass


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_small_archive_of_much_is_refused_before_it_fills_the_disk(
    tmp_path: Path, make: Callable[..., Path]
) -> None:
    archive = make(tmp_path / "bomb", files={**FILES, "zeros": bytes(2**25)})
    few = replace(LIMITS, free_bytes=2**20, ratio=100)
    with pytest.raises(ArchiveError, match="holds more than"), unpacked(archive, few):
        pass
    assert "zeros" in taken_out(archive)  # 32 MiB may be in an archive of any length


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("limits", [replace(LIMITS, files=2), replace(LIMITS, total_bytes=5)])
def test_there_is_an_end_to_files_and_bytes(
    tmp_path: Path, make: Callable[..., Path], limits: archives.Limits
) -> None:
    refused(make(tmp_path / "many"), "holds more than", limits)


def test_folders_without_end_are_refused(tmp_path: Path) -> None:
    def many(archive: tarfile.TarFile) -> None:
        for _ in range(9):
            archive.addfile(member("code", kind=tarfile.DIRTYPE))

    refused(tarred(tmp_path / "a.tgz", more=many), "more than 10 entries", replace(LIMITS, files=5))


def test_a_tar_file_that_is_longer_than_it_says_ends_at_the_limit(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    header = member("folder", kind=tarfile.DIRTYPE)
    header.size = 2**30  # skipped by a reader that believes it
    archive.write_bytes(gzip.compress(header.tobuf() + bytes(2**22)))
    with pytest.raises(ArchiveError), unpacked(archive, replace(LIMITS, free_bytes=2**20, ratio=1)):
        pass


@pytest.mark.parametrize("make", [zipped, tarred])
def test_an_archive_that_was_cut_anywhere_is_one_line(
    tmp_path: Path, make: Callable[..., Path]
) -> None:
    whole = make(tmp_path / "whole").read_bytes()
    cut = tmp_path / ("cut.zip" if make is zipped else "cut.tgz")
    for n_bytes in range(0, len(whole) - 1, 13):
        cut.write_bytes(whole[:n_bytes])
        with pytest.raises(AuditError) as caught, unpacked(cut):
            pass
        assert caught.value.exit_code == 5
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [zipped, tarred])
def test_an_archive_that_was_damaged_anywhere_is_one_line_or_whole(
    tmp_path: Path, make: Callable[..., Path]
) -> None:
    whole = make(tmp_path / "whole").read_bytes()
    damaged = tmp_path / ("damaged.zip" if make is zipped else "damaged.tgz")
    for at in range(2, len(whole), 11):
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with contextlib.suppress(ArchiveError):
            assert taken_out(damaged)


def test_without_one_manifest_it_is_not_known_what_is_meant(tmp_path: Path) -> None:
    refused(
        zipped(tmp_path / "none.zip", files={"a/manifest.json/x": b""}), "holds no manifest.json"
    )
    two = {"a/manifest.json": b"", "b/manifest.json": b"", "b/c/manifest.json": b""}
    refused(
        zipped(tmp_path / "two.zip", files=two), "holds 2 manifests: 'a/manifest.json', 'b/manifest"
    )


@pytest.mark.parametrize("name", ["a.zip", "a.tgz", "A.TAR.GZ"])
def test_a_name_of_an_archive_promises_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not what it says")
    assert is_archive(tmp_path / name)
    what = "not a zip file" if name.endswith(".zip") else "is no gzip file"
    with pytest.raises(ArchiveError, match=what), unpacked(tmp_path / name):
        pass


def test_a_disk_without_room_is_named_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3))
    for make in (zipped, tarred):
        error = refused(make(tmp_path / "a"), "let $TMPDIR name a folder with more")
        assert isinstance(error, StoreError)


def test_a_full_disk_is_no_broken_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives, "_take_out_zip", full)
    error = refused(zipped(tmp_path / "a.zip"), "No space left on device")
    assert isinstance(error, StoreError)
