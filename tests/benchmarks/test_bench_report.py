from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("bench_report.py")

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")


def measured(*options: str) -> tuple[float, float, int, int]:
    """CPU seconds, those beyond the verification, MiB, and bytes of the page."""
    done = subprocess.run(
        [sys.executable, SCRIPT, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(
        r"([0-9.]+) CPU s, ([0-9.]+) of them beyond the verification  (\d+) MiB  ([0-9,]+) bytes",
        done.stdout.splitlines()[-1],
    )
    assert found is not None, done.stdout
    return float(found[1]), float(found[2]), int(found[3]), int(found[4].replace(",", ""))


@needs_linux
def test_a_page_of_a_study_made_by_hand() -> None:
    _, _, mebibytes, n_bytes = measured("--seeds", "1", "--steps", "100")
    assert mebibytes < 300
    assert n_bytes < 2_000_000


@needs_linux
@pytest.mark.slow
def test_a_page_of_a_large_study() -> None:
    seconds, _, mebibytes, n_bytes = measured("--seeds", "20", "--steps", "10000")
    assert seconds < 20
    assert mebibytes < 500
    assert n_bytes < 2_000_000
