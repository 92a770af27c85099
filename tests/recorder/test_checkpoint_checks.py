"""A checkpoint that is not what was recorded is never trained with."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loop_styles
import numpy as np
import pytest
import torch

import auditkit as ak
from auditkit.errors import RestoreMismatch
from auditkit.files import store
from auditkit.formats.snapshot_file import raw_components, tensor_key
from auditkit.recorder import checkpoint_checks, written_checkpoints
from auditkit.recorder.wrapping import InstrumentedLoop
from auditkit.study.stages.forker import Fork


class Killed(Exception):
    """Ends a loop between two statements."""


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home and a script of nobody's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)


class Loop:
    """A loop that is killed after step 8, and whose checkpoints are of the steps 3 and 6."""

    def __init__(self) -> None:
        random.seed(3)
        np.random.seed(3)
        torch.manual_seed(3)
        self.model = loop_styles.network()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.steps = 0

    def bits(self) -> bytes:
        tensors = [*self.model.state_dict().values()]
        return b"".join(tensor.numpy().tobytes() for tensor in tensors)

    def run(self, rec: Any, kill_at: int | None = None) -> bytes:
        model, optimizer, loader = rec.wrap(self.model, self.optimizer, loop_styles.loader_of())
        for _ in rec.epochs(range(3)):
            self.go_through(model, optimizer, loader, kill_at)
        return self.bits()

    def go_through(
        self, model: Any, optimizer: Any, loader: Any, kill_at: int | None = None
    ) -> None:
        for x, y, _ in loader:
            loop_styles.update(optimizer, loop_styles.loss_of(model(x), y))
            self.steps += 1
            if self.steps == kill_at:
                raise Killed


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    with pytest.raises(Killed), ak.Recorder(tmp_path / "out", checkpoint_every=3) as rec:
        Loop().run(rec, 8)
    return tmp_path / "out"


def spoil(out: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    for path in out.glob("checkpoint-*"):
        tensors, meta = store.read_tensors(path, what="checkpoint")
        components: Any = meta["components"]  # type: ignore[index]
        change(tensors, components)
        store.write_tensors(path, tensors, meta)


def change_weight(component: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(tensors: dict[str, Any], components: dict[str, Any]) -> None:
        entry = next(e for e, spec in components[component].items() if spec.get("shape"))
        key = tensor_key(component, entry)
        data = bytearray(tensors[key].data)
        data[0] ^= 1
        tensors[key] = type(tensors[key])(tensors[key].dtype, tensors[key].shape, bytes(data))

    return change


def content(out: Path) -> dict[str, bytes]:
    """What the folder holds, but for its lock and its log."""
    files = (path for path in sorted(out.rglob("*")) if path.is_file())
    return {path.name: path.read_bytes() for path in files if "lock" not in path.name}


@pytest.mark.parametrize(("component", "unproven"), [("params", False), ("grad", True)])
def test_a_small_one_is_known_before_anything_is_written(
    killed: Path, component: str, unproven: bool
) -> None:
    spoil(killed, change_weight(component))
    loop = Loop()
    before, folder = loop.bits(), content(killed)
    with (
        pytest.raises(RestoreMismatch, match=rf"{component}: the checkpoint is not what") as error,
        ak.Recorder.resume(killed, checkpoint_every=3, unproven=unproven) as rec,
    ):
        loop.run(rec)
    assert "checkpoint-" in str(error.value.where)
    assert (loop.bits(), loop.steps, content(killed)) == (before, 0, folder)


def without_gradients(tensors: dict[str, Any], components: dict[str, Any]) -> None:
    for entry in components.pop("grad", ()):
        tensors.pop(tensor_key("grad", entry), None)


def test_one_that_lacks_a_section_is_refused(killed: Path) -> None:
    spoil(killed, without_gradients)
    with (
        pytest.raises(RestoreMismatch, match="not what was written") as error,
        ak.Recorder.resume(killed, checkpoint_every=3) as rec,
    ):
        Loop().run(rec)
    assert error.value.component == "grad"


@pytest.mark.parametrize(
    ("component", "unproven"), [("params", True), ("optimizer/exp_avg", False)]
)
def test_nothing_trains_with_a_part_of_a_large_one(
    killed: Path, component: str, unproven: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_checks, "_HASHED_AT_ONCE", -1)
    whole = {path: path.read_bytes() for path in killed.glob("checkpoint-*")}
    spoil(killed, change_weight(component))
    loop, folder = Loop(), content(killed)
    rec = ak.Recorder.resume(killed, checkpoint_every=3, unproven=unproven)
    wrapped = rec.wrap(loop.model, loop.optimizer, loop_styles.loader_of())
    [*rec.epochs(range(3))]  # the loader knows by itself where it is to go on
    with pytest.raises(RestoreMismatch, match=f"{component}: the checkpoint is not") as first:
        loop.go_through(*wrapped)
    for _ in range(3):  # a loop that catches it, and tries again
        with pytest.raises(RestoreMismatch, match="not written to its end"):
            loop.go_through(*wrapped)
    assert loop.steps == 0
    rec.__exit__(type(first.value), first.value, None)
    assert rec.manifest is None
    assert content(killed) == folder

    for path, data in whole.items():
        path.write_bytes(data)
    with ak.Recorder(killed.parent / "whole") as rec:
        expected = Loop().run(rec)
    with ak.Recorder.resume(killed, checkpoint_every=3, unproven=unproven) as rec:
        assert Loop().run(rec) == expected


def test_a_loop_that_catches_it_and_closes_is_told_what_it_is(
    killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_checks, "_HASHED_AT_ONCE", -1)
    spoil(killed, change_weight("params"))
    loop, folder = Loop(), content(killed)
    rec = ak.Recorder.resume(killed, checkpoint_every=3, unproven=True)
    wrapped = rec.wrap(loop.model, loop.optimizer, loop_styles.loader_of())
    [*rec.epochs(range(3))]
    with pytest.raises(RestoreMismatch, match="the checkpoint is not"):
        loop.go_through(*wrapped)
    with pytest.raises(RestoreMismatch, match="not written to its end"):
        rec.__exit__(None, None, None)
    assert (rec.manifest, loop.steps, content(killed)) == (None, 0, folder)


def test_what_was_looked_at_is_what_is_restored(
    killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(*content: Any) -> Any:
        """The file is exchanged for one that lacks a section, as soon as it is looked at."""
        spoil(killed, without_gradients)
        return raw_components(*content)

    monkeypatch.setattr(checkpoint_checks, "raw_components", look)
    restored: list[str] = []
    restore = InstrumentedLoop.restore

    def noted(loop: InstrumentedLoop, fork: Fork) -> None:
        restored.extend(fork.state)
        restore(loop, fork)

    monkeypatch.setattr(InstrumentedLoop, "restore", noted)
    with ak.Recorder.resume(killed, checkpoint_every=3, unproven=True) as rec:
        Loop().run(rec)
    assert "grad" in restored


def test_a_large_one_is_read_once_and_into_place(
    killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_checks, "_HASHED_AT_ONCE", -1)
    monkeypatch.setattr(written_checkpoints, "digest_raw", None)
    monkeypatch.setattr(store, "read_bytes", lambda path, **_: Path(path).read_bytes())
    with ak.Recorder.resume(killed, checkpoint_every=3) as rec:
        Loop().run(rec)
    assert rec.manifest is not None
