from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("bench_recording.py")
POSITIVE = ("parameters", "load", "train", "cut", "consume", "evidence", "evidence/train")


@pytest.mark.slow
def test_the_table_has_its_columns_and_positive_numbers() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--model", "digits", "--steps", "4"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, header, row, recorder_header, recorder_row = done.stdout.splitlines()
    names = [name.strip() for name in header.split("  ") if name.strip()]
    cells = dict(zip(names, row.split(), strict=True))
    assert (cells["model"], cells["steps"]) == ("digits", "4")
    assert all(float(cells[name].replace(",", "")) > 0 for name in POSITIVE)
    assert float(cells["file B/step"].replace(",", "")) > 16
    assert float(cells["components"]) > 5
    if sys.platform == "linux":
        assert 0 < float(cells["peak MiB bare"]) <= float(cells["peak MiB"])
    names = [name.strip() for name in recorder_header.split("  ") if name.strip()]
    recorded = dict(zip(names, recorder_row.split(), strict=True))
    assert float(recorded["bare"]) > 0
    assert float(recorded["file B/step"].replace(",", "")) > 16
