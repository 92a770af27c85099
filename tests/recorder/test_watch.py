"""What a recording says of its loop by itself: never of an honest one, always of these."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import honest_loops
import loop_styles
import pytest
from honest_loops import LOOPS, Loop

import auditkit as ak
from auditkit.recorder.writer import RecordingStopped

STYLES: dict[str, Callable[[Any], Any]] = {
    style.__name__: lambda rec, style=style: style(rec, loop_styles.Log())
    for style in (
        *(loop_styles.accumulation, loop_styles.closure, loop_styles.scaled),
        *(loop_styles.evaluated, loop_styles.together, loop_styles.by_hand),
        *(loop_styles.two_loaders, loop_styles.adversarial),
    )
}


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home and a script of nobody's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)


def said(loop: Callable[[Any], Any], out: Path, every: int = 2) -> tuple[list[str], int]:
    """What a recording warns of, and how many checkpoints it leaves."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ak.Recorder(out, checkpoint_every=every) as rec:
            loop(rec)
    assert rec.manifest is not None
    return (
        [str(one.message) for one in caught if issubclass(one.category, RecordingStopped)],
        len(list(out.glob("checkpoint-*"))),
    )


@pytest.mark.parametrize("name", [*LOOPS, *(f"style {name}" for name in STYLES)])
def test_an_honest_loop_is_not_warned_of(tmp_path: Path, name: str) -> None:
    loop: Loop = {**LOOPS, **{f"style {key}": style for key, style in STYLES.items()}}[name]
    lines, n_checkpoints = said(loop, tmp_path / "out")
    refused = "no checkpoint was taken: "  # two iterations at a time have no position
    assert [line for line in lines if not line.startswith(refused)] == []
    assert n_checkpoints or name == "style together"


def test_no_honest_loop_is_missing() -> None:
    assert len(LOOPS) >= 25
    assert honest_loops.SPLITTER is not None
