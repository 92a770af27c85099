"""A worker that is forked from a prepared interpreter is what a new one is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cli_shell import names_in
from prepared_workers import PreparedWorkers
from studies import PLAN, PROGRAMS

from auditkit.processes import fork_server
from auditkit.processes.worker_pool import Workers
from auditkit.records.job import Job, ProgramSource

pytestmark = pytest.mark.skipif(not fork_server.CAN_FORK, reason="this system forks no process")

#: Says what its process is, and builds the tiny study's program.
_TELLING = f"""
import json, os, random, re, sys
sys.path.append({str(PROGRAMS)!r})
import numpy, tiny_study, torch
drawn = random.random(), numpy.random.rand()
def make_program(seed, to):
    files = [(file, os.readlink(f"/proc/self/fd/{{file}}")) for file in os.listdir("/proc/self/fd")
             if os.path.exists(f"/proc/self/fd/{{file}}")]
    told = {{
        "arguments": sys.argv[1:2], "length": len(sys.argv), "flags": str(sys.flags),
        "path": sys.path,
        "modules": sorted(sys.modules), "folder": os.getcwd(),
        "variables": {{k: v for k, v in os.environ.items() if k != "AUDITKIT_WORKERS"}},
        "threads": [len(os.listdir("/proc/self/task")), torch.get_num_threads()],
        "interop": torch.get_num_interop_threads(), "random": torch.initial_seed(),
        "files": sorted((file, re.sub("[0-9]+", "", to)) for file, to in files),
        "session": os.getsid(0) == os.getppid(), "signals": [
            str(__import__("signal").getsignal(number)) for number in (2, 13, 15, 17)
        ],
    }}
    with open(to, "a") as file:
        file.write(json.dumps([told, *drawn]) + "\\n")
    return tiny_study.make_program(seed)
"""


def test_it_is_a_new_interpreter_by_all_that_a_program_can_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "telling_study.py").write_text(_TELLING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDITKIT_TEST_VARIABLE", "of this test")
    to = tmp_path / "told"
    source = ProgramSource("telling_study.py:make_program", str(tmp_path), {"to": str(to)})

    def ask() -> None:
        with Workers() as workers:
            workers.run(Job("register", source, PLAN, 3, "", step=0))

    assert isinstance(vars(fork_server)["subprocess"], PreparedWorkers)
    ask()
    held = names_in(Path("/dev/fd"))
    ask()
    assert names_in(Path("/dev/fd")) == held
    monkeypatch.setattr(fork_server, "subprocess", subprocess)
    ask()
    (first, *drawn), (second, *drawn_then), (new, *_) = map(json.loads, to.read_text().splitlines())
    assert first == second == new
    assert new["folder"] == str(tmp_path)
    assert len({*drawn, *drawn_then}) == 4
