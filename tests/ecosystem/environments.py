"""Virtual environments of one library each: auditkit, what it needs, and pinned packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

ROOT = Path(__file__).resolve().parents[2]


def make_environment(
    folder: Path, packages: Sequence[str] = (), *, without_needs: Sequence[str] = ()
) -> Path:
    """The python of an environment with auditkit and these packages; made once.

    Args:
        folder: Where it lies. Beside it lies ``base``, which holds what all have in common.
        packages: Pins that are installed with what they need.
        without_needs: Pins that are installed by themselves, since their own pins forbid this
            torch or numpy, or name a heavy tree that nobody uses here.

    Raises:
        subprocess.CalledProcessError: When something cannot be installed.
    """
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        if folder.name == "base":
            venv.create(folder, with_pip=True)
            _install(folder, "-e", str(ROOT))
        else:
            base = make_environment(folder.with_name("base")).parents[1]
            # Hard links: torch is on the disk once. pip replaces files and never writes into one.
            shutil.copytree(base, folder, symlinks=True, copy_function=os.link)
            (folder / "ready").unlink()
        if packages:
            _install(folder, *packages)
        if without_needs:
            _install(folder, "--no-deps", *without_needs)
        (folder / "ready").touch()
    return folder / "bin" / "python"


def _install(folder: Path, *words: str) -> None:
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "-c", str(ROOT / "constraints.txt"), *words],
        check=False,
        capture_output=True,
        text=True,
        env=_clean(folder),
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, words, stderr=done.stderr)


def call(
    python: Path, folder: Path, *words: str, limit: float = 300.0
) -> subprocess.CompletedProcess[str]:
    """A command of this python's, in a folder, with a configuration of auditkit's of its own.

    Whatever it started ends with it: it has a process group of its own.
    """
    with TemporaryFile("w+") as said, TemporaryFile("w+") as complained:
        process = subprocess.Popen(
            [str(python), *words],
            cwd=folder,
            env=_clean(folder),
            stdout=said,
            stderr=complained,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            complained.write(f"took more than {limit:g} s")
            code = 124
        # Not before: pipes would stay open as long as a worker of one that was killed lives.
        _end_group(process.pid)
        process.wait()
        said.seek(0)
        complained.seek(0)
        return subprocess.CompletedProcess(words, code, said.read(), complained.read())


def _end_group(leader: int) -> None:
    try:
        os.killpg(leader, 9)
    except ProcessLookupError:
        return


def _clean(folder: Path) -> dict[str, str]:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config"), "OMP_NUM_THREADS": "1"}
    environment.update(COLUMNS="200", PIP_NO_INPUT="1")
    environment.pop("PYTHONPATH", None)
    return environment


def one_line(text: str) -> str:
    """Words of a report without its line breaks."""
    return re.sub(r"\s+", " ", text).strip()
