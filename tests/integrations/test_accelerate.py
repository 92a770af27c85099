"""Recorder.wrap with what ``accelerator.prepare`` returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from frameworks import BATCH, Net, Samples, StepLog, check_recording, killed, trace_of, weights
from torch.utils.data import DataLoader

from auditkit.errors import UnsupportedLoader
from auditkit.integrations.accelerate import Accumulation
from auditkit.recorder.recorder import Recorder
from auditkit.recorder.writer import RecordingStopped

accelerate = pytest.importorskip("accelerate", reason="Accelerate is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:.set_vital. is deprecated:UserWarning")

Options = dict[str, Any]
PLAIN: Options = {}
ACCUMULATING = {"gradient_accumulation_steps": 4}
MIXED = {"mixed_precision": "bf16"}
SEEDED = {"dataloader_config": {"use_seedable_sampler": True}}


def _accelerator(options: Options) -> Any:
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()
    own = dict(options)
    if "dataloader_config" in own:
        own["dataloader_config"] = accelerate.DataLoaderConfiguration(**own["dataloader_config"])
    return accelerate.Accelerator(cpu=True, **own)


def _train(
    step_log: StepLog, options: Options, recorder: Recorder | None = None, workers: int = 0
) -> torch.nn.Module:
    torch.manual_seed(3)
    accelerator = _accelerator(options)
    net = Net()
    sgd = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    steps = torch.optim.lr_scheduler.StepLR(sgd, 4, 0.7)
    data = DataLoader(Samples(), BATCH, shuffle=True, num_workers=workers)
    model, optimizer, loader, scheduler = accelerator.prepare(net, sgd, data, steps)
    rounds: Any = range(3)
    if recorder is not None:
        given = (model, optimizer, loader)
        extras = {"accelerator": Accumulation(accelerator)}
        got = recorder.wrap(*given, scheduler=scheduler, extras=extras)
        assert all(a is b for a, b in zip(got, given, strict=True))
        rounds = recorder.epochs(rounds)
    for _ in rounds:
        for x, y, index in loader:
            step_log.step(model, index)
            with accelerator.accumulate(model):
                loss = torch.nn.functional.cross_entropy(model(x), y)
                accelerator.backward(loss)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            if recorder is not None:
                recorder.log(loss=loss)
    return net


@pytest.mark.parametrize("options", [PLAIN, ACCUMULATING, MIXED, SEEDED])
def test_records_and_changes_nothing(tmp_path: Path, options: Options) -> None:
    bare, step_log = StepLog(), StepLog()
    expected = weights(_train(bare, options))
    with Recorder(tmp_path / "run", seed=3) as recorder:
        net = _train(step_log, options, recorder)
    assert recorder.failure is None
    assert weights(net) == expected
    assert step_log.indices == bare.indices
    check_recording(tmp_path / "run", step_log)


def test_records_with_workers(tmp_path: Path) -> None:
    bare, step_log = StepLog(), StepLog()
    expected = weights(_train(bare, PLAIN, workers=2))
    with Recorder(tmp_path / "run", seed=3) as recorder:
        net = _train(step_log, PLAIN, recorder, workers=2)
    assert weights(net) == expected
    check_recording(tmp_path / "run", step_log)


@pytest.mark.parametrize("options", [PLAIN, ACCUMULATING, SEEDED])
def test_goes_on_in_mid_epoch_with_a_batch_in_flight(tmp_path: Path, options: Options) -> None:
    whole = StepLog()
    with Recorder(tmp_path / "whole", seed=3) as recorder:
        expected = weights(_train(whole, options, recorder))
    first, second = StepLog(dies_at=12), StepLog()

    def go() -> None:
        with Recorder(tmp_path / "run", seed=3, checkpoint_every=5) as recorder:
            _train(first, options, recorder)

    killed(go)
    assert not (tmp_path / "run" / "manifest.json").exists()
    with Recorder.resume(tmp_path / "run", seed=3, checkpoint_every=5) as recorder:
        net = _train(second, options, recorder)
    assert recorder.failure is None
    assert second.indices == whole.indices[5:]  # one row follows step 10, too few to prove it
    assert weights(net) == expected
    check_recording(tmp_path / "run", second, first=6)
    assert trace_of(tmp_path / "run") == trace_of(tmp_path / "whole")


def test_goes_on_without_help_from_the_loop(tmp_path: Path) -> None:
    """Epochs before the checkpoint get one batch each."""
    expected = weights(_train(StepLog(), PLAIN))

    class Untouched(Recorder):
        def epochs(self, rounds: Any) -> Any:
            return iter(rounds)

    def go() -> None:
        with Untouched(tmp_path / "run", seed=3, checkpoint_every=5) as recorder:
            _train(StepLog(dies_at=12), PLAIN, recorder)

    killed(go)
    with Untouched.resume(tmp_path / "run", seed=3) as recorder:
        assert weights(_train(StepLog(), PLAIN, recorder)) == expected
    assert (tmp_path / "run" / "manifest.json").exists()


def test_wrapping_before_prepare_is_told(tmp_path: Path) -> None:
    accelerator = _accelerator(PLAIN)
    net = Net()
    sgd = torch.optim.SGD(net.parameters(), lr=0.05)
    data = DataLoader(Samples(), BATCH)
    recorder = Recorder(tmp_path / "run")
    recorder.wrap(net, sgd, data)
    for _ in accelerator.prepare(data):
        pass
    with pytest.warns(RecordingStopped, match="no step was recorded.*Accelerate"):
        recorder.close()
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_stateful_loader_below_accelerate_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("torchdata", reason="torchdata is not installed")
    accelerator = _accelerator({"dataloader_config": {"use_stateful_dataloader": True}})
    net = Net()
    sgd = torch.optim.SGD(net.parameters(), lr=0.05)
    data = accelerator.prepare(DataLoader(Samples(), BATCH))
    with pytest.raises(UnsupportedLoader, match="iterated already"):
        Recorder(tmp_path / "run").wrap(net, sgd, data)
