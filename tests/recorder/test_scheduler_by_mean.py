"""A scheduler that is stepped with a mean over the epoch, which a resume in its midst lacks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak
from auditkit.errors import ResumeMismatch


class Killed(BaseException):
    """Ends a loop as kill -9 would."""


class Mean:
    total, n = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "n": self.n}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.n = state["total"], state["n"]


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home and a script of nobody's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)


def train(rec: ak.Recorder, *, kept: bool, kill_at: int = 0) -> bytes:
    torch.manual_seed(0)
    model, mean = torch.nn.Linear(3, 1), Mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    loader = DataLoader(TensorDataset(torch.randn(12, 3)), batch_size=2, shuffle=True)
    extras = {"mean": mean} if kept else {}
    rec.wrap(model, optimizer, loader, scheduler=schedule, extras=extras)
    for _ in rec.epochs(range(4)):
        for (x,) in loader:
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mean.total, mean.n = mean.total + loss.item(), mean.n + 1
            if kill_at and rec.step == kill_at:
                raise Killed
        schedule.step(mean.total / mean.n)
        mean.total, mean.n = 0.0, 0
    rec.close()
    return model.weight.detach().numpy().tobytes()


def test_the_refusal_says_what_the_scheduler_is_stepped_with_and_that_helps(
    tmp_path: Path,
) -> None:
    bare = train(ak.Recorder(tmp_path / "bare", seed=0), kept=False)
    for kept in (False, True):
        out = tmp_path / str(kept)
        rec: Any = ak.Recorder(out, seed=0, checkpoint_every=5)
        with pytest.raises(Killed):
            train(rec, kept=kept, kill_at=21)
        rec._closed = True
        rec._backend._resources.close()  # its lock, as the kernel would take it
    again = ak.Recorder.resume(tmp_path / "False", seed=0, checkpoint_every=5)
    with pytest.raises(ResumeMismatch, match="another scheduler than the killed") as refused:
        train(again, kept=False)
    assert "likely it is stepped with a number that begins anew (a loss or" in str(refused.value)
    assert "that keeps the sums}" in str(refused.value)
    again = ak.Recorder.resume(tmp_path / "True", seed=0, checkpoint_every=5)
    assert train(again, kept=True) == bare
