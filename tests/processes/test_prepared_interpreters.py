"""A process that is forked from a prepared interpreter is what a new one is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_shell import names_in
from prepared_interpreters import PreparedInterpreters
from studies import PLAN, PROGRAMS

from auditkit.processes import commands, fork_server
from auditkit.processes.commands import Commands
from auditkit.processes.worker_pool import Workers
from auditkit.records.job import Job, ProgramSource

pytestmark = pytest.mark.skipif(not fork_server.CAN_FORK, reason="this system forks no process")

#: Says what its process is.
_TELLING = """
import json, os, random, re, signal, sys
import auditkit.recorder.recorder, numpy, torch.utils.data
drawn = random.random(), numpy.random.rand(), torch.rand(()).item()
secrets = ("AUDITKIT_WORKERS", "AUDITKIT_SESSION")

def tell(to):
    held = {file: f"/proc/self/fd/{file}" for file in os.listdir("/proc/self/fd")}
    told = {
        "arguments": sys.argv[:2], "flags": str(sys.flags), "path": sys.path,
        "modules": sorted(set(sys.modules)), "folder": os.getcwd(),
        "variables": {name: os.environ[name] for name in os.environ if name not in secrets},
        "threads": [len(os.listdir("/proc/self/task")), torch.get_num_threads()],
        "interop": torch.get_num_interop_threads(),
        "files": sorted((file, re.sub("[0-9]+", "", os.readlink(link)))
                        for file, link in held.items() if os.path.exists(link)),
        "leads": [os.getsid(0) in (os.getpid(), os.getppid()), os.getpgid(0) == os.getpid()],
        "signals": [str(signal.getsignal(number)) for number in (2, 13, 15, 17)],
        "main": sys.modules["__main__"].__name__,
    }
    with open(to, "a") as file:
        file.write(json.dumps([told, *drawn]) + "\\n")
"""
_STUDY = f"""
import sys
sys.path.append({str(PROGRAMS)!r})
import telling, tiny_study
def make_program(seed, to):
    telling.tell(to)
    return tiny_study.make_program(seed)
"""
_SCRIPT = """
import sys, telling
def tell(to):
    telling.tell(to)
tell(sys.argv[1])
assert sys.modules["__main__"].tell is tell and __file__ == tell.__code__.co_filename
assert [name for name in globals() if not name.startswith("__")] == ["sys", "telling", "tell"]
print("said", flush=True)
raise ValueError("at the end")
"""


def _worker(to: str) -> None:
    source = ProgramSource("telling_study.py:make_program", ".", {"to": to})
    with Workers() as workers:
        workers.run(Job("register", source, PLAN, 3, "", step=0))


def _command(to: str) -> None:
    with Commands() as running:
        command = [sys.executable, "telling_script.py", to]
        done = running.run(command, lambda *_: None, threads=1)
    assert (done.returncode, done.connected) == (1, 0)
    assert done.output_tail.endswith("ValueError: at the end")


@pytest.mark.parametrize("begin", [_worker, _command])
def test_it_is_a_new_interpreter_by_all_that_a_program_can_see(
    begin: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (
        ("telling", _TELLING),
        ("telling_study", _STUDY),
        ("telling_script", _SCRIPT),
    ):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDITKIT_TEST_VARIABLE", "of this test")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert isinstance(vars(fork_server)["subprocess"], PreparedInterpreters)
    begin("told")
    held = names_in(Path("/dev/fd"))
    begin("told")
    assert names_in(Path("/dev/fd")) == held
    for starts in (fork_server, commands):
        monkeypatch.setattr(starts, "subprocess", subprocess)
    begin("told")
    (first, *drawn), (second, *drawn_then), (new, *_) = map(
        json.loads, Path("told").read_text().splitlines()
    )
    assert first == second == new
    assert new["folder"] == str(tmp_path)
    assert len({*drawn, *drawn_then}) == 6
