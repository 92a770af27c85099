"""The manifest that a user names, by itself or by its folder."""

from __future__ import annotations

from pathlib import Path

from auditkit.cli.received import manifest_path


def test_a_folder_stands_for_its_manifest(tmp_path: Path) -> None:
    assert manifest_path(str(tmp_path)) == tmp_path / "manifest.json"
    assert manifest_path(str(tmp_path / "other.json")) == tmp_path / "other.json"
