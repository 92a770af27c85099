from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak
from auditkit.files import store
from auditkit.formats.recipes import digest_raw
from auditkit.formats.snapshot_file import raw_components
from auditkit.observe.values.digests import commitments
from auditkit.recorder import pending_checkpoint
from auditkit.recorder.pending_checkpoint import PendingCheckpoint
from auditkit.records.digest import COMMITMENT_RECIPE

WIDTH = 1050  # its square is above 4 MiB, which is large


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each snapshot was of live memory."""
    found: list[bool] = []
    freeze: Any = pending_checkpoint.freeze  # type: ignore[attr-defined]

    def noted(*arguments: Any, live: bool) -> Any:
        found.append(live)
        return freeze(*arguments, live=live)

    monkeypatch.setattr(pending_checkpoint, "freeze", noted)
    return found


def record(out: Path, *, every: int, stop_after: int | None = None, epochs: int = 2) -> list[str]:
    """Train 4 steps an epoch; returns the names of checkpoints."""
    torch.manual_seed(0)
    model = nn.Linear(WIDTH, WIDTH, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(torch.randn(8, WIDTH)), batch_size=2)
    with ak.Recorder(out, seed=0, checkpoint_every=every) as rec:
        rec.wrap(model, optimizer, loader)
        for _ in range(epochs):
            for step, (x,) in enumerate(loader):
                model(x).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                if step == stop_after:
                    break
    return sorted(path.name for path in out.glob("checkpoint*"))


def test_a_large_state_is_written_where_it_lies_and_copied_where_an_epoch_may_end(
    tmp_path: Path, writes: list[bool]
) -> None:
    assert record(tmp_path / "a", every=3) == [
        "checkpoint-00000003.safetensors",
        "checkpoint-00000006.safetensors",
    ]
    assert writes == [True, True]
    writes.clear()
    assert record(tmp_path / "b", every=4) == ["checkpoint-00000004.safetensors"]
    assert writes == [False, True, False]  # the second time a batch comes, the third time none
    for path in (tmp_path / "a").glob("check*3.safetensors"):
        tensors, meta = store.read_tensors(path, what="checkpoint")
        assert isinstance(meta, dict)
        parts = raw_components(tensors, meta)
        assert "params" in parts


def test_what_was_written_at_a_boundary_that_did_not_count_is_removed(
    tmp_path: Path, writes: list[bool]
) -> None:
    assert record(tmp_path / "a", every=3, stop_after=2, epochs=1) == []  # left before a boundary
    session: Any = type("Session", (), {})()
    folder: Any = type("Folder", (), {})()
    removed: list[str] = []
    folder.write_checkpoint = lambda step, *_: f"{step}"
    folder.remove_snapshot = removed.append
    session.driver = type("Driver", (), {"may_be_over": False})()
    large: Any = {"params": {"w": torch.zeros(WIDTH, WIDTH)}}
    pending = PendingCheckpoint(session, folder)
    with pytest.MonkeyPatch.context() as patch:
        from auditkit.study.stages import snapshotter

        patch.setattr(snapshotter, "sections", lambda _session, state, _: state)
        pending.take(3, large)
        pending.take(3, large)
        assert removed == ["3"]
        assert pending.write(3) == ("3", commitments(large))
        assert not pending.is_taken
        pending.drop()
        assert removed == ["3"]
        pending.take(4, {"params": {"w": torch.zeros(3)}})  # small: copied, and written later
        pending.drop()
        assert removed == ["3"]


def test_a_checkpoint_holds_the_state_of_its_boundary(tmp_path: Path) -> None:
    record(tmp_path / "a", every=3)
    record(tmp_path / "b", every=1)
    for step in (3, 6):
        digests = []
        for out in ("a", "b"):
            path = tmp_path / out / f"checkpoint-{step:08d}.safetensors"
            tensors, meta = store.read_tensors(path, what="checkpoint")
            part: Any = raw_components(tensors, meta)["params"]
            digests.append(digest_raw(COMMITMENT_RECIPE, *part))
        assert digests[0] == digests[1]
