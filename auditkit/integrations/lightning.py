"""PyTorch Lightning: a callback that records what ``Trainer.fit`` does.

::

    from auditkit.integrations.lightning import RecorderCallback

    trainer = Trainer(max_epochs=30, callbacks=[RecorderCallback("runs/exp1", seed=0)])

It finds model, optimizers, schedulers, scaler, averaged models and training loaders by itself.
The loaders are taken at the one moment that is right: Lightning has put its samplers in and
has not begun to iterate. A step is one batch of the first training loader, whatever
``accumulate_grad_batches`` is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    EarlyStopping,
    LearningRateFinder,
    StochasticWeightAveraging,
    WeightAveraging,
)
from torch import Tensor, nn

from auditkit.errors import RecorderMisuse
from auditkit.integrations.registered import with_own
from auditkit.observe.loader.proxies import recorded_loader_of
from auditkit.recorder.recorder import Recorder, absolute_paths, for_callback

#: The method that FitLoop calls between making the loaders and making their iterators.
_HOOKED = "_load_combined_loader_states"

_PROGRESS = (
    "epoch_progress",
    "epoch_loop.batch_progress",
    "epoch_loop.scheduler_progress",
    "epoch_loop.automatic_optimization.optim_progress",
    "epoch_loop.manual_optimization.optim_step_progress",
    "epoch_loop.val_loop.batch_progress",
)


class RecorderCallback(Callback):
    """Records one ``Trainer.fit``: a manifest at its clean end, none after an exception.

    With ``resume=True`` a run that was killed resumes from its latest checkpoint (see
    ``checkpoint_every``): the script and the Trainer are the same as before, without
    ``ckpt_path``. Epochs before the checkpoint are left out, and Lightning's counters are put
    back with everything else. Metrics that Lightning averages over an epoch (``on_epoch=True``)
    cover only the batches after the checkpoint in the epoch that is resumed; what
    ``ModelCheckpoint`` knows of earlier best models is not restored.

    Args:
        out: The recording's folder.
        seed: The seed that training runs with. It is only recorded.
        resume: Whether to resume from the latest checkpoint in ``out``, where there is one.
        extras: What training depends on beside what the Trainer holds, by name, as for
            :meth:`auditkit.Recorder.wrap`: a generator that the data set draws from.
        averaged: Averaged copies of the model by name, beside those of Lightning's callbacks.
        **settings: As for :class:`auditkit.Recorder`.

    Attributes:
        recorder: The Recorder of the fit that is under way or over; None before.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        seed: int | None = None,
        *,
        resume: bool = False,
        extras: Mapping[str, Any] | None = None,
        averaged: Mapping[str, nn.Module] | None = None,
        **settings: Any,
    ) -> None:
        self.recorder: Recorder | None = None
        # Absolute from now on: the working directory may be another when the fit begins.
        self._out, self._settings = absolute_paths(out, settings)
        self._seed, self._resume = seed, resume
        self._extras, self._averaged = extras, averaged
        self._recorded_loader: Any = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Wait for the training loaders.

        Raises:
            RecorderMisuse: When this fit cannot be recorded whole.
        """
        if stage != "fit":
            return
        if self.recorder is not None:
            raise RecorderMisuse("this RecorderCallback has recorded", hint="one for each fit")
        _refuse_unrecordable(trainer, resume=self._resume)
        make = Recorder.resume if self._resume else Recorder
        self.recorder = for_callback(make(self._out, self._seed, **self._settings))
        loop = trainer.fit_loop
        original = getattr(loop, _HOOKED)

        def hook() -> None:
            delattr(loop, _HOOKED)
            original()
            self._wrap(trainer)

        setattr(loop, _HOOKED, hook)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Note which epoch of Lightning's the next iteration belongs to."""
        if self._recorded_loader is not None and trainer.current_epoch > 0:
            self._recorded_loader.begin_loop_epoch(trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss, where ``training_step`` returned one."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if self.recorder is not None and isinstance(loss, Tensor) and loss.numel() == 1:
            self.recorder.log(loss=loss)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Training is over: sign the manifest."""
        self._close(None)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Training failed: keep what there is, without a manifest."""
        self._close(exception)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """A fit without a single batch ends here."""
        if stage == "fit":
            self._close(None)

    def _close(self, error: BaseException | None) -> None:
        if self.recorder is not None:
            trace = None if error is None else error.__traceback__
            self.recorder.__exit__(None if error is None else type(error), error, trace)

    def _wrap(self, trainer: Any) -> None:
        combined = trainer.fit_loop._combined_loader
        _refuse_unsuitable(combined, resume=self._resume)
        averaging = _callbacks(trainer, WeightAveraging, StochasticWeightAveraging)
        averages = [callback._average_model for callback in averaging]
        stateful = _callbacks(trainer, WeightAveraging, EarlyStopping)
        assert self.recorder is not None  # noqa: S101 # setup made it
        self.recorder.wrap(
            trainer.model,
            *trainer.optimizers,
            *combined.flattened,
            scheduler=[config.scheduler for config in trainer.lr_scheduler_configs],
            scaler=getattr(trainer.precision_plugin, "scaler", None),
            averaged=with_own(
                _numbered("average", [item for item in averages if item is not None]),
                self._averaged,
            ),
            extras=with_own(
                {"lightning": LoopProgress(trainer), **_numbered("callback", stateful)},
                self._extras,
            ),
        )
        self._recorded_loader = recorded_loader_of(combined.flattened[0])
        epoch = self._recorded_loader.resume_loop_epoch or 0
        if epoch > 0:
            # Lightning makes one iterator here and, beyond epoch 0, another before it trains;
            # only that one is the epoch's.
            progress = trainer.fit_loop.epoch_progress
            for tracker in (progress.current, progress.total):
                tracker.ready = tracker.started = tracker.processed = tracker.completed = epoch
        else:
            self._recorded_loader.begin_loop_epoch(trainer.current_epoch)


class LoopProgress:
    """Lightning's own counters: part of the state, since schedules and stops hang on them.

    Args:
        trainer: The Trainer.
    """

    def __init__(self, trainer: Any) -> None:
        self._loop = trainer.fit_loop

    def state_dict(self) -> dict[str, Any]:
        """All counters, as they stand at a batch boundary."""
        loop = self._loop
        fetcher = loop._data_fetcher
        return {
            "fetched": 0 if fetcher is None else fetcher.fetched,
            "batches_that_stepped": loop.epoch_loop._batches_that_stepped,
            **{name: attrgetter(name)(loop).state_dict() for name in _PROGRESS},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put them back; the batch that is being fetched is not counted yet."""
        loop = self._loop
        loop._data_fetcher.fetched = state_dict["fetched"]
        loop.epoch_loop._batches_that_stepped = state_dict["batches_that_stepped"]
        for name in _PROGRESS:
            attrgetter(name)(loop).load_state_dict(state_dict[name])


def _refuse_unrecordable(trainer: Any, *, resume: bool) -> None:
    if not hasattr(trainer.fit_loop, _HOOKED):
        raise RecorderMisuse("this version of Lightning cannot be recorded", expected="2.5 or 2.6")
    if trainer.fit_loop._combined_loader is not None:
        raise RecorderMisuse(
            "this Trainer has fitted before and goes on with the iterator that it has",
            hint="record with a new Trainer",
        )
    if trainer.reload_dataloaders_every_n_epochs:
        raise RecorderMisuse(
            "with reload_dataloaders_every_n_epochs the batches of later loaders would be missed",
            hint="give one loader whose dataset or sampler changes from epoch to epoch",
        )
    if _callbacks(trainer, BatchSizeFinder, LearningRateFinder):
        raise RecorderMisuse("a search for batch size or learning rate is no training run")
    if resume and trainer.ckpt_path is not None:
        raise RecorderMisuse("resume=True and ckpt_path are two ways to go on", hint="use one")
    if resume and _callbacks(trainer, StochasticWeightAveraging):
        raise RecorderMisuse(
            "StochasticWeightAveraging exchanges schedulers during training: it can be recorded, "
            "but not gone on from a checkpoint"
        )


def _refuse_unsuitable(combined: Any, *, resume: bool) -> None:
    loaders = combined.flattened
    if resume and len(loaders) > 1:
        raise RecorderMisuse("resume=True takes a single training loader", found=len(loaders))
    for loader in loaders:
        if not hasattr(loader, "__len__") or _length(loader) is None:
            raise RecorderMisuse(
                "Lightning fetches one batch ahead of a loader without a length, so that no "
                "state belongs to a batch",
                hint="give the IterableDataset a __len__",
            )
    if combined._mode == "max_size" and len(loaders[0]) < max(map(len, loaders)):
        raise RecorderMisuse("with mode='max_size' the first training loader must be the longest")


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None


def _callbacks(trainer: Any, *kinds: Any) -> list[Any]:
    return [callback for callback in trainer.callbacks if isinstance(callback, kinds)]


def _numbered(name: str, items: list[Any]) -> dict[str, Any]:
    return {f"{name}-{number}" if number else name: item for number, item in enumerate(items)}
