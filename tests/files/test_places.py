from __future__ import annotations

from pathlib import Path

import pytest

from auditkit.errors import StoreError
from auditkit.files import store
from auditkit.files.places import FolderPlace


def test_what_is_not_there_is_none_and_what_cannot_be_read_an_error(tmp_path: Path) -> None:
    place = FolderPlace(tmp_path / "place")
    assert (place.read("a"), place.fetched("a"), place.names()) == (None, None, [])
    with pytest.raises(StoreError):
        place.write("a", b"1")  # nobody makes a folder anew that was removed
    store.make_folder(place.root / "folder")
    place.write("a", b"1")
    assert (place.read("a"), place.read("a/b"), place.names()) == (b"1", None, ["a", "folder"])
    assert place.fetched("a") == store.stream_sha256(place.root / "a")
    for ask in (place.read, place.fetched):
        with pytest.raises(StoreError, match="not a regular file"):
            ask("folder")
    place.remove()
    assert place.names() == []


def test_a_file_is_given_a_further_name_or_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = FolderPlace(tmp_path)
    place.write("a", b"new")
    (tmp_path / "b").write_bytes(b"old")
    place.fetch("a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")

    def no_links(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr("auditkit.files.store.os.link", no_links)
    place.fetch("a", tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"new"
    assert not (tmp_path / "c").samefile(tmp_path / "a")
    assert place.names() == ["a", "b", "c"]
