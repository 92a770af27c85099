"""What is an archive, before anything of it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditkit.errors import ArchiveError
from auditkit.files.archive_kinds import is_archive


def test_what_is_no_archive_is_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b'{"payload": ""}')
    assert not is_archive(tmp_path / "manifest.json")
    assert not is_archive(tmp_path / "missing.zip")
    assert not is_archive(tmp_path)


@pytest.mark.parametrize("head", [b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"BZh91", b"\xfd7zXZ\0"])
def test_archives_of_other_kinds_are_refused_with_what_to_do(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(head)
    with pytest.raises(ArchiveError, match=r"unpack it and give the folder"):
        is_archive(tmp_path / "a.bin")
