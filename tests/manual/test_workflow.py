"""The workflow file that the manual gives for a training repository: what it names works."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_shell import PATIENCE
from click.testing import CliRunner
from documents import PAGES, blocks
from in_process_loops import InProcessCommands, Loop, record

from auditkit.cli import main

(WORKFLOW,) = blocks(PAGES["loop"], "yaml")
(TESTS,) = (block for block in blocks(PAGES["loop"], "python") if "assert_same_as" in block)

COMMANDS = [line.partition("- run: ")[2] for line in WORKFLOW.splitlines() if "- run: " in line]

#: As short as a script with a Recorder can be.
SCRIPT = """
import torch
from torch.utils.data import DataLoader, TensorDataset
import auditkit as ak, numpy, random
random.seed(0), numpy.random.seed(0), torch.manual_seed(0), torch.set_num_threads(1)
loader = DataLoader(TensorDataset(torch.randn(12, 4)), batch_size=2, shuffle=True)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with ak.Recorder("runs/exp1", seed=0) as recorder:
    model, optimizer, loader = recorder.wrap(model, optimizer, loader)
    for (x,) in loader:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training repository, as the manual supposes it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_it_is_yaml_of_the_shape_that_github_reads() -> None:
    yaml: Any = pytest.importorskip("yaml", reason="PyYAML is not installed")
    told = yaml.safe_load(WORKFLOW)
    assert set(told) == {"name", True, "jobs"}  # YAML 1.1 takes `on` for true
    (job,) = told["jobs"].values()
    assert job["runs-on"].startswith("ubuntu")
    assert job["env"] == {"OMP_NUM_THREADS": "1"}
    assert [set(step) & {"uses", "run"} for step in job["steps"]] == [{"uses"}] * 2 + [{"run"}] * 5
    assert [step["run"] for step in job["steps"] if "run" in step] == COMMANDS


@pytest.mark.slow
def test_every_command_of_auditkit_in_it_passes_where_training_is_as_recorded(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(repository / "runs" / "exp1", epochs=2)
    record(loop)
    Path("author.pub").write_bytes((loop.out / "signer.pub").read_bytes())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(repository / "elsewhere"))
    for module in ("doctor", "replay"):
        monkeypatch.setattr(f"auditkit.cli.{module}.Commands", lambda: InProcessCommands(loop))
    ours = [shlex.split(line)[1:] for line in COMMANDS if line.startswith("auditkit ")]
    assert [words[0] for words in ours] == ["verify", "doctor", "replay"]
    for words in ours:
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
    assert not list(loop.out.glob("replay-*"))


def test_its_tests_pass_where_training_is_as_recorded(repository: Path, interpreters: Any) -> None:
    Path("train.py").write_text(SCRIPT)
    python = [sys.executable]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with interpreters.Popen([*python, "train.py"], env=dict(os.environ), **pipes) as training:
        _, said = training.communicate(timeout=PATIENCE)
    assert training.returncode == 0, said
    *_, line = COMMANDS
    assert shlex.split(line) == ["pytest", "test_training.py"]
    Path("test_training.py").write_text(TESTS)
    options = ["-q", "-p", "no:auditkit", "-p", "auditkit.integrations.pytest_plugin"]
    done = subprocess.run(
        [*python, "-m", "pytest", *options, "test_training.py", "-k", "recorded"],
        check=False,
        timeout=PATIENCE,
        capture_output=True,
        text=True,
    )
    assert "1 passed, 1 deselected" in done.stdout, done.stdout
    assert sorted(path.name for path in Path("runs").iterdir()) == ["exp1"]
