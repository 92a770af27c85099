"""Hyper-parameters of a second optimizer, which no row has: two checkpoints tell them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from in_process_loops import read, replay_in_process
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak
from auditkit.diagnose.run_difference import compare_runs


@dataclass(frozen=True)
class TwoOptimizers:
    """Eight steps of two models, each with an optimizer of its own."""

    out: Path
    lr: float = 0.5
    halved_at: int = 0

    def __call__(self) -> None:
        torch.manual_seed(0)
        models = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)
        first = torch.optim.SGD(models[0].parameters(), lr=0.1)
        second = torch.optim.Adam(models[1].parameters(), lr=self.lr, betas=(0.5, 0.9))
        loader = DataLoader(TensorDataset(torch.randn(16, 3)), batch_size=2, shuffle=True)
        with ak.Recorder(self.out, seed=0, checkpoint_every=3) as recorder:
            recorder.wrap(*models, first, second, loader)
            for number, (x,) in enumerate(loader, start=1):
                for model, optimizer in zip(models, (first, second), strict=True):
                    optimizer.zero_grad()
                    model(x).square().mean().backward()
                    optimizer.step()
                if number == self.halved_at:
                    second.param_groups[0]["lr"] /= 2


PLACE = "extras/optimizer-2/param_groups[0]"


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"lr": 0.25}, f"lr 0.5 -> 0.25 from step 4 on ({PLACE}; or earlier)"),
        ({"halved_at": 3}, f"lr 0.5 -> 0.25 from step 4 on ({PLACE})"),
        ({"halved_at": 4}, f"lr 0.5 -> 0.25 from step 7 on ({PLACE}; or earlier)"),
    ],
)
def test_the_value_of_a_second_optimizer_is_named(
    tmp_path: Path, other: dict[str, float], says: str
) -> None:
    loop = TwoOptimizers(tmp_path / "a")
    loop()
    changed = TwoOptimizers(tmp_path / "b", **other)  # type: ignore[arg-type]
    changed()
    (trace,) = compare_runs(str(tmp_path / "a"), str(tmp_path / "b")).traces
    assert list(map(str, trace.settings)) == [says]
    (found,) = replay_in_process(read(loop.out), changed).settings
    assert (found.name, found.left, found.right, found.place) == ("lr", "0.5", "0.25", PLACE)
    assert found.step >= trace.settings[0].step


def test_what_another_difference_leaves_as_it_is_is_not_named(tmp_path: Path) -> None:
    for name in "ab":
        TwoOptimizers(tmp_path / name)()
    assert compare_runs(str(tmp_path / "a"), str(tmp_path / "b")).same
