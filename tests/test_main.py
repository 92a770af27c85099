"""From the first moment on a signal is one line: also where Python is still importing."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

_ENTRY = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"][
    "scripts"
]["auditkit"]

#: How the installed script, and ``python -m auditkit``, begin.
_STARTS = (
    f"from {_ENTRY.partition(':')[0]} import {_ENTRY.partition(':')[2]} as start; start()",
    "import runpy; runpy.run_module('auditkit', run_name='__main__', alter_sys=True)",
)

#: Sends a signal when a module is about to be imported.
_SENDER = """
import os, sys
class Sender:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Sender())
sys.argv[1:] = ["list"]
"""


@pytest.mark.parametrize("start", _STARTS)
@pytest.mark.parametrize(
    ("module", "number", "line", "code"),
    [
        ("auditkit.cli", signal.SIGINT, "auditkit: interrupted\n", 130),
        ("click", signal.SIGTERM, "auditkit: terminated\n", 143),
        # of a command: the group is there, and may have something to tidy
        ("auditkit.diagnose.run_list", signal.SIGINT, "auditkit: interrupted\n", 130),
        ("auditkit.diagnose.run_list", signal.SIGTERM, "auditkit: terminated\n", 143),
    ],
)
def test_a_signal_while_modules_are_imported_is_one_line(
    start: str, module: str, number: signal.Signals, line: str, code: int
) -> None:
    script = _SENDER.format(module=module, number=int(number)) + start
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (code, line, "")


def test_an_engine_that_would_crash_at_the_end_does_not_change_the_exit_code() -> None:
    script = (
        "import atexit, os, sys\n"
        "from auditkit.__main__ import main\n"
        "from auditkit.engines import lost\n"
        "atexit.register(os._exit, 139)\n"
        "lost.ABANDONED.append('ray')\n"
        "sys.argv[1:] = ['show', '/nowhere']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("auditkit: cannot read '/nowhere'")
