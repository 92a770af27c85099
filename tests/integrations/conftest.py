from __future__ import annotations

import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signing key that auditkit makes belongs to nobody, and the script is not pytest."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("AUDITKIT_KEY", raising=False)
    script = tmp_path / "train.py"
    script.write_text("# a script\n")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
