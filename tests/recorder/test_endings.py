"""How a script ends that records into a folder which is taken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from auditkit.errors import RecorderMisuse, StoreError
from auditkit.recorder.endings import _tell, tell_in_one_line

SCRIPT = """
from auditkit.errors import StoreError
from auditkit.recorder.endings import tell_in_one_line

tell_in_one_line()
raise StoreError("the folder holds a finished recording", hint="give another folder")
"""


def test_a_folder_that_is_taken_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "auditkit: the folder holds a finished recording; give another folder "
        "(auditkit explain StoreError)\n"
    )


def test_other_errors_and_other_hooks_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = RecorderMisuse("wrap was called twice")
    _tell(type(error), error, None)
    assert "RecorderMisuse: wrap was called twice" in capsys.readouterr().err
    hook = lambda *_: None  # noqa: E731
    monkeypatch.setattr(sys, "excepthook", hook)
    tell_in_one_line()
    assert sys.excepthook is hook
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    tell_in_one_line()
    assert sys.excepthook is _tell
    assert issubclass(StoreError, Exception)
