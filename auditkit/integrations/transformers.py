"""Hugging Face Trainer: a callback that records what ``Trainer.train`` does.

::

    from auditkit.integrations.transformers import RecorderCallback

    trainer = Trainer(model, args, train_dataset=..., callbacks=[RecorderCallback("runs/exp1")])

It finds model, optimizer, scheduler and training loader by itself. A step is one batch. With
``gradient_accumulation_steps`` above 1 the Trainer fetches all batches of an update before it
trains on the first one, so that their rows hold the same parameters. The loss is not in the
evidence: the Trainer tells no callback what it was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import TrainerCallback

from auditkit.errors import RecorderMisuse
from auditkit.integrations.registered import with_own
from auditkit.recorder.recorder import Recorder, absolute_paths, for_callback
from auditkit.records import plan_values

#: What of the Trainer's state decides how training goes on.
_COUNTERS = ("global_step", "best_metric", "best_global_step")


class RecorderCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Records one ``Trainer.train``: a manifest at its clean end, none after an exception.

    Checkpoints are taken between updates, at the first one that is ``checkpoint_every`` batches
    after the last. With ``resume=True`` a run that was killed resumes from the latest one: the
    script is the same as before, without ``resume_from_checkpoint``. Each epoch before the
    checkpoint goes through one batch, of which nothing is saved, evaluated or logged; then all
    is put back. In the epoch that is resumed, the Trainer's own logs (``epoch``, the mean
    loss up to the first log) count from the checkpoint; what is trained does not depend on them.
    Refused where it would: accumulation that does not divide an epoch, callbacks with a state of
    their own (early stopping), several processes.

    Args:
        out: The recording's folder.
        seed: The seed that training runs with; by default the Trainer's. It is only recorded.
        resume: Whether to resume from the latest checkpoint in ``out``, where there is one.
        checkpoint_every: Batches between checkpoints, at least; 0 for none.
        extras: What training depends on beside what the Trainer holds, by name, as for
            :meth:`auditkit.Recorder.wrap`: a generator that the data set draws from.
        averaged: Averaged copies of the model by name.
        **settings: As for :class:`auditkit.Recorder`.

    Attributes:
        recorder: The Recorder of the training that is under way or over; None before.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        seed: int | None = None,
        *,
        resume: bool = False,
        checkpoint_every: int = 0,
        extras: Mapping[str, Any] | None = None,
        averaged: Mapping[str, nn.Module] | None = None,
        **settings: Any,
    ) -> None:
        self.recorder: Recorder | None = None
        # Absolute from now on: the working directory may be another when training begins.
        self._out, self._settings = absolute_paths(out, settings)
        self._seed, self._extras, self._averaged = seed, extras, averaged
        self._resume = resume
        self._checkpoint_every = plan_values.integer("checkpoint_every", checkpoint_every, least=0)
        self._checkpointed = 0
        self._counters: Counters | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Everything is there, and nothing has been iterated.

        Raises:
            RecorderMisuse: When this training cannot be recorded, or not be resumed.
        """
        if self.recorder is not None:
            raise RecorderMisuse("this RecorderCallback has recorded", hint="one for each train()")
        if state.global_step:
            raise RecorderMisuse(
                "the Trainer goes on from a checkpoint of its own, with a loader that skips",
                hint="go on with RecorderCallback(..., resume=True), or record from the start",
            )
        if self._resume:
            _refuse_unresumable(args, state, kwargs["train_dataloader"])
        seed = args.seed if self._seed is None else self._seed
        make = Recorder.resume if self._resume else Recorder
        self.recorder = for_callback(make(self._out, seed, **self._settings))
        self._counters = Counters(state)
        self.recorder.wrap(
            kwargs["model"],
            kwargs["optimizer"],
            kwargs["train_dataloader"],
            scheduler=kwargs["lr_scheduler"],
            averaged=self._averaged,
            extras=with_own({"trainer": self._counters}, self._extras),
        )
        self._checkpointed = self.recorder.step
        # What was recorded before is put back when the loader gets there.
        self._counters.restore_pending = self._checkpointed > 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """An update is done: the only place at which a checkpoint can be resumed from."""
        if self.recorder is None:
            return None
        if self._restore_pending():
            return _silenced(control)
        steps = self.recorder.step + 1  # the batch of this update is still under way
        if self._checkpoint_every and steps - self._checkpointed >= self._checkpoint_every:
            self.recorder.checkpoint()
            self._checkpointed = steps
        return None

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Nothing comes of an epoch that is only gone through."""
        return _silenced(control) if self._restore_pending() else None

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Training is over: sign the manifest."""
        if self.recorder is not None:
            self.recorder.close()

    def _restore_pending(self) -> bool:
        return self._counters is not None and self._counters.restore_pending


class Counters:
    """The Trainer's own counters: part of the state, since its stops hang on them.

    Args:
        state: The ``TrainerState``.

    Attributes:
        restore_pending: Whether a recorded state is still to be put back.
    """

    def __init__(self, state: Any) -> None:
        self._state = state
        self.restore_pending = False

    def state_dict(self) -> dict[str, Any]:
        """The counters."""
        return {name: getattr(self._state, name, None) for name in _COUNTERS}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put them back."""
        self.restore_pending = False
        for name in _COUNTERS:
            if hasattr(self._state, name):
                setattr(self._state, name, state_dict[name])


def _silenced(control: Any) -> Any:
    control.should_log = control.should_save = control.should_evaluate = False
    return control


def _refuse_unresumable(args: Any, state: Any, loader: Any) -> None:
    stateful = sorted(set(state.stateful_callbacks or {}) - {"TrainerControl"})
    if stateful:
        raise RecorderMisuse(
            f"{stateful[0]} keeps a state that the Trainer shows to no other callback: a "
            "training with it can be recorded, but not gone on from a checkpoint"
        )
    if args.world_size > 1:
        raise RecorderMisuse("resume=True takes a single process", found=args.world_size)
    if args.load_best_model_at_end:
        raise RecorderMisuse(
            "resume=True does not know earlier best models (load_best_model_at_end)"
        )
    accumulated = args.gradient_accumulation_steps
    if accumulated > 1 and (not hasattr(loader, "__len__") or len(loader) % accumulated):
        raise RecorderMisuse(
            "the last update of an epoch takes fewer batches than the others, and the Trainer "
            "would not find it after a checkpoint",
            expected=f"a number of batches that {accumulated} divides",
        )
