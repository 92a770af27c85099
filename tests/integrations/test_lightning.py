"""RecorderCallback in Lightning's own Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from frameworks import (
    BATCH,
    Drawing,
    Killed,
    Net,
    Samples,
    StepLog,
    check_recording,
    killed,
    trace_of,
    weights,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

pl = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

from auditkit.errors import RecorderMisuse  # noqa: E402 # after the skip
from auditkit.integrations.lightning import RecorderCallback  # noqa: E402
from auditkit.recorder.proof import choose_start  # noqa: E402
from auditkit.recorder.writer import RecordingStopped  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*is smaller than the logging interval.*",
    "ignore:.*treespec.*:FutureWarning",
    "ignore::DeprecationWarning:lightning.*",
)


class Automatic(pl.LightningModule):  # type: ignore[misc, name-defined, unused-ignore]
    """One optimizer, a schedule by epochs, validation that draws from the global stream."""

    def __init__(self, step_log: StepLog) -> None:
        super().__init__()
        self.net, self.step_log = Net(), step_log

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y, index = batch
        self.step_log.step(self, index)
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("loss", loss, on_epoch=True, batch_size=len(x))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y, _ = batch
        self.log("val", nn.functional.cross_entropy(self.net(x), y) + 0 * torch.rand(()))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    def train_dataloader(self) -> Any:
        return DataLoader(Samples(), BATCH, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(Samples(), BATCH)


class Manual(Automatic):
    """Two optimizers, stepped by hand, in turns."""

    def __init__(self, step_log: StepLog) -> None:
        super().__init__(step_log)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y, index = batch
        self.step_log.step(self, index)
        loss = nn.functional.cross_entropy(self.net(x), y)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        self.optimizers()[batch_idx % 2].step()
        return {"loss": loss.detach()}

    def configure_optimizers(self) -> Any:
        layers = list(self.net.layers)
        return [
            torch.optim.SGD(layers[0].parameters(), lr=0.05, momentum=0.9),
            torch.optim.AdamW([*layers[1].parameters(), *layers[4].parameters()], lr=0.01),
        ]


class Workers(Automatic):
    def train_dataloader(self) -> Any:
        return DataLoader(Samples(), BATCH, shuffle=True, num_workers=2)


CASES: dict[str, tuple[type[Automatic], dict[str, Any]]] = {
    "automatic": (Automatic, {}),
    "accumulating": (Automatic, {"accumulate_grad_batches": 4}),
    "in mid-epoch": (Automatic, {"val_check_interval": 2, "max_steps": 14, "max_epochs": -1}),
    "mixed": (Automatic, {"precision": "bf16-mixed"}),
    "averaging": (Automatic, {"averaging": True}),
    "manual": (Manual, {}),
    "workers": (Workers, {}),
}


def _fit(
    root: Path,
    step_log: StepLog,
    callback: Any = None,
    case: str = "automatic",
    **more: Any,
) -> nn.Module:
    kind, options = CASES[case]
    options = {"max_epochs": 3, **options, **more}
    callbacks = [] if callback is None else [callback]
    if options.pop("averaging", False):
        callbacks.append(pl.callbacks.EMAWeightAveraging(decay=0.5))
    torch.manual_seed(3)
    module = kind(step_log)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=root,
        callbacks=callbacks,
        **options,
    )
    trainer.fit(module)
    return module


@pytest.mark.parametrize("case", CASES)
def test_records_and_changes_nothing(tmp_path: Path, case: str) -> None:
    bare, step_log = StepLog(), StepLog()
    expected = weights(_fit(tmp_path, bare, case=case))
    callback = RecorderCallback(tmp_path / "run", seed=3)
    module = _fit(tmp_path, step_log, callback, case)
    assert weights(module) == expected
    assert step_log.indices == bare.indices
    check_recording(tmp_path / "run", step_log)
    trace = trace_of(tmp_path / "run")
    assert any(trace.loss_bits[-16:-8])
    assert ("averaged/average" in trace.columns) == (case == "averaging")
    assert ("extras/optimizer-2" in trace.columns) == (case == "manual")


@pytest.mark.parametrize(
    ("case", "every", "dies_at"),
    [
        *((case, 5, 12) for case in CASES),
        ("accumulating", 3, 5),  # in the first epoch
        ("accumulating", 6, 8),  # between two epochs
        ("workers", 6, 8),
    ],
)
def test_goes_on_from_a_checkpoint(tmp_path: Path, case: str, every: int, dies_at: int) -> None:
    whole, second = StepLog(), StepLog()
    expected = weights(_fit(tmp_path, whole, RecorderCallback(tmp_path / "whole", seed=3), case))
    settings: dict[str, Any] = {"seed": 3, "checkpoint_every": every}
    killed(
        lambda: _fit(
            tmp_path, StepLog(dies_at=dies_at), RecorderCallback(tmp_path / "run", **settings), case
        )
    )
    assert not (tmp_path / "run" / "manifest.json").exists()
    callback = RecorderCallback(tmp_path / "run", resume=True, **settings)
    module = _fit(tmp_path, second, callback, case)
    taken = choose_start(range(every, dies_at, every), dies_at - 1)
    assert second.indices == whole.indices[taken:]
    assert weights(module) == expected
    check_recording(tmp_path / "run", second, first=taken + 1)
    assert trace_of(tmp_path / "run") == trace_of(tmp_path / "whole")


def test_what_lightning_does_not_hold_is_given_to_the_callback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(Automatic):
        def train_dataloader(self) -> Any:
            return DataLoader(held[-1], BATCH, shuffle=True)

    monkeypatch.setitem(CASES, "own", (Own, {}))
    held: list[Drawing] = []

    def fit(out: str, dies_at: int = 0, name: str = "", **settings: Any) -> dict[str, bytes]:
        held.append(Drawing())
        extras = {name: held[-1].own} if name else None
        callback = RecorderCallback(tmp_path / out, checkpoint_every=5, extras=extras, **settings)
        return weights(_fit(tmp_path, StepLog(dies_at=dies_at), callback, "own"))

    with pytest.warns(RecordingStopped, match=r"own is a torch\.Generator .* extras=\{'own'"):
        expected = fit("unregistered")
    killed(lambda: fit("run", dies_at=14, name="own"))
    assert fit("run", name="own", resume=True) == expected
    with pytest.raises(RecorderMisuse, match="registers a 'lightning' of its own"):
        fit("no", name="lightning")


def test_an_exception_leaves_no_manifest(tmp_path: Path) -> None:
    callback = RecorderCallback(tmp_path / "run")
    with pytest.raises(Killed):
        _fit(tmp_path, StepLog(dies_at=4), callback)
    assert callback.recorder is not None
    assert isinstance(callback.recorder.failure, Killed)
    assert not (tmp_path / "run" / "manifest.json").exists()


class Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Any:
        return iter([(torch.zeros(5), torch.tensor(0), 0)] * 16)


class Lengthless(Automatic):
    def train_dataloader(self) -> Any:
        return DataLoader(Endless(), BATCH)


class Several(Automatic):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, _, _ = batch["b"]
        loss: Tensor = super().training_step(batch["a"], batch_idx) + 0 * self.net(x).sum()
        return loss

    def train_dataloader(self) -> Any:
        return {
            "a": DataLoader(Samples(), BATCH, shuffle=True),
            "b": DataLoader(Samples(), 2 * BATCH, shuffle=True),
        }


def test_several_training_loaders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES, "several", (Several, {}))
    bare, step_log = StepLog(), StepLog()
    expected = weights(_fit(tmp_path, bare, case="several"))
    module = _fit(tmp_path, step_log, RecorderCallback(tmp_path / "run"), "several")
    assert weights(module) == expected
    check_recording(tmp_path / "run", step_log)
    assert "order/loader-2" in trace_of(tmp_path / "run").columns
    with pytest.raises(RecorderMisuse, match="single training loader"):
        _fit(tmp_path, StepLog(), RecorderCallback(tmp_path / "new", resume=True), "several")


def test_what_cannot_be_recorded_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecorderMisuse, match="batches of later loaders would be missed"):
        _fit(
            tmp_path,
            StepLog(),
            RecorderCallback(tmp_path / "a"),
            reload_dataloaders_every_n_epochs=1,
        )
    monkeypatch.setitem(CASES, "lengthless", (Lengthless, {}))
    with pytest.raises(RecorderMisuse, match="without a length"):
        _fit(tmp_path, StepLog(), RecorderCallback(tmp_path / "b"), "lengthless", max_epochs=1)
    callback = RecorderCallback(tmp_path / "c")
    _fit(tmp_path, StepLog(), callback, max_epochs=1)
    with pytest.raises(RecorderMisuse, match="one for each fit"):
        _fit(tmp_path, StepLog(), callback)
