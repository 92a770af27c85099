from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- ci:begin -->\n", "<!-- ci:end -->\n"


def run_ci(tmp_path: Path, readme: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "README.md"
    path.write_text(readme, encoding="utf-8")
    return subprocess.run(
        [ROOT / ".ci" / "run", path],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "TMPDIR": str(tmp_path)},
    )


def block(*lines: str) -> str:
    return f"{BEGIN}```bash\n" + "".join(f"{line}\n" for line in lines) + f"```\n{END}"


@pytest.mark.parametrize(
    "readme",
    [
        "",
        "```bash\ntrue\n```\n",
        BEGIN + END,
        block(),
        block("", "# only a comment"),
        f"{BEGIN}true\n{END}",
        f"{BEGIN}```python\ntrue\n```\n{END}",
        f"{BEGIN}```bash\ntrue\n```\n",
        f"```bash\ntrue\n```\n{END}",
        f"{BEGIN}{END}```bash\ntrue\n```\n",
    ],
)
def test_a_readme_without_the_block_fails(tmp_path: Path, readme: str) -> None:
    done = run_ci(tmp_path, readme)
    assert done.returncode == 1
    assert "no bash block" in done.stderr


def test_a_missing_readme_fails(tmp_path: Path) -> None:
    run_ci(tmp_path, "")
    done = subprocess.run([ROOT / ".ci" / "run", tmp_path / "none"], check=False, text=True)
    assert done.returncode == 1


def test_the_block_runs_in_the_root_with_a_fresh_environment(tmp_path: Path) -> None:
    (tmp_path / "ran").mkdir()
    readme = "```bash\nfalse\n```\n" + block(
        f"touch {tmp_path}/ran/first && \\",
        f"  touch {tmp_path}/ran/second &&",
        "  test -f pyproject.toml",
        "",
        "name=kept # lines share one shell",
        'test "$name" = kept',
        'python -c "import sys; print(sys.prefix)"',
        "! python -c 'import torch' 2>/dev/null",
    )
    done = run_ci(tmp_path, readme + "```bash\nfalse\n```\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path))
    assert {path.name for path in (tmp_path / "ran").iterdir()} == {"first", "second"}
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "ran"}


@pytest.mark.parametrize(
    "line", ["false", "false && true", "true && false && true", "false | cat", "$undefined"]
)
def test_a_failing_command_fails(tmp_path: Path, line: str) -> None:
    # The environment is made by a stand-in: what is tested is how the block is run.
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nmkdir -p "$3/bin"\n', encoding="utf-8")
    python.chmod(0o755)
    path = tmp_path / "README.md"
    path.write_text(block("true", line, f"touch {tmp_path}/went-on"), encoding="utf-8")
    done = subprocess.run(
        [ROOT / ".ci" / "run", path],
        capture_output=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(python), "TMPDIR": str(tmp_path)},
    )
    assert done.returncode != 0
    assert not (tmp_path / "went-on").exists()
