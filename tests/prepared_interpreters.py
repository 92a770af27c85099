"""Starts auditkit's workers, and scripts, by forking an interpreter that has imported torch.

A new interpreter takes two seconds to import what these import. A fork of one that has drawn
nothing, trained nothing and been told nothing has the same arguments, folder, variables,
descriptors and session as a new one would. `PreparedInterpreters` stands in for ``subprocess``
where auditkit starts processes; what is neither a worker nor a Python script is started as ever.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from auditkit.processes.interpreter import ISOLATED_ARGUMENTS, WORKER_ARGUMENTS

#: Variables that an interpreter or a library reads when it starts begin so.
_EARLY = (
    *("PYTHON", "PATH", "LANG", "LC_", "LD_", "MALLOC", "GLIBC", "OMP", "GOMP", "KMP", "MKL"),
    *("OPENBLAS", "VECLIB", "NUMEXPR", "DNNL", "ONEDNN", "ATEN", "TORCH_", "CUDA", "CUBLAS"),
    "TMPDIR",
)

#: A test may say that Python lies elsewhere.
_PYTHON = sys.executable
_WORKERS = ((_PYTHON, *WORKER_ARGUMENTS), (_PYTHON, *ISOLATED_ARGUMENTS))

_CHUNK = 1 << 20
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER

#: Forks a process for every message; the end is what that process does.
_SERVE = f"""
while True:
    message, files, _, _ = socket.recv_fds(requests, {_CHUNK}, 3)
    if not message:
        os._exit(0)
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        requests.sendall(b"adopted")
        for file in files:
            os.close(file)
        continue
    process = os.fork()
    if process:
        requests.sendall(b"%d" % process)
        os._exit(0)
    break
requests.close()
os.setsid()
told = json.loads(message)
out, err, *control = files
os.dup2(out, 1), os.dup2(err, 2)
os.close(out), os.close(err)
os.chdir(told["folder"])
os.environ.clear()
os.environ.update(told["variables"])
torch.default_generator.seed()
"""

#: The package is imported as every worker imports it.
_PREPARE_WORKER = f"""
{WORKER_ARGUMENTS[2].rpartition("from auditkit.cli.worker")[0]}
import json, os, socket
import torch
from auditkit.cli import worker
run_job = worker._prepare()
worker._prepare = lambda: run_job
del folder, spec, package
requests = socket.socket(fileno=int(pipe))
{_SERVE}
os.dup2(control[0], told["control"])
if control[0] != told["control"]:
    os.close(control[0])
sys.argv[-1] = str(told["control"])
worker.worker([sys.argv[-1]])
"""

_PREPARE_SCRIPT = f"""
import json, os, socket, sys
import numpy, torch, torch.utils.data, auditkit.recorder.recorder
import gc, importlib.machinery
gc.collect()
gc.freeze()
requests = socket.socket(fileno=int(sys.argv[1]))
{_SERVE}
numpy.random.seed()
sys.argv[:] = told["arguments"]

def become(space, path):
    sys.path[0] = os.path.dirname(path)
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    code = compile(loader.get_data(path), path, "exec")
    for name in [name for name in space if not name.startswith("__")]:
        del space[name]
    space |= dict(__file__=path, __loader__=loader, __cached__=None)
    exec(code, space)

become(globals(), os.path.abspath(sys.argv[0]))
"""


class _Forked(subprocess.Popen[bytes]):
    """A child that somebody else has forked for this process."""

    def __init__(
        self, pid: int, arguments: Sequence[str], out: int | None, err: int | None
    ) -> None:
        self.args = list(arguments)
        self.pid = pid
        self.returncode: Any = None
        self.stdin = None
        self.stdout = None if out is None else os.fdopen(out, "rb")
        self.stderr = None if err is None else os.fdopen(err, "rb")
        self.text_mode = None
        self._child_created = True
        self._waitpid_lock = threading.Lock()
        self._communication_started = False
        self._input = None
        self._sigint_wait_secs = 0.25


class _Prepared:
    """An interpreter that waits to be forked."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=variables,
                cwd="/",
                start_new_session=True,
            )

    def fork(self, told: Mapping[str, object], files: Sequence[int]) -> int:
        """Have it fork a child of this process."""
        message = json.dumps(told).encode("utf-8", "surrogateescape")
        with _adopting():  # whoever forks for another ends at once, and leaves it an orphan
            socket.send_fds(self._requests, [message], files)
            pid = int(self._requests.recv(_CHUNK))
            assert self._requests.recv(_CHUNK) == b"adopted"
        return pid

    def close(self) -> None:
        """End it, whoever else has a copy of its socket: loader workers that a test left."""
        self._requests.shutdown(socket.SHUT_RDWR)
        self._requests.close()
        self._process.wait()


class PreparedInterpreters:
    """As ``subprocess``, for who starts workers or commands."""

    DEVNULL = subprocess.DEVNULL
    PIPE = subprocess.PIPE
    TimeoutExpired = subprocess.TimeoutExpired

    def __init__(self) -> None:
        self._prepared: dict[object, _Prepared] = {}
        self._lock = threading.Lock()

    def Popen(  # noqa: N802 # it stands in for subprocess.Popen
        self, command: Sequence[str], *, env: Mapping[str, str], **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start a process."""
        options["env"] = env
        if tuple(command[:-1]) in _WORKERS:
            return self._worker(command, **options)
        is_script = list(command[:1]) == [_PYTHON] and str(command[1]).endswith(".py")
        if is_script and Path(options.get("cwd") or "", command[1]).is_file():
            return self._script(command, **options)
        return subprocess.Popen(command, **options)

    def _worker(
        self, command: Sequence[str], env: Mapping[str, str], **options: Any
    ) -> subprocess.Popen[bytes]:
        code = WORKER_ARGUMENTS[2]
        prepared = [_PREPARE_WORKER if part is code else part for part in command[:-1]]
        (control,), log = options["pass_fds"], options["stdout"].fileno()
        told = {"folder": os.getcwd(), "variables": dict(env), "control": control}  # noqa: PTH109
        pid = self._fork(prepared, env, told, [log, log, control])
        return _Forked(pid, command, None, None)

    def _script(
        self, command: Sequence[str], env: Mapping[str, str], **options: Any
    ) -> subprocess.Popen[bytes]:
        folder = str(Path(options.get("cwd") or "").absolute())
        told = {"folder": folder, "variables": dict(env), "arguments": [*map(str, command[1:])]}
        (out, to_out), (err, to_err) = os.pipe(), os.pipe()
        try:
            pid = self._fork([_PYTHON, "-c", _PREPARE_SCRIPT], env, told, [to_out, to_err])
        finally:
            os.close(to_out)
            os.close(to_err)
        return _Forked(pid, command, out, err)

    def _fork(
        self,
        command: list[str],
        env: Mapping[str, str],
        told: Mapping[str, object],
        files: list[int],
    ) -> int:
        early = {name: text for name, text in env.items() if name.startswith(_EARLY)}
        key = (*command, frozenset(early.items()))
        with self._lock:
            if key not in self._prepared:
                self._prepared[key] = _Prepared(command, early)
            return self._prepared[key].fork(told, files)

    def close(self) -> None:
        """End every prepared interpreter."""
        for prepared in self._prepared.values():
            prepared.close()


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Let orphans below this process become its children."""
    control = ctypes.CDLL(None).prctl
    control(_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        control(_SUBREAPER, 0, 0, 0, 0)
