"""RecorderCallback in Hugging Face's own Trainer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from frameworks import (
    BATCH,
    N_BATCHES,
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
from torch.utils.data import Dataset

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="Accelerate is not installed")

from auditkit.errors import RecorderMisuse  # noqa: E402 # after the skip
from auditkit.integrations.transformers import RecorderCallback  # noqa: E402
from auditkit.recorder.writer import RecordingStopped  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:.set_vital. is deprecated:UserWarning",
    "ignore::FutureWarning",
    "ignore::DeprecationWarning",
    "ignore:.*pin_memory.*:UserWarning",
)


class Named(Dataset[dict[str, Any]]):
    """The samples, as the Trainer wants them."""

    def __init__(self, samples: Samples | None = None) -> None:
        self.samples = samples or Samples()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        x, y, number = self.samples[index]
        return {"x": x, "labels": y, "number": number}


class Model(nn.Module):
    """A model that returns its loss."""

    def __init__(self, step_log: StepLog) -> None:
        super().__init__()
        self.net, self.step_log = Net(), step_log

    def forward(self, x: Tensor, labels: Tensor, number: Tensor) -> Any:
        if self.training:
            self.step_log.step(self, number)
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulating": {"gradient_accumulation_steps": 3},
    "mixed": {"bf16": True},
    "evaluating": {"eval_strategy": "epoch", "max_steps": 15},
    "workers": {"dataloader_num_workers": 2},
    "unseeded": {"accelerator_config": {"use_seedable_sampler": False}},
    "encoded": {},
}


def _encoded(samples: list[dict[str, Any]]) -> Any:
    """A batch of the class that a tokenizer's padding collator returns."""
    return transformers.BatchEncoding(transformers.default_data_collator(samples))


def _train(
    root: Path,
    step_log: StepLog,
    callback: Any = None,
    case: str = "plain",
    samples: Samples | None = None,
    **more: Any,
) -> nn.Module:
    transformers.set_seed(3)
    model = Model(step_log)
    arguments = transformers.TrainingArguments(
        output_dir=str(root / "trainer"),
        per_device_train_batch_size=BATCH,
        **{
            **{"num_train_epochs": 3, "learning_rate": 0.01, "warmup_steps": 2, "seed": 3},
            **{"report_to": [], "disable_tqdm": True, "save_strategy": "no", "use_cpu": True},
            **{"logging_steps": 4, "remove_unused_columns": False, "label_names": ["labels"]},
            **{"dataloader_pin_memory": False},
            **CASES[case],
            **more,
        },
    )
    callbacks = [] if callback is None else [callback]
    if case == "stopping":
        callbacks.append(transformers.EarlyStoppingCallback())
    trainer = transformers.Trainer(
        *(model, arguments),
        train_dataset=Named(samples),
        eval_dataset=Named(),
        callbacks=callbacks,
        data_collator=_encoded if case == "encoded" else None,
    )
    trainer.train()
    return model


def _first_of_update(step_log: StepLog, size: int) -> StepLog:
    """Rows of an update hold the parameters with which its first batch was fetched."""
    params = [step_log.params[step - step % size] for step in range(len(step_log.params))]
    return StepLog(step_log.indices, params)


@pytest.mark.parametrize("case", CASES)
def test_records_and_changes_nothing(tmp_path: Path, case: str) -> None:
    bare, step_log = StepLog(), StepLog()
    expected = weights(_train(tmp_path, bare, case=case))
    model = _train(tmp_path, step_log, RecorderCallback(tmp_path / "run"), case)
    assert weights(model) == expected
    assert step_log.indices == bare.indices
    assert len(step_log.indices) == (15 if case == "evaluating" else 3 * N_BATCHES)
    check_recording(
        tmp_path / "run",
        _first_of_update(step_log, CASES[case].get("gradient_accumulation_steps", 1)),
    )


@pytest.mark.parametrize(
    ("case", "every", "dies_at", "taken"),
    [
        *((case, 5, 12, 5) for case in CASES if case != "accumulating"),
        ("plain", 3, 5, 3),
        ("plain", 6, 8, 6),
        ("accumulating", 2, 11, 0),  # no row follows the only checkpoint: it begins anew
    ],
)
def test_goes_on_from_a_checkpoint(
    tmp_path: Path, case: str, every: int, dies_at: int, taken: int
) -> None:
    whole, second = StepLog(), StepLog()
    expected = weights(_train(tmp_path, whole, RecorderCallback(tmp_path / "whole"), case))
    interrupted = RecorderCallback(tmp_path / "run", checkpoint_every=every)
    killed(lambda: _train(tmp_path, StepLog(dies_at=dies_at), interrupted, case))
    assert interrupted.recorder is not None
    interrupted.recorder.__exit__(Killed, Killed(), None)
    assert not (tmp_path / "run" / "manifest.json").exists()
    callback = RecorderCallback(tmp_path / "run", resume=True, checkpoint_every=every)
    model = _train(tmp_path, second, callback, case)
    skipped = taken // N_BATCHES  # epochs that are only gone through
    assert second.indices[skipped:] == whole.indices[taken:]
    assert weights(model) == expected
    size = CASES[case].get("gradient_accumulation_steps", 1)
    after = StepLog(second.indices[skipped:], second.params[skipped:])
    check_recording(tmp_path / "run", _first_of_update(after, size), first=taken + 1)
    assert trace_of(tmp_path / "run") == trace_of(tmp_path / "whole")


def test_nothing_is_saved_of_an_epoch_that_is_only_gone_through(tmp_path: Path) -> None:
    interrupted = RecorderCallback(tmp_path / "run", checkpoint_every=7)
    options: dict[str, Any] = {
        "save_strategy": "epoch",
        "logging_strategy": "epoch",
        "eval_strategy": "epoch",
    }
    killed(lambda: _train(tmp_path, StepLog(dies_at=17), interrupted, **options))
    assert interrupted.recorder is not None
    interrupted.recorder.__exit__(Killed, Killed(), None)
    _train(
        tmp_path / "again", StepLog(), RecorderCallback(tmp_path / "run", resume=True), **options
    )
    saved = sorted(path.name for path in (tmp_path / "again" / "trainer").iterdir())
    assert saved == ["checkpoint-12", "checkpoint-18"]


def _is_resumed(root: Path, samples: Callable[[], Samples], case: str, **named: str) -> None:
    """Train, and train again with a kill in between; ``named`` names attributes to register."""

    def train(out: str, dies_at: int = 0, **settings: Any) -> dict[str, bytes]:
        data = samples()
        extras = {name: getattr(data, attribute) for name, attribute in named.items()}
        callback = RecorderCallback(root / out, checkpoint_every=5, extras=extras, **settings)
        try:
            model = _train(root, StepLog(dies_at=dies_at), callback, case, samples=data)
        except Killed:
            assert callback.recorder is not None
            callback.recorder.__exit__(Killed, Killed(), None)
            raise
        return weights(model)

    expected = train("whole")
    killed(lambda: train("run", dies_at=14))
    assert train("run", resume=True) == expected


def test_a_generator_of_the_data_set_is_given_to_the_callback(tmp_path: Path) -> None:
    with pytest.warns(RecordingStopped, match=r"own is a torch\.Generator .* extras=\{'own'"):
        _train(tmp_path, StepLog(), RecorderCallback(tmp_path / "out"), samples=Drawing())
    _is_resumed(tmp_path, Drawing, "plain", mine="own")
    with pytest.raises(RecorderMisuse, match="registers a 'trainer' of its own"):
        _train(tmp_path, StepLog(), RecorderCallback(tmp_path / "no", extras={"trainer": 1}))


@pytest.mark.filterwarnings("error::auditkit.recorder.writer.RecordingStopped")
@pytest.mark.parametrize(
    ("case", "draws"), [("plain", False), ("workers", False), ("workers", True)]
)
def test_one_that_only_built_the_data_or_is_copied_is_no_matter(
    tmp_path: Path, case: str, draws: bool
) -> None:
    _is_resumed(tmp_path, partial(Drawing, draws=draws), case)


def test_what_cannot_be_recorded_or_gone_on_with_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best: dict[str, Any] = {
        **{"eval_strategy": "epoch", "save_strategy": "epoch"},
        **{"load_best_model_at_end": True, "metric_for_best_model": "loss"},
    }
    monkeypatch.setitem(CASES, "stopping", best)
    go_on: dict[str, Any] = {"resume": True}
    with pytest.raises(RecorderMisuse, match="EarlyStoppingCallback keeps a state"):
        _train(tmp_path, StepLog(), RecorderCallback(tmp_path / "a", **go_on), "stopping")
    with pytest.raises(RecorderMisuse, match="earlier best models"):
        _train(tmp_path, StepLog(), RecorderCallback(tmp_path / "b", **go_on), "plain", **best)
    callback = RecorderCallback(tmp_path / "c", **go_on)
    with pytest.raises(RecorderMisuse, match="that 4 divides"):
        _train(tmp_path, StepLog(), callback, gradient_accumulation_steps=4)
    callback = RecorderCallback(tmp_path / "d")
    _train(tmp_path, StepLog(), callback, num_train_epochs=1)
    with pytest.raises(RecorderMisuse, match="one for each"):
        _train(tmp_path, StepLog(), callback)
