"""Numbered folders: nobody gets the same one twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from auditkit.errors import StoreError
from auditkit.files.run_numbers import claim, numbered


def test_of_many_at_once_each_gets_another(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: claim(tmp_path / "exp"), range(24)))
    assert sorted(found) == list(range(1, 25))
    assert numbered(tmp_path / "exp", 24).is_dir()


def test_names_that_only_look_alike_do_not_count(tmp_path: Path) -> None:
    for name in ("exp-x", "exp-12", "exp-0005-old", "expert-0009"):
        (tmp_path / name).mkdir()
    assert claim(tmp_path / "exp") == 1


def test_what_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        claim(tmp_path / "file" / "exp")
