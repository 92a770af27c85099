"""What becomes of a batch between the loader and the step: augmentation, and a change of the data.

Both are functions of the batch and the step; what they draw comes from (seed, step) alone, whether
from the generator that they are given or from the global streams, which are put back afterwards.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from auditkit.errors import AuditError
from auditkit.formats.seeds import derive_seed
from auditkit.observe.rng.streams import capture_streams, seed_sample
from auditkit.perturbations.data import Change, DataPerturbation, WindowBatch
from auditkit.program.program import Program, program_failure
from auditkit.records.plan import ParameterValue


@dataclass
class Supply:
    """Makes of what the loader delivers what the step consumes.

    Attributes:
        augment: The program's augmentation of whole batches, or None.
        changes: The program's own data changes by name.
        n_classes: Classes of the probe's labels.
        seed: The study seed.
    """

    augment: Change | None = None
    changes: Mapping[str, Change] = field(default_factory=dict)
    n_classes: int = 0
    seed: int = 0
    _perturbation: DataPerturbation | None = None
    _parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    _window: range = range(0)
    _sources: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, program: Program, seed: int) -> Supply:
        """The supply of a program."""
        labels = [one.known_labels for one in program.named_probes.values()]
        n_classes = max((int(one.max()) + 1 for one in labels if one.numel()), default=0)
        return cls(program.augment, program.data_changes, n_classes, seed)

    def begin(
        self,
        perturbation: DataPerturbation,
        parameters: Mapping[str, ParameterValue],
        window: range,
    ) -> None:
        """Let a perturbation change what the steps of a window consume."""
        self._perturbation, self._parameters, self._window = perturbation, parameters, window

    def keep_augmentation(self, sources: Mapping[int, int]) -> None:
        """Augment what these steps are delivered as at the steps that it comes from.

        Args:
            sources: By the step that consumes a batch, the step that the control consumed it at.
        """
        self._sources = sources

    def replaces(self, step: int) -> bool:
        """Whether a step consumes something else than what the loader delivers."""
        return self.augment is not None or step in self._window

    def is_watched(self, step: int) -> bool:
        """Whether the step is one of the window that a perturbation changes."""
        return self._perturbation is not None and step in self._window

    def __call__(self, step: int, delivered: Any) -> Any:
        """What a step consumes where this is delivered."""
        if step in self._window and self._perturbation is not None:
            return self.changed(step, delivered, self._perturbation, self._parameters)
        if self.augment is None:
            return delivered
        return self._augmented(delivered, self._sources.get(step, step))

    def changed(
        self,
        step: int,
        delivered: Any,
        perturbation: DataPerturbation,
        parameters: Mapping[str, ParameterValue],
    ) -> Any:
        """What a perturbation makes of what is delivered, which stays as it is."""
        batch = WindowBatch(
            delivered=copy.deepcopy(delivered),
            step=step,
            seed=self.seed,
            augment=None if self.augment is None else self._augmented,
            changes={
                name: partial(self._drawing, change, step, f"data change {name}")
                for name, change in self.changes.items()
            },
            n_classes=self.n_classes,
            drawing=lambda change, name, given: self._drawing(change, step, name, given),
        )
        return perturbation.change(batch, parameters)

    def _augmented(self, batch: Any, step: int) -> Any:
        assert self.augment is not None  # noqa: S101 # asked for where there is one
        return self._drawing(self.augment, step, "augment", batch)

    def _drawing(self, function: Change, step: int, name: str, batch: Any) -> Any:
        seed, streams = derive_seed(self.seed, "batch", name, step), capture_streams()
        generator = torch.Generator()
        generator.manual_seed(seed)
        seed_sample(seed)
        try:
            return function(batch, step, generator)
        except AuditError:
            raise
        except Exception as error:  # whatever the user's function raises
            raise program_failure(error, f"{name}, step {step}") from error
        finally:
            streams.restore()
