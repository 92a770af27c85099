"""The script that checks a GPU runs here, on the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from auditkit.observe.values import word_sums

SCRIPT = Path(__file__).with_name("check_device.py")


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
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import check_device  # a script beside this test

    assert check_device.check_kinds(torch.device("cpu"))
    monkeypatch.setattr(word_sums, "_FACTORS", (word_sums._FACTORS[0] + 2, *word_sums._FACTORS[1:]))
    assert not check_device.check_kinds(torch.device("cpu"))
    assert "DIFFER" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import check_device  # a script beside this test

    monkeypatch.setattr(sys, "argv", ["check_device.py"])
    with pytest.raises(SystemExit, match="no GPU here"):
        check_device.main()
