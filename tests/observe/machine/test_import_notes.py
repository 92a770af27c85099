"""``auditkit run`` warns of what a reviewer would miss of the modules that a program imported."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_shell import Shell

from auditkit.files import installed
from auditkit.observe.machine import code
from auditkit.observe.machine.code import import_notes
from auditkit.observe.machine.imports import (
    note_held_files,
    note_read_backs,
    noted_opens,
    watched_imports,
)

HELPER = "noted_helper"


@pytest.fixture
def notes_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., list[str]]]:
    """Imports the helper from a folder; what is noted."""
    (tmp_path / "program").mkdir()

    def notes(folder: Path, run: Callable[[], object] = lambda: __import__(HELPER)) -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{HELPER}.py").write_text("X = 1\n")
        monkeypatch.syspath_prepend(folder)
        with watched_imports(tmp_path / "program", "study.py"):
            run()
            return [note for note in import_notes() if HELPER in note]

    yield notes
    sys.modules.pop(HELPER, None)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A further folder that distributions are installed into."""
    folder = tmp_path / "lib" / "site-packages"
    known = installed.Distributions([*installed.site_folders(), folder])
    monkeypatch.setattr(code, "_distributions", lambda: known)
    return folder


def test_nothing_is_noted_of_a_module_of_the_program(
    notes_of: Callable[..., list[str]], tmp_path: Path
) -> None:
    assert notes_of(tmp_path / "program") == []
    assert import_notes() == ()  # outside a job


def test_a_module_among_distributions_that_no_record_names(
    notes_of: Callable[..., list[str]], site: Path
) -> None:
    (note,) = notes_of(site)
    assert note == (
        f"{HELPER} lies among installed distributions, and no RECORD names it; "
        "it is recorded in code/"
    )


def test_nothing_is_noted_of_a_module_that_a_record_names(
    notes_of: Callable[..., list[str]], site: Path
) -> None:
    info = site / "noted_helper-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "RECORD").write_text(f"{HELPER}.py,,\nnoted_helper-1.0.dist-info/RECORD,,\n")
    assert notes_of(site) == []


def test_a_module_in_a_folder_that_is_only_called_so(
    notes_of: Callable[..., list[str]], tmp_path: Path
) -> None:
    (note,) = notes_of(tmp_path / "elsewhere" / "site-packages")
    assert note == (
        f"{HELPER} comes from a folder that this interpreter does not install into; "
        "it is recorded in code/"
    )


def test_a_module_of_a_distribution_in_editable_mode(
    notes_of: Callable[..., list[str]], site: Path, tmp_path: Path
) -> None:
    info, folder = site / "noted_helper-1.0.dist-info", tmp_path / "checkout"
    info.mkdir(parents=True)
    url = {"url": folder.as_uri(), "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(url))
    (note,) = notes_of(folder)
    assert note == (
        f"{HELPER} comes from noted_helper 1.0, installed in editable mode; it is recorded in code/"
    )


def test_a_file_that_was_executed_and_is_no_module(
    notes_of: Callable[..., list[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"

    def run() -> None:
        path = folder / f"{HELPER}.py"
        exec(compile(path.read_text(), str(path), "exec"), {})  # noqa: S102

    (note,) = notes_of(folder, run)
    assert note == f"{HELPER}.py was executed, and is not recorded: import it as a module"


def test_the_command_line_warns(tmp_path: Path) -> None:
    shell = Shell.at(tmp_path / "user")
    helper = shell.write(f"apart/site-packages/{HELPER}.py", "X = 1\n")
    (shell.folder / "warned_study.py").write_text(
        f"import sys\nsys.path.insert(0, {str(helper.parent)!r})\nimport {HELPER}\n"
        "from tiny_study import make_program\n"
    )
    options = ("--seeds", "0", "--perturb", "carry", "--fork-at", "2", "--window", "1")
    done = shell(
        "run", "warned_study.py", "--out", "out", *options, "--horizon", "4", "--placebos", "1"
    )
    assert done.code == 0, done.err
    assert f"auditkit: warning: {HELPER}" in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("mode", "is_new", "is_read_back"),
    [("rb", True, True), ("rb", False, False), ("r+b", True, True), ("ab", True, False)],
)
@pytest.mark.parametrize("by_a_fork", [False, True])
def test_a_file_that_is_read_and_was_written_meanwhile_is_seen(
    tmp_path: Path, mode: str, is_new: bool, is_read_back: bool, by_a_fork: bool
) -> None:
    path = tmp_path / "best.pt"
    with watched_imports(tmp_path, "study.py") as watch:
        path.write_bytes(b"weights")
        if not is_new:
            os.utime(path, (1, 1))
        path.read_bytes()  # as a factory may
        note_read_backs()
        assert not watch.opens.read_back
        if by_a_fork and (pid := os.fork()):
            os.waitpid(pid, 0)
        else:
            path.open(mode).close()
            if by_a_fork:
                os._exit(0)
        assert watch.opens.read_back == is_read_back
        assert watch.opens.read_back_name == ("best.pt" if is_read_back else "")


def test_what_the_system_makes_while_it_is_read_was_written_by_nobody(tmp_path: Path) -> None:
    with watched_imports(tmp_path, "study.py") as watch:
        note_read_backs()
        Path("/proc/self/status").read_bytes()
        assert not watch.opens.read_back


def _sqlite(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("create table if not exists t (v)")
    return connection


def _deleted(path: Path) -> Any:
    file = path.open("w+b")
    path.unlink()
    return file


@pytest.mark.skipif(not Path("/proc/self/fdinfo").exists(), reason="the system lists no files")
@pytest.mark.parametrize(
    ("hold", "is_seen"),
    [
        (lambda path: path.open("w+b"), True),
        (lambda path: np.memmap(path, np.uint8, "w+", shape=8), True),
        (_sqlite, True),
        (lambda path: path.open("ab"), False),
        (lambda path: path.open("wb"), False),
        (_deleted, False),  # nobody else can open it
        (lambda _: tempfile.TemporaryFile(), False),  # noqa: SIM115 # held on purpose
    ],
    ids=["file", "map", "sqlite", "log", "new", "deleted", "temporary"],
)
def test_a_file_that_is_held_for_reading_and_writing_is_seen(
    hold: Callable[[Path], Any], is_seen: bool, tmp_path: Path
) -> None:
    with watched_imports(tmp_path, "study.py") as watch:
        held = hold(tmp_path / "held")  # as a factory may
        note_read_backs()
        note_held_files()
        assert watch.opens.read_back == is_seen
        getattr(held, "close", lambda: None)()


def test_a_file_that_is_held_and_was_not_written_is_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"data")
    os.utime(tmp_path / "data", (1, 1))
    with watched_imports(tmp_path, "study.py") as watch, (tmp_path / "data").open("r+b"):
        note_read_backs()
        note_held_files()
        assert not watch.opens.read_back


@pytest.mark.parametrize("form", ["{}", "file:{}?mode=rwc"])
def test_a_database_that_is_opened_again_at_every_step_is_seen(tmp_path: Path, form: str) -> None:
    path = tmp_path / "steps.db"

    def step() -> None:
        name = form.format(path)
        with contextlib.closing(sqlite3.connect(name, uri=True, isolation_level=None)) as base:
            base.execute("create table if not exists t (v)")

    with watched_imports(tmp_path, "study.py") as watch:
        step()  # as a factory may
        assert not watch.opens.read_back
        note_read_backs()
        sqlite3.connect(":memory:").close()
        assert not watch.opens.read_back
        step()
        assert watch.opens.read_back


@pytest.mark.parametrize("change", ["nothing", "code", "no code", "data", "no data", "old data"])
def test_what_was_executed_and_opened_is_compared_with_what_lies_there_now(
    tmp_path: Path, change: str
) -> None:
    source, data = tmp_path / "part.py", tmp_path / "data.txt"
    source.write_text("X = 1\n")
    data.write_text("1")
    with watched_imports(tmp_path, "study.py") as watch:
        exec(compile(source.read_text(), str(source), "exec"), {})  # noqa: S102
        with noted_opens():
            data.read_text()
        path = source if "code" in change else data
        if change.startswith("no "):
            path.unlink()
        elif change == "old data":  # as one that is copied with its time
            before = path.stat()
            path.write_text("2")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        elif change != "nothing":
            path.write_text("X = 2\n")
        assert watch.is_current() == (change == "nothing")


def test_a_job_of_a_fork_notes_for_itself_alone(tmp_path: Path) -> None:
    names = [tmp_path / f"part{i}.py" for i in range(3)]
    for name in names:
        name.write_text("X = 1\n")

    def execute(path: Path) -> None:
        exec(compile(path.read_text(), str(path), "exec"), {})  # noqa: S102

    def in_a_fork(act: Callable[[], object]) -> None:
        pid = os.fork()
        if pid == 0:
            act()
            os._exit(0)
        os.waitpid(pid, 0)

    def read_back() -> None:
        watch.begin_job()
        note_read_backs()
        execute(names[2])
        (tmp_path / "new.txt").write_text("1")
        (tmp_path / "new.txt").read_text()
        os._exit(int(not watch.opens.read_back))

    with watched_imports(tmp_path, "study.py") as watch:
        execute(names[0])
        in_a_fork(lambda: execute(names[1]))  # a loader's worker tells it
        in_a_fork(read_back)
        assert [Path(path) for path in watch.since()] == names[:2]
        assert not watch.opens.read_back
        watch.begin_job()
        assert [Path(path) for path in watch.since()] == names[:2]


def test_what_a_fork_starts_is_told_to_the_process_that_is_asked(tmp_path: Path) -> None:
    def in_a_fork(act: Callable[[], object]) -> None:
        if (pid := os.fork()) == 0:
            act()
            os._exit(0)
        os.waitpid(pid, 0)

    def named(name: str) -> list[str]:
        return [name, "caf\udce9", "two words"]

    with watched_imports(tmp_path, "study.py") as watch:
        true = shutil.which("true") or "true"
        in_a_fork(lambda: subprocess.run([true, "by", "run"], check=True))
        in_a_fork(lambda: os.execv(true, named(true)))  # noqa: S606
        for _ in range(2):  # the second time of a job that goes on from here
            told = watch.files()
            assert told.programs == (f"{true} by run", f"{true} 'caf\\udce9' 'two words'")
            assert true not in told.since
            watch.begin_job()
