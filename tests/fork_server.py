"""Starts groups of processes of a script by forking one that has imported torch already.

A process of its own that imports torch takes seconds; a fork of one takes none, and has drawn
and trained nothing either. ``python fork_server.py`` reads one JSON line a group from its standard
input and answers with the exit codes, negative where a signal ended it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Modules that every fork has.
MODULES = (
    *("numpy", "torch", "torch.distributed", "torch.nn.parallel"),
    *("auditkit.recorder.recorder", "auditkit.recorder.recording"),
)

#: Seconds after which a group hangs, which no group may.
TIMEOUT = 60


@dataclass(frozen=True)
class GroupResult:
    """How a group of processes ended.

    Attributes:
        codes: Exit codes by rank; -9 for one that was killed or had to be.
        texts: Their output, by rank.
        seconds: How long it took.
    """

    codes: list[int]
    texts: list[str]
    seconds: float


class ForkServer:
    """The process that is forked.

    Args:
        folder: Where the processes' output is kept.
        variables: Environment variables of every process.
        modules: What every process has imported, beside `MODULES`.
    """

    def __init__(self, folder: Path, variables: Mapping[str, str], *modules: str) -> None:
        self._folder = folder
        self._number = 0
        self._process = subprocess.Popen(
            [sys.executable, __file__, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **variables},
            text=True,
        )

    def run(self, size: int, script: Path, *arguments: object) -> GroupResult:
        """Run a script in several processes at once, with RANK and WORLD_SIZE set."""
        self._number += 1
        logs = [self._folder / f"group-{self._number}-{rank}.log" for rank in range(size)]
        rendezvous = self._folder / f"group-{self._number}.meet"
        request = {
            "script": str(script),
            "arguments": [*map(str, arguments), "--meet", str(rendezvous)],
            "logs": [*map(str, logs)],
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        begun = time.monotonic()
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()
        codes = json.loads(self._process.stdout.readline())
        seconds = time.monotonic() - begun
        return GroupResult(codes, [log.read_text() for log in logs], seconds)

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=TIMEOUT)


def _start(request: dict[str, Any], rank: int) -> int:
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        log = os.open(request["logs"][rank], os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(len(request["logs"]))}
        sys.argv = [request["script"], *request["arguments"]]
        runpy.run_path(request["script"], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _codes(processes: Sequence[int]) -> list[int]:
    """Wait for them; those that hang are killed."""
    waiting = {process: os.pidfd_open(process) for process in processes}
    deadline = time.monotonic() + TIMEOUT
    while waiting:
        ready, _, _ = select.select(waiting.values(), [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            for process in waiting:
                os.kill(process, signal.SIGKILL)
        for process, descriptor in list(waiting.items()):
            if descriptor in ready:
                os.close(waiting.pop(process))
        if not ready:
            break
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def _look_up() -> None:
    """What every recording looks up, reads and compiles at first: nothing is drawn or trained."""
    from record_examples import JOURNAL, RECORDING

    from auditkit.formats import canonical, statements
    from auditkit.observe.machine.code import user_code
    from auditkit.observe.machine.environment import environment

    environment()
    user_code(main=True)
    statements.manifest_from_statement(statements.to_statement(RECORDING), what="an example")
    canonical.decode(type(JOURNAL), canonical.encode(JOURNAL), what="an example")
    del sys.modules["record_examples"]  # no source of the script's


def main() -> None:
    """Fork what is asked for, until the input ends."""
    for name in (*MODULES, *sys.argv[1:]):
        importlib.import_module(name)
    _look_up()
    gc.collect()
    gc.freeze()  # what is never collected is never copied into a fork
    for line in sys.stdin:
        request = json.loads(line)
        codes = _codes([_start(request, rank) for rank in range(len(request["logs"]))])
        sys.stdout.write(f"{json.dumps(codes)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
