"""Whatever breaks inside an observer, a user's loop sees one of auditkit's errors, or goes on."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any, cast

import loop_styles
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak
from auditkit.errors import AuditError, UncapturedState
from auditkit.observe.loader import iteration, recorded_loader
from auditkit.observe.loader.iteration import Iteration
from auditkit.observe.loader.position import IterationStart
from auditkit.observe.loader.recorded_loader import RecordedLoader
from auditkit.observe.state.components import StateReader
from auditkit.recorder import loop, recording, wrapping
from auditkit.recorder.writer import RecordingWriter
from auditkit.study.stages.auditor import Auditor

#: Everything that observes, where it is called from.
OBSERVERS: dict[str, tuple[Any, str]] = {
    "sort_objects": (wrapping, "parameter_names"),
    "plain attributes": (wrapping, "as_built"),
    "generators": (wrapping, "HeldGenerators"),
    "the loaders": (wrapping, "RecordedLoader"),
    "the environment": (recording, "environment"),
    "streams": (StateReader, "streams"),
    "the state": (StateReader, "read"),
    "a row": (Auditor, "cut"),
    "a batch": (Auditor, "consume"),
    "a step": (Auditor, "finish_step"),
    "the boundary": (RecordingWriter, "on_boundary"),
    "the writer's batch": (RecordingWriter, "on_batch"),
    "the writer's step": (RecordingWriter, "on_step_end"),
    "the end": (RecordingWriter, "finish"),
    "the start of an epoch": (IterationStart, "capture"),
    "the streams of a call": (IterationStart, "record_call"),
    "the loader's own state": (recorded_loader, "refuse_own_state"),
    "the counters of an epoch": (recorded_loader, "epoch_counters"),
    "the sampler": (recorded_loader, "has_state_dict"),
    "the sampler's iteration": (RecordedLoader, "_iteration_for_sampler"),
    "the sampler's indices": (iteration, "packed_indices"),
    "the order of a batch": (Iteration, "_consumed"),
    "the iteration": (RecordedLoader, "make_current"),
    "the iterator": (recorded_loader, "iterator_class"),
    "the loss": (loop.Loop, "log"),
}


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home and a script of nobody's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)


def train(folder: Path, model: Any) -> int:
    """Steps that a recorded loop took."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(torch.ones(8, 4)), batch_size=2)
    steps = 0
    with ak.Recorder(folder) as rec:
        rec.wrap(model, optimizer, loader)
        for (batch,) in loader:
            optimizer.zero_grad()
            loss = model(batch).sum()
            loss.backward()
            optimizer.step()
            rec.log(loss=loss)
            steps += 1
    return steps


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("name", OBSERVERS)
def test_an_observer_that_breaks(
    name: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, attribute = OBSERVERS[name]
    real, calls = getattr(owner, attribute), []

    def broken(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == at:
            raise KeyError(0)
        return real(*arguments, **options)

    # As code of auditkit's: what these tests raise is a user's error.
    monkeypatch.setattr(loop, "is_user_file", lambda _: False)
    monkeypatch.setattr(owner, attribute, broken)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        error = None
        try:
            assert train(tmp_path / "run", nn.Linear(4, 2)) == 4
        except AuditError as raised:
            error = raised
    told = [str(error), *(str(warning.message) for warning in said)]
    assert len(calls) < at or any("KeyError" in text for text in told)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("how", ["script", "trace"])
def test_a_scripted_module_is_refused_by_name(tmp_path: Path, how: str, nested: bool) -> None:
    inner, jit = nn.Linear(4, 2), cast("Any", torch.jit)
    made = jit.script(inner) if how == "script" else jit.trace(inner, torch.ones(1, 4))
    with pytest.raises(UncapturedState, match=r"torch\.jit"):
        train(tmp_path / "run", nn.Sequential(made) if nested else made)


def test_what_the_users_own_code_raises_stays_what_it_is(tmp_path: Path) -> None:
    model = loop_styles.network()
    loader = loop_styles.loader_of()

    class Broken(nn.Linear):
        def get_extra_state(self) -> Any:
            raise KeyError("mine")

        def set_extra_state(self, state: Any) -> None: ...

    model.add_module("broken", Broken(1, 1))
    rec = ak.Recorder(tmp_path / "run")
    with pytest.raises(KeyError, match="mine"):
        rec.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1), loader)
    rec.__exit__(KeyError, KeyError("mine"), None)


class _Samples(TensorDataset):
    """Raises in the midst of torch, as ``torch.stack`` of samples of two shapes."""

    def __getitem__(self, index: int) -> Any:
        return (torch.ones(1 + index % 2),)


class _Refusing(torch.utils.data.Sampler[int]):
    def __iter__(self) -> Any:
        return iter([torch.ones(2) @ torch.ones(3)])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("what", ["samples", "sampler"])
def test_what_a_library_raises_below_the_users_loader_stays_what_it_is(
    what: str, workers: int, tmp_path: Path
) -> None:
    data = _Samples(torch.ones(8, 4)) if what == "samples" else TensorDataset(torch.ones(8, 4))
    sampler = _Refusing() if what == "sampler" else None
    loader: Any = DataLoader(data, batch_size=2, sampler=sampler, num_workers=workers)
    model = nn.Linear(4, 2)
    rec = ak.Recorder(tmp_path / "run")
    rec.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1), loader)
    with pytest.raises(RuntimeError, match=r"equal size|size mismatch|inconsistent"):
        next(iter(loader))
    rec.__exit__(RuntimeError, RuntimeError(), None)
