"""A library's recorded loop and study, each with 0 and 2 workers: what became of them.

::

    PYTHONPATH=tests python -m ecosystem.examination FOLDER [NAME ...]

prints a line of a table for each program of ``libraries.py``. What happens in a library's
environment happens in processes of its own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ecosystem.environments import call, make_environment, one_line
from ecosystem.libraries import LIBRARIES, PINS, Library

HERE = Path(__file__).parent
WORKERS = (0, 2)


@dataclass(frozen=True)
class Found:
    """What became of a loop or a study.

    Attributes:
        word: ``works``, ``refused`` (by an error of auditkit's), ``silent`` (other weights, and
            not a word), ``warned`` (a recording that says that it is not whole) or ``failed``.
        reason: What was said.
    """

    word: str
    reason: str = ""


def environment_of(folder: Path, library: Library) -> Path:
    """The python of a library's environment below a folder."""
    pins = PINS[library.environment]
    where = folder.resolve() / "environments" / library.environment
    return make_environment(where, pins.packages, without_needs=pins.without_needs)


def examine(folder: Path, name: str) -> dict[str, Found]:
    """Loop and study of a program with each number of workers."""
    python = environment_of(folder, LIBRARIES[name])
    found = {}
    for kind, examination in EXAMINATIONS.items():
        for workers in WORKERS:
            found[f"{kind} {workers}"] = examination(python, folder.resolve(), name, workers)
    return found


def examine_loop(python: Path, folder: Path, name: str, workers: int) -> Found:
    """A loop bare, recorded, and killed and resumed."""
    out = folder / "loops" / f"{name}-{workers}"
    given = _prepare(python, out, name)
    if isinstance(given, Found):
        return given
    ended: dict[str, str] = {}
    for mode in ("bare", "recorded", "bare", "killed", "resumed"):
        if mode == "bare" and ended.get("recorded") == ended.get("bare") is not None:
            continue  # only a loop that may not be repeatable by itself is run bare again
        recording = out / ("whole" if mode == "recorded" else "cut")
        words = [f"{name}.py", mode, str(workers), str(recording)]
        done = call(python, out, str(HERE / "recorded_loop.py"), *words)
        (out / f"{mode}.log").write_text(done.stdout + done.stderr)
        if mode == "killed" and done.returncode == -9:
            continue
        if done.returncode or mode == "killed":
            return _refused_or_failed(f"{mode}: ", done)
        if warned := re.findall(r"RecordingStopped: .*", done.stderr):
            return Found("warned", f"{mode}: {one_line(warned[0])}")
        (weights,) = re.findall(r"^weights (\w+)$", done.stdout, re.MULTILINE)
        if mode == "bare" and ended.get("bare") == weights:
            return Found("silent", "the recorded loop ends in other weights")
        ended[mode] = weights
    if len(set(ended.values())) > 1:
        return Found("silent", "the resumed loop ends in other weights")
    return Found("works")


def examine_study(python: Path, folder: Path, name: str, workers: int) -> Found:
    """``auditkit run`` and ``auditkit verify``."""
    out = folder / "studies" / f"{name}-{workers}"
    given = _prepare(python, out, name)
    if isinstance(given, Found):
        return given
    run = ["run", f"{name}.py", "--out", "run", "--arg", f"workers={workers}", *given]
    for words in (run, ["verify", "run/manifest.json"]):
        done = call(python, out, "-W", "ignore", "-m", "auditkit", *words)
        (out / f"{words[0]}.log").write_text(done.stdout + done.stderr)
        if done.returncode:
            return _refused_or_failed(f"{words[0]}: ", done)
    return Found("works")


EXAMINATIONS: dict[str, Callable[[Path, Path, str, int], Found]] = {
    "loop": examine_loop,
    "study": examine_study,
}


def _refused_or_failed(what: str, done: subprocess.CompletedProcess[str]) -> Found:
    """A refusal is an error of auditkit's; anything else is a failure, of whosever."""
    said = one_line(done.stderr)
    in_loop = re.search(r"auditkit\.errors\.(\w+): (.*)", said)
    if in_loop:
        return Found("refused", f"{what}{in_loop[1]}: {in_loop[2]}")
    by_command = re.search(r"auditkit: (.*)\(auditkit explain (\w+)\)", said)
    if by_command and by_command[2] != "ProgramFailed":
        return Found("refused", f"{what}{by_command[2]}: {by_command[1]}")
    report = re.search(r"(check \d+ [\w ]+: .{0,200})", one_line(done.stdout))
    return Found("failed", what + (report[1] if report else said[-300:] or one_line(done.stdout)))


def _prepare(python: Path, out: Path, name: str) -> list[str] | Found:
    """A fresh folder with the programs and the data of this one; arguments that name the data."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(HERE / "programs", out)
    if "prepare" not in (out / f"{name}.py").read_text():
        return []
    done = call(python, out, str(HERE / "recorded_loop.py"), f"{name}.py", "prepare", "0", ".")
    if done.returncode:
        return _refused_or_failed("prepare: ", done)
    return ["--arg", f"data={out / 'data'}"]


def main() -> None:
    """Examine what is named, or everything."""
    folder, *names = sys.argv[1:]
    for name in names or LIBRARIES:
        for what, found in examine(Path(folder), name).items():
            print(f"| {name} | {what} | {found.word} | {found.reason} |", flush=True)


if __name__ == "__main__":
    main()
