"""The command line in a folder of its own, with a home, keys and programs of its own.

``shell("run", ...)`` calls it inside the test's process, workers included, which takes
milliseconds; with ``fresh=True`` its workers are real processes; ``shell.start("run", ...)`` is a
real process with real workers.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner
from studies import PROGRAMS, InProcessWorkers

from auditkit.cli import main
from auditkit.errors import AuditError
from auditkit.processes.told_errors import describe_error, rebuild_error
from auditkit.records.job import Job
from auditkit.signing.envelopes import open_envelope

#: Seconds after which whatever is waited for will not come any more.
PATIENCE = 120

_WORKERS = (
    *(
        "auditkit.cli.run.Workers",
        "auditkit.cli.plan.Workers",
        "auditkit.study.seed_runs.Workers",
    ),
    *("auditkit.replay.study_replay.Workers", "auditkit.verification.rebuilding.Workers"),
)


@dataclass(frozen=True)
class CompletedCommand:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The error: one line on stderr, with nothing before it, and after it only its topic."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("auditkit: "), self.err
        return re.sub(r" \(auditkit explain [A-Z]\w+\)$", "", lines[0].removeprefix("auditkit: "))


class SerialisingWorkers(InProcessWorkers):
    """Does jobs in this process; errors go through JSON, as workers send them."""

    def run(self, job: Job, *told: Any) -> Any:
        try:
            return super().run(job, *told)
        except AuditError as error:
            answer = json.loads(json.dumps(describe_error(error)))
        raise rebuild_error(answer)


@dataclass(frozen=True)
class Shell:
    """A user's folder: home, working folder, programs, key."""

    folder: Path

    @classmethod
    def at(cls, folder: Path, *, keygen: bool = True) -> Shell:
        """A shell in a new folder that holds copies of the test programs, and perhaps a key."""
        folder.mkdir()
        for file in PROGRAMS.glob("*.py"):
            shutil.copy(file, folder)
        shell = cls(folder)
        if keygen:
            assert shell("keygen").code == 0
        return shell

    @property
    def env(self) -> dict[str, str]:
        """Environment variables."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("AUDITKIT")}
        kept["AUDITKIT_PROGRESS"] = "0"
        return {**kept, "HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder / "config")}

    def __call__(self, *arguments: str, fresh: bool = False) -> CompletedCommand:
        """Call the command line in this process.

        Args:
            arguments: What is typed.
            fresh: Whether its workers are processes after all.
        """
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            for name in ("HOME", "XDG_CONFIG_HOME"):
                patch.setenv(name, self.env[name])
            for place in () if fresh else _WORKERS:
                patch.setattr(place, SerialisingWorkers)
            done = CliRunner().invoke(main, arguments, catch_exceptions=False)
        return CompletedCommand(done.exit_code, done.stdout, done.stderr)

    def start(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        stdout: int | IO[str] = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> Process:
        """Call the command line in a process of its own, the leader of its group.

        Args:
            arguments: What is typed.
            env: Further environment variables.
            stdout: As for :class:`subprocess.Popen`.
            stderr: The same.
        """
        process = subprocess.Popen(
            [sys.executable, "-m", "auditkit", *arguments],
            cwd=self.folder,
            env={**self.env, **(env or {})},
            stdout=stdout,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
        _started.append(process)
        return process

    def write(self, name: str, text: str) -> Path:
        """Write a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


Process = subprocess.Popen[str]

#: What :meth:`Shell.start` started, until :func:`end_processes`.
_started: list[Process] = []


def end_processes() -> None:
    """Kill what still runs and close its pipes, so that a test that failed disturbs no other."""
    while _started:
        with _started.pop() as process:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False)  # noqa: S607
    return state.stdout.strip()[:1] not in (b"", b"Z")


def wait_for(happened: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until something has happened."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def statement_bytes(manifest: Path) -> bytes:
    """What was signed."""
    return open_envelope(manifest.read_bytes()).payload


def timeless(manifest: Path) -> Any:
    """The signed statement without the times of the run, which are all that may differ."""
    statement = json.loads(statement_bytes(manifest))
    times = statement["predicate"].pop("run")
    assert sorted(times) == ["finished", "started"]
    return statement


def names_in(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but those that hold times or the key, and a reader's report."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("manifest.json", "signer.pub", "report.json")
    }
