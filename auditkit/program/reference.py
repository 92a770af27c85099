"""What the branches of a seed are set beside where tables are too large to keep: the control again.

At each time the control leaves the weights of what its probe asked, with what it gave. A branch
asks the same module twice, with its own weights and with these, and keeps how far apart the answers
are. What the control gave must come out once more, bit for bit: so the distances are from the
control itself, and from nothing that was given in its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from auditkit.errors import ProbeDisturbance
from auditkit.files import store
from auditkit.observe.values.codec import Leaves, pack, unpack
from auditkit.observe.values.digests import digest_leaves
from auditkit.program.swapping import Weights, fitted, swapped, weights_of
from auditkit.records.digest import EVIDENCE_RECIPE

#: Section of the file that holds what the control gave.
_GIVEN = "given"


@dataclass
class Reference:
    """The control at one time.

    Attributes:
        weights: Of each module that a probe asked, by its key.
        given: The columns of its tables, by name.
        complete: Whether all of it is there, so that others can be compared with it.
    """

    weights: dict[str, Leaves] = field(default_factory=dict)
    given: dict[str, NDArray[Any]] = field(default_factory=dict)
    complete: bool = False
    _fitted: dict[str, Weights] = field(default_factory=dict, repr=False)

    def keep(self, key: str, module: nn.Module) -> None:
        """Keep a module's weights as they are now."""
        if key not in self.weights:
            live = weights_of(module).items()
            self.weights[key] = {name: tensor.detach().clone() for name, tensor in live}

    @contextmanager
    def asked(self, key: str, module: nn.Module) -> Iterator[None]:
        """The module with the control's weights."""
        with swapped(module, self._fit(key, module)):
            yield

    def is_now(self, key: str, module: nn.Module) -> bool:
        """Whether the module has the control's weights, bit for bit: it need not be asked twice.

        That what is asked depends on nothing else is still seen by :meth:`require_given`.
        """
        there = self._fit(key, module)
        return all(_bits(live) == _bits(there[name]) for name, live in weights_of(module).items())

    def _fit(self, key: str, module: nn.Module) -> Weights:
        if key not in self._fitted:
            self._fitted[key] = fitted(module, self.weights[key])  # type: ignore[arg-type]
        return self._fitted[key]

    def require_given(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Require the control to give again what it gave in its own process.

        Raises:
            ProbeDisturbance: When it gives something else.
        """
        for name, column in columns.items():
            there = self.given.get(name)
            if there is None or there.tobytes() != column.tobytes():
                raise ProbeDisturbance(
                    "with the control's weights the probe does not give what it gave in the "
                    "control",
                    component=f"probe {name}",
                    hint="Probe.predict must depend on the model that it is given, on the inputs "
                    "and on nothing else that training changes",
                )


@dataclass(frozen=True)
class References:
    """Where the control leaves them: working files, which are removed when the seed is complete.

    Attributes:
        folder: Their folder.
    """

    folder: Path

    def write(self, time: str, reference: Reference) -> str:
        """Leave the control at one time; the name of its file."""
        name = reference_name(time)
        given = {key: torch.from_numpy(column) for key, column in reference.given.items()}
        tensors, meta = pack({**reference.weights, _GIVEN: given})
        store.write_tensors(self.folder / name, tensors, meta)
        return name

    def read(self, time: str) -> Reference | None:
        """The control at one time; None where it left nothing, as for a probe of whole tables."""
        name = reference_name(time)
        if not (self.folder / name).exists():
            return None
        sections: dict[str, Any] = dict(unpack(*store.read_tensors(self.folder / name, what=name)))
        given = {key: np.asarray(column) for key, column in sections.pop(_GIVEN).items()}
        return Reference(sections, given, complete=True)


def _bits(tensor: Tensor) -> bytes:
    """Zeros of another sign are other bits."""
    return digest_leaves(EVIDENCE_RECIPE, {"": tensor.detach()})


def reference_name(time: str) -> str:
    """Name of the working file of one time; it never has another."""
    return f"control-{time}.reference{store.PARTIAL}"
