"""A study by real workers of an engine, beside the one of this machine: the same."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from cli_shell import Shell, content, is_running, timeless, wait_for
from documents import PAGES, blocks

STUDY = ("run", "tiny_study.py", "--seeds", "0-2", "--perturb", "carry")

(SLURM,) = (block for block in blocks(PAGES["study"], "python") if "SLURMCluster" in block)

#: Two nodes, which run what they are given as it stands; further jobs are pending for ever.
SBATCH = """#!/bin/sh
cp "$1" "$JOBS/$$.script"
for node in 1 2; do
    if mkdir "$JOBS/node-$node" 2> "$JOBS/$$.busy"; then
        setsid sh "$JOBS/$$.script" > "$JOBS/$$.log" 2>&1 < /dev/null &
        echo $! > "$JOBS/$$.pid"
        break
    fi
done
echo "Submitted batch job $$"
"""

SCANCEL = """#!/bin/sh
touch "$JOBS/$1.cancelled"
if [ -e "$JOBS/$1.pid" ]; then kill -- "-$(cat "$JOBS/$1.pid")"; fi
"""


def require(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs pip install {extra}")


def finish(shell: Shell, *line: str) -> None:
    process = shell.start(*line)
    _, said = process.communicate()
    assert process.returncode == 0, said


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Where ``here`` is the study of one machine."""
    shell = Shell.at(tmp_path_factory.mktemp("engines") / "user")
    finish(shell, *STUDY, "--jobs", "2", "--out", "here")
    return shell


def require_same(here: Path, there: Path) -> None:
    assert content(here) == content(there)
    assert timeless(here / "manifest.json") == timeless(there / "manifest.json")
    assert {path.name for path in there.iterdir()} - {"report.json"} == {
        path.name for path in here.iterdir()
    }


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_the_manifest_is_that_of_one_machine_and_verifies(
    shell: Shell, engine: str, package: str
) -> None:
    require(package, f'"auditkit[{engine}]"')
    finish(shell, *STUDY, "--jobs", "2", "--out", engine, "--engine", engine)
    finish(shell, "verify", engine, "--engine", engine, "--jobs", "2")
    require_same(shell.folder / "here", shell.folder / engine)


@pytest.mark.slow
def test_the_lines_for_slurm_do_a_study_on_its_nodes(shell: Shell) -> None:
    require("dask_jobqueue", "dask-jobqueue")
    jobs = shell.folder / "jobs"
    jobs.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        shell.write(f"bin/{name}", text).chmod(0o755)
    path = f"{shell.folder / 'bin'}:{shell.env['PATH']}"
    with subprocess.Popen(
        [sys.executable, "-c", SLURM],
        env={**shell.env, "PATH": path, "JOBS": str(jobs)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as cluster:
        try:
            assert cluster.stdout is not None
            address = cluster.stdout.readline().strip()
            finish(shell, *STUDY, "--out", "slurm", "--engine", f"dask:{address}")
        finally:
            cluster.communicate("\n")
    assert cluster.returncode == 0
    require_same(shell.folder / "here", shell.folder / "slurm")
    scripts = [file.read_text() for file in jobs.glob("*.script")]
    assert len(scripts) == len(list(jobs.glob("*.cancelled"))) == 16
    assert all("#SBATCH --constraint=one-kind-of-node" in script for script in scripts)
    nodes = [int(file.read_text()) for file in jobs.glob("*.pid")]
    assert len(nodes) == 2
    wait_for(lambda: not any(map(is_running, nodes)))
