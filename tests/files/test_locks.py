"""Lock files: one holder at a time, nobody waits forever, nothing is left behind."""

from __future__ import annotations

import fcntl
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from auditkit.errors import StoreError
from auditkit.files.locks import lock


def test_of_many_that_wait_one_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    holders: list[int] = []
    seen: list[int] = []

    def work(n: int) -> None:
        with lock(tmp_path / "lock", timeout=60):
            holders.append(n)
            time.sleep(0.002)
            seen.append(len(holders))
            holders.remove(n)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(64)))
    assert seen == [1] * 64
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_its_holder_removed_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flock = tmp_path / "lock", fcntl.flock

    def late(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()  # the holder before lets go after we opened its file
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with lock(path, timeout=1):
        assert path.exists()
        with pytest.raises(StoreError, match="another process"), lock(path):
            raise AssertionError


def test_a_holder_is_waited_for_as_long_as_was_said(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock(path):
        began = time.monotonic()
        with pytest.raises(StoreError, match="another process"), lock(path, timeout=0.1):
            raise AssertionError
        assert 0.1 <= time.monotonic() - began < 30
        assert path.exists()


def test_a_lock_is_let_go_of_when_its_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "lock"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["a FIFO", "a link", "a folder", "no folder", "null"])
def test_what_is_no_lock_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "lock"
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "a folder":
        path.mkdir()
    elif kind == "null":
        path = tmp_path / "a\0b"
    else:
        path = tmp_path / "none" / "lock"
    with pytest.raises(StoreError, match="cannot lock"), lock(path, timeout=60):
        raise AssertionError
    assert not (tmp_path / "elsewhere").exists()
