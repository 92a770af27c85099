"""What runs and is not what was listed: targets, helpers, compiled copies, a variable.

Each program imports a helper that the forger leaves out of the manifest. A reviewer's replay runs
in a process whose imports are judged; here the job is done in the test's own process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forging
import pytest
from studies import Run, study_in_process

from attacks.attack import Attack
from auditkit.records.plan import StudyPlan

GROUP = "code that was not listed"

_TARGET = "listed_study.py:make_program"
_HELPER = "forgotten_helper"
_SHORT = StudyPlan(3, 2, 5, [0], ["carry"], placebos=1)
_UNLISTED = "code ran that the manifest does not list"


def _program(folder: Path, top: str) -> Path:
    """The tiny study with some lines before it."""
    source = (Path(__file__).parents[1] / "programs" / "tiny_study.py").read_text(encoding="utf-8")
    future, rest = source.split("from __future__ import annotations\n", 1)
    text = f"{future}from __future__ import annotations\n{top}\n{rest}"
    folder.mkdir()
    (folder / "listed_study.py").write_text(text, encoding="utf-8")
    return folder


def _helper(run: Run, below: str = "elsewhere", name: str = f"{_HELPER}.py") -> Path:
    path = run.folder.parent / below / name
    path.parent.mkdir(parents=True)
    path.write_text("VALUE = 1\n", encoding="utf-8")
    return path


def dropped(
    top: str, below: str = "elsewhere", name: str = f"{_HELPER}.py"
) -> Callable[[Run], Run]:
    """Run a study that comes to a helper in some way; take the helper off the manifest."""

    def make(run: Run) -> Run:
        path = _helper(run, below, name)
        # What an earlier job of this very process has imported must be imported again.
        lines = "import sys\nfor _n in [n for n in sys.modules if 'forgotten' in n]:\n"
        lines += "    del sys.modules[_n]\n"
        lines += top.format(folder=str(path.parent), path=str(path))
        program = _program(run.folder.parent / "program", lines)
        forged = study_in_process(run.folder.parent / "forged", run.key, _SHORT, _TARGET, program)
        names = [file.name for file in forged.manifest.program.code if _HELPER in file.name]
        for listed in names:
            _unlist(forged, listed)
        return forged

    return make


def _unlist(run: Run, name: str) -> None:
    forging.remove_file(run, f"code/{name}")

    def edit(told: dict[str, Any]) -> None:
        code = told["program"]["code"]
        code[:] = [item for item in code if item["name"] != name]

    forging.edit_predicate(run, edit)


def target(value: str) -> Callable[[Run], object]:
    """Let the manifest name another program."""
    return lambda run: forging.edit_predicate(
        run, lambda told: told["program"].update(target=value)
    )


def _outside(run: Run) -> None:
    copy = run.folder.parent / "copy" / "tiny_study.py"
    copy.parent.mkdir()
    copy.write_bytes((run.folder / "code" / "tiny_study.py").read_bytes())
    target(f"{copy}:make_program")(run)


def _compiled(run: Run) -> None:
    """A compiled copy that Python would take for the source's own, unchecked."""
    name = "__pycache__/tiny_study.cpython-311.pyc"
    (run.folder / "code" / "__pycache__").mkdir()
    forging.add_file(run, f"code/{name}", b"\x00" * 16, role="code")
    sha256 = forging.statement_of(run)["subject"]
    digest = next(item for item in sha256 if item["name"] == f"code/{name}")["digest"]["sha256"]

    def edit(told: dict[str, Any]) -> None:
        told["program"]["code"].append({"name": name, "sha256": digest})
        told["program"]["code"].sort(key=lambda item: item["name"])

    forging.edit_predicate(run, edit)


@contextlib.contextmanager
def _secret(_: object = None) -> Iterator[None]:
    """A variable that author and verifier have set, and that nothing names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET_SCALE", "3")
        yield


def _steered(run: Run) -> Run:
    with _secret():
        target = "variable_study.py:make_program"
        return study_in_process(run.folder.parent / "forged", run.key, _SHORT, target, fresh=True)


_PATH = "import sys; sys.path.insert(0, {folder!r})"
_LOAD = (
    "import importlib.util as _u; _s = _u.spec_from_file_location('anything', {path!r}); "
    "_m = _u.module_from_spec(_s); _s.loader.exec_module(_m)"
)

#: How a program comes to a helper, and what it is called.
_WAYS: dict[str, dict[str, str]] = {
    "a helper found through sys.path": {"top": f"{_PATH}; import {_HELPER}"},
    "a helper in a folder called site-packages": {
        "top": f"{_PATH}; import {_HELPER}",
        "below": "lib/site-packages",
    },
    "a helper in a folder called dist-packages": {
        "top": f"{_PATH}; import {_HELPER}",
        "below": "dist-packages",
    },
    "a helper behind installed packages": {
        "top": f"import sys; sys.path.append({{folder!r}}); import {_HELPER}",
    },
    "a package as helper": {
        "top": "import sys, os; sys.path.insert(0, os.path.dirname({folder!r})); "
        f"import {_HELPER}.inner",
        "below": f"elsewhere/{_HELPER}",
        "name": "inner.py",
    },
    "a helper loaded by its path": {"top": _LOAD},
    "a helper that is forgotten again": {
        "top": f"{_PATH}; import {_HELPER}; del sys.modules['{_HELPER}']",
    },
    "a helper that claims another file": {
        "top": f"{_PATH}; import {_HELPER}; import os; {_HELPER}.__file__ = os.__file__",
    },
    "a helper that has no file any more": {
        "top": f"{_PATH}; import {_HELPER}; del {_HELPER}.__file__",
    },
    "a helper that a fork imports": {
        "top": f"import os\nif not (_p := os.fork()):\n    {_PATH}; import {_HELPER}; os._exit(0)\n"
        "os.waitpid(_p, 0)",
    },
    "a helper that is found from another working folder": {
        "top": "import os, types; from importlib.machinery import SourceFileLoader\n"
        "_w = os.getcwd(); os.chdir({folder!r})\n"
        f"SourceFileLoader('h', '{_HELPER}.py').exec_module(types.ModuleType('h')); os.chdir(_w)",
    },
    "a helper that is deleted when it has run": {
        "top": "import os, shutil, sys, tempfile; _t = tempfile.mkdtemp()\n"
        "shutil.copy({path!r}, _t); sys.path.insert(0, _t)\n"
        f"import {_HELPER}; sys.path.remove(_t); shutil.rmtree(_t); del sys.modules['{_HELPER}']",
    },
    "a compiled helper whose code names no file": {
        "top": "import types, marshal, importlib.util as _u\n"
        "from importlib.machinery import SourcelessFileLoader as _L\n"
        "_c = marshal.dumps(compile('VALUE = 1', '<h>', 'exec'))\n"
        "__import__('pathlib').Path({path!r}).write_bytes(_u.MAGIC_NUMBER + bytes(12) + _c)\n"
        "_L('h', {path!r}).exec_module(types.ModuleType('h'))",
        "name": f"{_HELPER}.pyc",
    },
    "a helper that another interpreter runs": {
        "top": "import subprocess, sys; subprocess.run([sys.executable, {path!r}], check=True)",
    },
    "a helper that a shell runs": {
        "top": "import subprocess; subprocess.run(['sh', '-e', {path!r}], check=False)",
    },
    "a helper that is a program": {
        "top": "import os, pathlib, subprocess; os.chmod({path!r}, 0o755)\n"
        "pathlib.Path({path!r}).write_text('#!/bin/sh\\n')\n"
        "subprocess.run([{path!r}], check=True)",
    },
    "a helper run as a script": {"top": "import runpy; runpy.run_path({path!r})"},
    "a helper under another name": {
        "top": "import runpy; runpy.run_path({path!r})",
        "name": "data",
    },
}

ATTACKS = (
    *(
        Attack(
            f"target {name}",
            GROUP,
            apply,
            4,
            1,
            "no file that program.code lists",
            where="program.target",
        )
        for name, apply in {
            "outside of code/": _outside,
            "with ..": target("../code/tiny_study.py:make_program"),
            "with .": target("./tiny_study.py:make_program"),
            "in a folder that is not listed": target("inner/tiny_study.py:make_program"),
            "a module that is not listed": target("tiny_studies:make_program"),
            "an installed module": target("torch.utils.data:DataLoader"),
            "a module of the standard library": target("os:system"),
            "with a slash for a module": target("../tiny_study:make_program"),
            "without a file": target(":make_program"),
        }.items()
    ),
    Attack(
        "a compiled copy of the program",
        GROUP,
        _compiled,
        4,
        1,
        "compiled code is listed",
    ),
    Attack(
        "a variable of the verifier's that scales the loss",
        GROUP,
        _steered,
        8,
        1,
        "so the record is of something else",
        where="seed 0, trunk",
        step=1,
        component="loss",
        needs_replay=True,
        options={"fresh": True},
        during=_secret,
    ),
    Attack(
        "control: the same, let through by name",
        GROUP,
        _steered,
        0,
        0,
        needs_replay=True,
        options={"fresh": True, "variables": {"SECRET_SCALE": "3"}},
    ),
    *(
        Attack(
            name,
            GROUP,
            dropped(**way),
            8,
            1,
            _UNLISTED,
            needs_replay=True,
            where=Path(way.get("name", f"{_HELPER}.py")).name,
        )
        for name, way in _WAYS.items()
    ),
)
