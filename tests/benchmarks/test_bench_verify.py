from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("bench_verify.py")


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")
@pytest.mark.parametrize("options", [("--seeds", "1", "--steps", "100"), ("--big", "0.01")])
def test_a_study_made_by_hand_verifies_without_torch(options: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, *options, "--repeat", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, cost = done.stdout.splitlines()
    assert said.startswith("1 seeds x 8 branches")
    measured = re.fullmatch(r"([0-9.]+) s  ([0-9]+) MiB  no torch", cost)
    assert measured is not None, cost
    assert float(measured[1]) > 0
    assert 10 < int(measured[2]) < 300
