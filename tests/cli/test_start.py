"""What a command loads before it does anything: its start is imports, and little else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from auditkit.cli import verify
from auditkit.verification.request import VerifyRequest

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1"

#: Runs a command as the program would, and writes down what that has loaded.
_SCRIPT = """
import json, pathlib, sys
before = set(sys.modules)
from auditkit.cli import main
try:
    main(sys.argv[2:])
except SystemExit as stop:
    code = stop.code
pathlib.Path(sys.argv[1]).write_text(json.dumps([code, sorted(set(sys.modules) - before)]))
"""

#: Loads every command, and runs none.
_EVERY_COMMAND = """
import click, sys
from auditkit.cli import group
with click.Context(group.main) as context:
    for name in group._COMMANDS:
        group.main.get_command(context, name)
print(*sorted(set(sys.argv[1:]) & set(sys.modules)))
"""

#: Not even commands that train load these in the process that the user started.
_HEAVY = ("torch", "scipy", "pandas", "matplotlib", "multiprocessing", "asyncio")

#: What a page of help does not need.
_LIBRARIES = (
    "numpy",
    "rich",
    "pygments",
    "cattrs",
    "attr",
    "jsonschema",
    "jsonschema_rs",
    "cryptography",
    "xxhash",
)

#: What an archive, a replay, or the name of a plug-in takes.
_STANDARD = ("tarfile", "concurrent", "subprocess", "selectors", "email", "importlib.metadata")

#: Of these, what jsonschema-rs does not load.
_ARCHIVES = ("tarfile", "concurrent", "subprocess", "importlib.metadata")

#: What starts processes, runs programs, or computes estimates; and numpy's masked arrays.
_REPLAY = (
    *("numpy.ma", "auditkit.processes", "auditkit.observe", "auditkit.perturbations"),
    *("auditkit.recorder", "auditkit.study.script_workers", "auditkit.study.runner"),
    *("auditkit.replay.study_replay", "auditkit.replay.seed_replay", "auditkit.records.job"),
    *("auditkit.statistics.estimands", "auditkit.api.with_replay", "auditkit.api.calls"),
    *("auditkit.replay.budget", "auditkit.replay.request", "auditkit.replay.sampling"),
    "auditkit.files.archives",
)

_OF_RECORDINGS = ("auditkit.verification.recordings", "auditkit.records.recording")

#: What only a terminal, an archive, or a folder to remove takes.
_RARELY = (
    *("rich.live", "rich.table", "shutil", "tempfile", "zipfile", "lzma"),
    "importlib.resources",
)

#: What a plan that was signed before, a pilot, a replay's result, or an earlier report takes.
_BESIDE = (
    *("auditkit.study", "auditkit.statistics", "auditkit.verification.plan_binding"),
    *("auditkit.verification.pilot_seeds", "auditkit.verification.replay_results"),
    "auditkit.verification.report_json",
)

#: What computes estimates from tables, and what prints them.
_ESTIMATES = (
    *("auditkit.verification.branch_tables", "auditkit.statistics.outcomes"),
    *("auditkit.cli.estimand_tables", "auditkit.cli.further_tables"),
)

_ROOMS = ("records", "files", "signing", "statistics", "processes", "verification")
_OWN = tuple(f"auditkit.{room}" for room in _ROOMS)

_VERIFY = ("verify", "study", "--key", "study/signer.pub", "--replay", "none")
_CHECKLIST = ("checklist", "study", "--key", "study/signer.pub")

FORBIDDEN = {
    ("--help",): (*_HEAVY, *_LIBRARIES, *_STANDARD, *_OWN, "auditkit.manual"),
    ("explain", "rho"): (*_HEAVY, *_LIBRARIES, *_STANDARD, *_OWN),
    _VERIFY: (
        *(*_HEAVY, *_ARCHIVES, *_REPLAY, *_ESTIMATES, *_OF_RECORDINGS, *_RARELY, *_BESIDE),
        "jsonschema",
    ),
    _CHECKLIST: (*_HEAVY, *_ARCHIVES, *_REPLAY, "jsonschema"),
}


def loaded(folder: Path, *arguments: str) -> set[str]:
    """Modules that a command has loaded when it is done."""
    out = folder / "loaded.json"
    env = {**os.environ, "HOME": str(folder), "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": ""}
    subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(out), *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        check=True,
    )
    code, modules = json.loads(out.read_text())
    assert code == 0
    return set(modules)


@pytest.mark.parametrize("arguments", FORBIDDEN, ids=lambda arguments: arguments[0].strip("-"))
def test_a_command_loads_no_more_than_it_needs(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    if "study" in arguments:
        shutil.copytree(GOLDEN / "study", tmp_path / "study")
    found = loaded(tmp_path, *arguments)
    assert "auditkit.cli.group" in found
    forbidden = tuple(f"{name}." for name in FORBIDDEN[arguments])
    assert [name for name in sorted(found) if f"{name}.".startswith(forbidden)] == []


def test_no_command_loads_what_only_its_workers_need() -> None:
    command = [sys.executable, "-c", _EVERY_COMMAND, *_HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


#: Prepares as a worker does, does a job, and prints what that was still to load, and what is heavy.
_WORKER = """
import sys
from auditkit.cli import worker
from auditkit.records.job import Job, ProgramSource
from auditkit.records.plan import StudyPlan
run_job = worker._prepare()
before = set(sys.modules)
plan = StudyPlan(3, 2, 6, [0], ["carry"], placebos=1)
source = ProgramSource("tiny_study.py:make_program", sys.argv[1], {})
run_job(Job("trunk", source, plan, 0, out=sys.argv[2]), lambda progress: None)
late = {name for name in set(sys.modules) - before if not name.startswith("torch.profiler")}
print(*sorted(late), "|", *sorted(set(sys.argv[3:]) & set(sys.modules)))
"""


def test_a_worker_loads_at_first_all_that_a_job_takes_and_nothing_else(tmp_path: Path) -> None:
    programs = Path(__file__).parents[1] / "programs"
    unwanted = ("scipy", "pandas", "matplotlib", "cryptography", "jsonschema", "rich")
    # torch's own optimizers load torch._dynamo: once, before the forks
    arguments = (str(programs), str(tmp_path), *unwanted)
    done = subprocess.run(
        [sys.executable, "-c", _WORKER, *arguments], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "tiny_study |", done.stderr


#: Starts as the program does, and ends where a command's own work would begin.
_CIRCLES = """
import gc, sys
looked_for = []
gc.callbacks.append(lambda phase, info: looked_for.append(info["generation"]))
from auditkit.cli import main, group
import click
def invoke(self, ctx):
    print(2 in looked_for, gc.isenabled(), gc.get_freeze_count() > 1000)
    sys.exit()
click.Command.invoke = invoke
del looked_for[:]
main(["verify", "manifest.json"])
"""


def test_nothing_looks_for_circles_in_what_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CIRCLES], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("False True True\n", "")


@pytest.mark.parametrize(
    ("replay", "given", "when_loaded"),
    [("none", None, "1"), ("none", "3", None), ("all", None, None)],
)
def test_numpy_starts_no_threads_where_nothing_is_replayed(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    replay: str,
    given: str | None,
    when_loaded: str | None,
) -> None:
    name = "OPENBLAS_NUM_THREADS"
    (tmp_path / "numpy.py").write_text(f"import os\nthreads = os.environ.get('{name}')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "numpy")
    monkeypatch.delenv(name, raising=False)
    if given is not None:
        monkeypatch.setenv(name, given)
    found: list[tuple[str | None, str | None]] = []

    def verified(*_: object) -> None:
        numpy = sys.modules.get("numpy")
        found.append((getattr(numpy, "threads", None), os.environ.get(name)))

    monkeypatch.setattr(verify, "verify_as_asked", verified)
    verify.verify_path(tmp_path, VerifyRequest((), replay=replay))
    assert found == [(when_loaded, given)]
