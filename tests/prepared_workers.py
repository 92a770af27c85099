"""Starts auditkit's workers by forking an interpreter that has imported what they import.

A new interpreter takes two seconds to import it. A fork of one that has drawn nothing, trained
nothing and been told nothing has the same arguments, folder, variables, descriptors and session as
a new one would. `PreparedWorkers` stands in for ``subprocess`` in
:mod:`auditkit.processes.fork_server`; what is no worker of auditkit's is started as ever.
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
from typing import IO, Any

from auditkit.processes.interpreter import ISOLATED_ARGUMENTS, WORKER_ARGUMENTS

#: Variables that an interpreter or a library reads when it starts begin so.
_EARLY = (
    *("PYTHON", "PATH", "LANG", "LC_", "LD_", "MALLOC", "GLIBC", "OMP", "GOMP", "KMP", "MKL"),
    *(
        "TMPDIR",
        "OPENBLAS",
        "VECLIB",
        "NUMEXPR",
        "DNNL",
        "ONEDNN",
        "ATEN",
        "TORCH_",
        "CUDA",
        "CUBLAS",
    ),
)

#: What workers are started with; a test may say that Python lies elsewhere.
_WORKERS = ((sys.executable, *WORKER_ARGUMENTS), (sys.executable, *ISOLATED_ARGUMENTS))

_CHUNK = 1 << 20
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER

#: The package is imported as every worker imports it.
_PREPARE = f"""
{WORKER_ARGUMENTS[2].rpartition("from auditkit.cli.worker")[0]}
import json, os, socket
from auditkit.cli import worker
run_job = worker._prepare()
worker._prepare = lambda: run_job
del folder, spec, package
requests = socket.socket(fileno=int(pipe))
while True:
    message, files, _, _ = socket.recv_fds(requests, {_CHUNK}, 2)
    if not message:
        break
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
    requests.close()
    os.setsid()
    told = json.loads(message)
    control, log = files
    os.dup2(log, 1), os.dup2(log, 2)
    os.close(log)
    os.dup2(control, told["control"])
    if control != told["control"]:
        os.close(control)
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["variables"])
    sys.argv[-1] = str(told["control"])
    worker.worker([sys.argv[-1]])
"""


class _Forked(subprocess.Popen[bytes]):
    """A child that somebody else has forked for this process."""

    def __init__(self, pid: int, arguments: Sequence[str]) -> None:
        self.args = list(arguments)
        self.pid = pid
        self.returncode: Any = None
        self.stdin = self.stdout = self.stderr = None
        self._child_created = True
        self._waitpid_lock = threading.Lock()
        self._communication_started = False
        self._input = None
        self._sigint_wait_secs = 0.25


class _Prepared:
    """An interpreter that waits to be forked."""

    def __init__(self, beginning: Sequence[str], variables: Mapping[str, str]) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [_PREPARE if part is WORKER_ARGUMENTS[2] else part for part in beginning]
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=variables,
                cwd="/",
                start_new_session=True,
            )

    def fork(self, control: int, log: IO[bytes], variables: Mapping[str, str]) -> int:
        """Have it fork a child of this process."""
        told = {"control": control, "folder": os.getcwd(), "variables": dict(variables)}  # noqa: PTH109
        message = json.dumps(told).encode("utf-8", "surrogateescape")
        with _adopting():  # whoever forks for another ends at once, and leaves it an orphan
            socket.send_fds(self._requests, [message], [control, log.fileno()])
            pid = int(self._requests.recv(_CHUNK))
            assert self._requests.recv(_CHUNK) == b"adopted"
        return pid

    def close(self) -> None:
        """End it."""
        self._requests.close()
        self._process.wait()


class PreparedWorkers:
    """As ``subprocess``, for who starts workers."""

    DEVNULL = subprocess.DEVNULL
    TimeoutExpired = subprocess.TimeoutExpired

    def __init__(self) -> None:
        self._prepared: dict[object, _Prepared] = {}
        self._lock = threading.Lock()

    def Popen(  # noqa: N802 # it stands in for subprocess.Popen
        self,
        command: Sequence[str],
        *,
        stdout: IO[bytes],
        pass_fds: Sequence[int],
        env: Mapping[str, str],
        **options: Any,
    ) -> subprocess.Popen[bytes]:
        """Start a process."""
        beginning = tuple(command[:-1])
        if beginning not in _WORKERS:
            options |= {"stdout": stdout, "pass_fds": pass_fds, "env": env}
            return subprocess.Popen(command, **options)
        early = {name: text for name, text in env.items() if name.startswith(_EARLY)}
        key = beginning, frozenset(early.items())
        with self._lock:
            if key not in self._prepared:
                self._prepared[key] = _Prepared(beginning, early)
            pid = self._prepared[key].fork(pass_fds[0], stdout, env)
        return _Forked(pid, command)

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
