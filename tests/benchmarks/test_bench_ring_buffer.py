from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("bench_ring_buffer.py")


@pytest.mark.slow
def test_a_ring_buffer_costs_less_than_hashing_all_of_it() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--rows", "200000", "--steps", "5"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[2:])
    whole, ring = (float(rows[name].split()[1]) for name in ("whole", "ring"))
    assert 1 < ring < whole
