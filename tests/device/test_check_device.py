"""The script that checks a GPU runs here, on the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from auditkit.observe.state.components import TrainingObjects
from auditkit.observe.values import word_sums

SCRIPT = Path(__file__).with_name("check_device.py")
CPU = torch.device("cpu")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import check_device  # a script beside this test

    return check_device


@pytest.mark.slow
def test_a_dry_run_passes_in_all_parts() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--dry"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all passed" in done.stdout
    assert done.stdout.count(": equal") == 3
    assert "run and verified" in done.stdout


def test_it_sees_a_digest_that_differs(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = nn.Linear(3, 2)
    course = SimpleNamespace(
        objects=TrainingObjects(layer, torch.optim.SGD(layer.parameters())),
        device=CPU,
        step=lambda: nn.init.zeros_(layer.weight),
    )
    assert script.check_kinds(CPU)
    assert script.check_state(course, "a layer")
    monkeypatch.setattr(word_sums, "_FACTORS", (word_sums._FACTORS[0] + 2, *word_sums._FACTORS[1:]))
    assert not script.check_kinds(CPU)
    assert not script.check_state(course, "a layer")
    assert capsys.readouterr().out.count("DIFFER:") == 1


def test_a_dtype_that_the_device_lacks_is_named_and_the_others_are_compared(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of_copies = script.of_copies

    def lacking(leaves: Any) -> bytes:
        if any(leaf.dtype is torch.complex32 for leaf in leaves.values()):
            raise NotImplementedError("no kernel for ComplexHalf")
        digest: bytes = of_copies(leaves)
        return digest

    monkeypatch.setattr(script, "of_copies", lacking)
    assert not script.check_kinds(CPU)
    _, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 18
    assert all("complex32" in line and "no kernel" in line for line in lines)


def test_a_part_that_takes_too_long_is_stopped_and_the_others_have_their_turn(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sum(script.LIMITS.values()) < 8 * 60
    monkeypatch.setattr(script, "LIMITS", {"digests": 0, "study": 0})
    monkeypatch.setattr(sys, "argv", ["check_device.py", "--dry"])
    with pytest.raises(SystemExit, match="FAILED: digests, study"):
        script.main()
    assert capsys.readouterr().out.count("STOPPED after 0 s") == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["check_device.py"])
    with pytest.raises(SystemExit, match="no GPU here"):
        script.main()
