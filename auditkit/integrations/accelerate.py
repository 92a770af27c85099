"""Hugging Face Accelerate: what ``Recorder.wrap`` cannot find by itself.

What ``accelerator.prepare`` returns is given to ``Recorder.wrap`` as it is::

    model, optimizer, loader, scheduler = accelerator.prepare(...)
    with ak.Recorder("runs/exp1", seed=0) as rec:
        rec.wrap(model, optimizer, loader, scheduler=scheduler,
                 extras={"accelerator": Accumulation(accelerator)})

Wrap after ``prepare``: it builds a loader of its own, and one that was wrapped before is never
iterated.
"""

from __future__ import annotations

from typing import Any


class Accumulation:
    """How far gradient accumulation has come: state that only the Accelerator holds.

    Needed to resume from a checkpoint with ``gradient_accumulation_steps`` above 1; otherwise it
    does no harm.

    Args:
        accelerator: The ``accelerate.Accelerator``.
    """

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator

    def state_dict(self) -> dict[str, Any]:
        """The count of steps and whether the last one synchronised gradients."""
        accelerator = self._accelerator
        return {"step": accelerator.step, "sync_gradients": bool(accelerator.sync_gradients)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put both back."""
        self._accelerator.step = state_dict["step"]
        self._accelerator.gradient_state._set_sync_gradients(state_dict["sync_gradients"])
