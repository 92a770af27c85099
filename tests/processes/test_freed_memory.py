"""What a worker frees, it has again without page faults."""

from __future__ import annotations

import ctypes
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from auditkit.errors import ProgramFailed
from auditkit.processes import freed_memory
from auditkit.processes.worker_pool import Workers
from auditkit.records.job import Job, ProgramSource

#: Ten times eight blocks of 1 MB, as a step's activations, and the later times' page faults.
_STEPS = """
import resource
for step in range(10):
    if step == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytearray(1 << 20) for _ in range(8)]
    del blocks
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
"""

_BEGIN = """
import sys
sys.path.insert(0, sys.argv[1])
from freed_memory import keep_freed_memory
keep_freed_memory(dict.fromkeys(sys.argv[2:], "0"))
"""

#: Far fewer than eight steps without keeping anything have, which is 16,000.
_FEW = 1000

on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")


@on_glibc
@pytest.mark.parametrize("set_by_user", [[], ["MALLOC_TRIM_THRESHOLD_"]])
def test_a_step_has_the_memory_of_the_last_one(set_by_user: list[str]) -> None:
    folder = str(Path(freed_memory.__file__).parent)
    script = f"{_BEGIN}{_STEPS}print(faults)"
    arguments = [sys.executable, "-I", "-S", "-c", script, folder, *set_by_user]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, env={})
    assert (int(done.stdout) < _FEW) == (not set_by_user), done.stdout


@on_glibc
def test_so_has_a_worker(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text(f"{_STEPS}raise OSError(f'{{faults}} faults')")
    job = Job("describe", ProgramSource("steps.py:f", str(tmp_path), {}), None, 0, "")
    with Workers(fork=False) as workers, pytest.raises(ProgramFailed) as caught:
        workers.run(job)
    found = re.search(r"(\d+) faults", str(caught.value))
    assert found is not None, caught.value
    assert int(found[1]) < _FEW


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    freed_memory.keep_freed_memory({})
