"""Recorder.wrap with torchdata's StatefulDataLoader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from frameworks import BATCH, Net, Samples, StepLog, check_recording, killed, trace_of, weights
from torch.utils.data import BatchSampler, RandomSampler

from auditkit.errors import UnsupportedLoader
from auditkit.recorder.recorder import Recorder

torchdata = pytest.importorskip(
    "torchdata.stateful_dataloader", reason="torchdata is not installed"
)
pytestmark = pytest.mark.filterwarnings("ignore:.set_vital. is deprecated:UserWarning")


def _loader(workers: int = 0, **options: Any) -> Any:
    return torchdata.StatefulDataLoader(
        Samples(), BATCH, shuffle=True, num_workers=workers, **options
    )


def _train(
    step_log: StepLog,
    recorder: Recorder | None = None,
    workers: int = 0,
    states: list[Any] | None = None,
    *,
    early: bool = False,
) -> torch.nn.Module:
    torch.manual_seed(3)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    loader = _loader(workers)
    rounds: Any = range(3)
    if recorder is not None:
        recorder.wrap(net, optimizer, loader)
        rounds = recorder.epochs(rounds)
    if early:
        loader.state_dict()
    for _ in rounds:
        for x, y, index in loader:
            step_log.step(net, index)
            if states is not None:
                states.append(loader.state_dict())
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(x), y)
            loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
            optimizer.step()
    return net


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_records_and_changes_nothing(tmp_path: Path, workers: int, early: bool) -> None:
    bare, step_log = StepLog(), StepLog()
    plain_states: list[Any] = []
    states: list[Any] = []
    expected = weights(_train(bare, None, workers, plain_states, early=early))
    with Recorder(tmp_path / "run", seed=3) as recorder:
        net = _train(step_log, recorder, workers, states, early=early)
    assert weights(net) == expected
    assert step_log.indices == bare.indices
    check_recording(tmp_path / "run", step_log)
    assert repr(states) == repr(plain_states)
    # Its own way to go on works with a state that was taken while it was recorded.
    torch.manual_seed(99)
    again = _loader(workers)
    again.load_state_dict(states[7])
    assert [index.tolist() for _, _, index in again] == step_log.indices[8:12]


@pytest.mark.parametrize(("workers", "early"), [(0, False), (0, True), (2, False)])
def test_goes_on_in_mid_epoch(tmp_path: Path, workers: int, early: bool) -> None:
    whole, second = StepLog(), StepLog()
    with Recorder(tmp_path / "whole", seed=3) as recorder:
        expected = weights(_train(whole, recorder, workers, early=early))

    def go() -> None:
        with Recorder(tmp_path / "run", seed=3, checkpoint_every=5) as recorder:
            _train(StepLog(dies_at=12), recorder, workers, early=early)

    killed(go)
    with Recorder.resume(tmp_path / "run", seed=3) as recorder:
        net = _train(second, recorder, workers, early=early)
    assert recorder.failure is None
    assert second.indices == whole.indices[5:]  # one row follows step 10, too few to prove it
    assert weights(net) == expected
    check_recording(tmp_path / "run", second, first=6)
    assert trace_of(tmp_path / "run") == trace_of(tmp_path / "whole")


def test_a_recorded_sampler_keeps_its_protocol(tmp_path: Path) -> None:
    """What runtime protocols look for is on the class, not only behind ``__getattr__``."""
    loader = _loader()
    net = Net()
    Recorder(tmp_path / "run").wrap(net, torch.optim.SGD(net.parameters(), lr=0.1), loader)
    indices = iter(loader._index_sampler)
    for name in ("state_dict", "load_state_dict"):
        assert callable(getattr(type(indices), name))
    state = indices.state_dict()
    first = next(indices)
    indices.load_state_dict(state)
    assert next(indices) == first


def test_a_loader_with_a_position_of_its_own_is_refused(tmp_path: Path) -> None:
    sampler = BatchSampler(RandomSampler(range(44)), BATCH, drop_last=False)
    loader = torchdata.StatefulDataLoader(Samples(), batch_sampler=sampler)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    loader = torchdata.StatefulDataLoader(Samples(), batch_sampler=sampler)
    loader.load_state_dict(state)
    net = Net()
    with pytest.raises(UnsupportedLoader, match=r"load_state_dict was called.*Recorder\.resume"):
        Recorder(tmp_path / "run").wrap(net, torch.optim.SGD(net.parameters(), lr=0.1), loader)
