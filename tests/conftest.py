from __future__ import annotations

import functools
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_shell import end_processes
from hypothesis import settings
from prepared_interpreters import PreparedInterpreters
from studies import PROGRAMS, TESTS, Run, study_in_process

from auditkit.observe.machine import code
from auditkit.processes import commands, fork_server
from auditkit.signing.keys import PrivateKey, generate_key
from auditkit.signing.trust import default_key, ensure_default_key

# As in workers: a program that a test writes anew within a second, at the same length, would be
# imported from the bytecode of what stood there before.
sys.dont_write_bytecode = True

#: A user who must not be found in any file of a run.
USER = "alice-the-author"
REMOTE = f"git@git.example.org:{USER}/not-yet-published.git"

#: Seconds after which a command has surely come to a halt.
TIMEOUT = 300


#: A folder in memory, and what of it must be free for the suite's files.
MEMORY, ROOM = Path("/dev/shm"), 4 << 30  # noqa: S108


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start, and let no two threads wait for one processor.

    A shell without job control lets its background jobs ignore Ctrl-C, and their children with
    them. Threads of a tiny layer take turns at spinning where tests run side by side: a step then
    takes thirty times as long.
    """
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    settings.register_profile("suite", deadline=None)  # a busy machine is no fault of a test's
    settings.load_profile("suite")
    os.environ["AUDITKIT_PROGRESS"] = "0"  # how long a test takes must not change what it sees
    os.environ.pop("COLUMNS", None)
    _use_memory()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _use_memory() -> None:
    """Put temporary files where fsync is nothing: a third of some tests' time is that of a disk."""
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK):
        return
    if shutil.disk_usage(MEMORY).free >= ROOM:
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # where somebody has asked before


def pytest_collection_finish() -> None:
    """Keep what torch, the tests and their libraries made so far out of every later collection.

    They are a million objects, and statsmodels' corrections ask for a whole collection a call.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _no_plug_is_pulled() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)  # a disk that is busy takes its time
        yield


@pytest.fixture(autouse=True, scope="session")
def _a_plug_in_of_pytest_is_no_program() -> Iterator[None]:
    """What who runs the tests brings along (``-p``) would be code of what runs in this process."""
    loaded = {getattr(m, "__dict__", {}).get("__file__") for m in sys.modules.copy().values()}
    files = {file for file in loaded if isinstance(file, str) and code.is_user_file(file)}
    foreign = {file for file in files if not Path(file).is_relative_to(TESTS)}
    origin_of = code._origin_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            code,
            "_origin_of",
            lambda path, since: code._LIBRARY if path in foreign else origin_of(path, since),
        )
        yield


@pytest.fixture(scope="session")
def interpreters() -> Iterator[Any]:
    """As ``subprocess``; where processes can be forked, it forks Python scripts and workers."""
    if not fork_server.CAN_FORK:
        yield subprocess
        return
    prepared = PreparedInterpreters()
    yield prepared
    prepared.close()


@pytest.fixture(autouse=True, scope="session")
def _processes_are_forked(interpreters: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for starts in (fork_server, commands):
            patch.setattr(starts, "subprocess", interpreters)
        yield


@pytest.fixture
def new_interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start every worker and command anew after all."""
    for starts in (fork_server, commands):
        monkeypatch.setattr(starts, "subprocess", subprocess)


@pytest.fixture(autouse=True, scope="session")
def _no_report_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_test_is_a_users_program() -> Iterator[None]:
    """Keep hundreds of test modules out of the sources of every recording that is made here.

    And git, which takes as long as a small recording, is asked once about the suite's folders.
    """
    tests, library, git = str(Path(__file__).parent), code._library_prefixes, code._git
    known_git = functools.cache(git)
    files = [str(getattr(module, "__file__", "")) for module in list(sys.modules.values())]
    known = {file for file in files if file.startswith(tests)}

    def prefixes() -> tuple[str, ...]:
        script = getattr(sys.modules["__main__"], "__file__", None)  # a test may say it is one
        return (*library(), *known - {script})

    def ask_git(folder: Path, *arguments: str) -> str | None:
        ask = known_git if str(folder).startswith(tests) else git
        return ask(folder, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "_library_prefixes", prefixes)
        patch.setattr(code, "_git", ask_git)
        yield


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    end_processes()


@dataclass(frozen=True)
class Author:
    """Somebody who runs studies: a home folder, a key, programs in a git repository."""

    home: Path
    programs: Path

    @property
    def env(self) -> dict[str, str]:
        """Environment variables of the author's shell."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AUDITKIT", "XDG"))}
        kept["AUDITKIT_PROGRESS"] = "0"
        return {**kept, "HOME": str(self.home), "USER": USER, "LOGNAME": USER}

    @property
    def key(self) -> PrivateKey:
        """The key that auditkit made on this machine."""
        return ensure_default_key(self.env)[0]

    def make_key(self) -> None:
        """Make this machine's key by hand, with the author's name in it."""
        place = default_key(self.env)
        place.parent.mkdir(parents=True)
        comment = f"{USER}@laptop"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(place)],  # noqa: S607
            check=True,
        )
        place.with_name("key.pub").unlink()  # so that auditkit takes it for its own

    def study(self, name: str, *options: str) -> Run:
        """Run a study of the tiny program, by the command line."""
        out = self.home / "runs" / name
        done = self.auditkit("run", "tiny_study.py", "--out", str(out), *options)
        assert done.returncode == 0, done.stderr
        return Run(out, self.key)

    def auditkit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Call the command line."""
        return subprocess.run(
            [sys.executable, "-m", "auditkit", *arguments],
            cwd=self.programs,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )

    def git(self, *arguments: str) -> None:
        """Call git in the folder of programs."""
        identity = ("-c", f"user.name={USER}", "-c", f"user.email={USER}@example.org")
        subprocess.run(
            ["git", *identity, *arguments],  # noqa: S607 # whichever git is installed
            cwd=self.programs,
            env=self.env,
            check=True,
            capture_output=True,
        )


@pytest.fixture(scope="session")
def author(tmp_path_factory: pytest.TempPathFactory) -> Author:
    home = tmp_path_factory.mktemp("home") / USER
    programs = home / "work"
    programs.mkdir(parents=True)
    for file in PROGRAMS.glob("*.py"):
        shutil.copy(file, programs)
    numbers = [f"{(7 * n) % 11 / 4 - 1:.2f}" for n in range(56)]
    (home / "points.txt").write_text(" ".join(numbers))
    someone = Author(home, programs)
    someone.make_key()
    someone.git("init", "--quiet")
    someone.git("remote", "add", "origin", REMOTE)
    someone.git("add", ".")
    someone.git("commit", "--quiet", "-m", "programs")
    return someone


@pytest.fixture(scope="session")
def honest(author: Author) -> Run:
    """An honest run of the tiny study, made by the command line in processes of its own."""
    return author.study("honest")


@pytest.fixture(scope="session")
def all_in_one(author: Author) -> Run:
    """An honest run with everything that a program can have, made in the same way."""
    return author.study(
        "all-in-one",
        *("--arg", "optimizer=adamw", "--arg", "parts=batchnorm+dropout+ema+scaler"),
        *("--arg", "scheduler=epoch", "--arg", "workers=2", "--arg", "accumulate=2"),
        *("--arg", f"path={author.home}/points.txt"),
        *("--fork-at", "7", "--seeds", "3", "--perturb", "adam-reset"),
        *("--perturb", "batchnorm-reset", "--perturb", "order-shuffle"),
    )


@pytest.fixture(scope="session")
def key() -> PrivateKey:
    return generate_key()


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    """An honest run of one seed, made in this process."""
    return study_in_process(tmp_path_factory.mktemp("small") / "run", key)


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Run], Run]:
    """Copies a run, so that it can be tampered with."""

    def copy(run: Run) -> Run:
        shutil.copytree(run.folder, tmp_path / "copy")
        return Run(tmp_path / "copy", run.key)

    return copy


@pytest.fixture
def forged(small: Run, copied: Callable[[Run], Run]) -> Run:
    """A copy of the small honest run, to be forged."""
    return copied(small)
