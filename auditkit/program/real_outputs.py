"""Probes of real numbers: what their targets may be, and the table that their outputs make."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from auditkit.errors import ProgramError
from auditkit.formats.quote import class_of
from auditkit.records.output_kinds import CLASSES, EMBEDDING, KINDS, REGRESSION, OutputKindName
from auditkit.records.plan_values import shown
from auditkit.statistics.embeddings import FEWEST_EXAMPLES
from auditkit.statistics.metrics import ROW_SUM_TOLERANCE

_LARGEST = float(np.finfo(np.float32).max)

_AS_CLASSES = "class probabilities are of Probe(outputs='classes', probabilities=True)"


class RealProbe(Protocol):
    """A probe, as far as this module looks at it."""

    @property
    def outputs(self) -> OutputKindName:
        """Its kind."""

    @property
    def targets(self) -> Tensor | None:
        """What is right."""

    @property
    def n_rows(self) -> int | None:
        """N, where it is known."""


def check_kind(outputs: object, *, probabilities: object) -> None:
    """Refuse a kind of outputs that there is not, and probabilities that are to be real numbers.

    Raises:
        ProgramError: Naming what does not fit.
    """
    if not isinstance(outputs, str) or outputs not in KINDS:
        raise ProgramError(
            "Probe.outputs is no kind of outputs", expected=" or ".join(KINDS), found=shown(outputs)
        )
    if not isinstance(probabilities, (bool, np.bool_)):
        raise ProgramError(f"Probe.probabilities is True or False, not {shown(probabilities)}")
    if probabilities and outputs != CLASSES:
        raise ProgramError(f"Probe(probabilities=True) has outputs={outputs!r}", hint=_AS_CLASSES)


def as_tensor(given: object, what: str) -> Tensor:
    """Labels or targets as a tensor.

    Raises:
        ProgramError: When they are nothing that one can be made of.
    """
    try:
        return torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ProgramError(
            f"the {what} of the probe are no tensor: {error}", found=class_of(given)
        ) from error


def checked_targets(labels: object, outputs: str) -> Tensor | None:
    """What is right for a probe of real numbers, float64 ``(N, D)``.

    Raises:
        ProgramError: When these are no finite floating-point numbers, one row an example.
    """
    if labels is None:
        return None
    if outputs == EMBEDDING:
        raise ProgramError(
            "an embedding has no targets: Probe(inputs, outputs='embedding')",
            hint="for what can be learned from it, let Probe(predict=...) classify, by its "
            "nearest neighbours, say",
        )
    targets = as_tensor(labels, "targets")
    if not targets.is_floating_point() or targets.ndim == 0 or targets.numel() == 0:
        raise ProgramError(
            "the targets of Probe(outputs='regression') must be real numbers, one row an example",
            expected="floating point (N,) or (N, ...)",
            found=f"{targets.dtype} {tuple(targets.shape)}",
            hint="give .float() where they count something; class indices are of "
            "outputs='classes', the default",
        )
    wide = targets.detach().to("cpu", torch.float64).flatten(1 if targets.ndim > 1 else 0)
    if not bool((wide.abs() <= _LARGEST).all()):
        raise ProgramError("a target of the probe is NaN, infinite or beyond float32")
    return wide if wide.ndim == 2 else wide.unsqueeze(1)


def real_table(probe: RealProbe, outputs: Tensor) -> NDArray[np.float32]:
    """The table of some outputs: float32 ``(N, D)``, whatever shape an example's have.

    Raises:
        ProgramError: When they are not one row an example, or no such outputs.
    """
    n_rows = len(outputs) if probe.n_rows is None and outputs.ndim else probe.n_rows
    if outputs.ndim < 1 or len(outputs) != n_rows or not outputs.is_floating_point():
        raise ProgramError(
            f"the probe must give one row of {KINDS[probe.outputs].told} an example",
            expected=f"floating point ({n_rows}, D)",
            found=f"{outputs.dtype} {tuple(outputs.shape)}",
            hint="give Probe(predict=...) for models that return something else",
        )
    wide = outputs.to("cpu", torch.float64).reshape(len(outputs), -1)
    if wide.shape[1] == 0 or len(wide) == 0:
        raise ProgramError(f"the probe gives outputs of width 0: {tuple(outputs.shape)}")
    if bool((wide.isfinite() & (wide.abs() > _LARGEST)).any()):
        raise ProgramError("the probe gives a number beyond float32, in which tables are kept")
    (_require_embedding if probe.outputs == EMBEDDING else _require_prediction)(probe, wide)
    return np.asarray(wide.to(torch.float32).numpy())


def _require_embedding(_: RealProbe, wide: Tensor) -> None:
    if len(wide) < FEWEST_EXAMPLES:
        raise ProgramError(
            "too few examples to compare embeddings on: two always lie on a line",
            expected=f"at least {FEWEST_EXAMPLES}",
            found=len(wide),
        )


def _require_prediction(probe: RealProbe, wide: Tensor) -> None:
    targets = probe.targets
    if targets is not None and targets.shape != wide.shape:
        raise ProgramError(
            "the probe does not predict one number a target",
            expected=f"{targets.shape[1]} an example",
            found=f"{wide.shape[1]}",
            hint="give Probe(predict=...) that returns the targets' shape",
        )
    if _are_probabilities(wide) and (targets is None or not _are_probabilities(targets)):
        raise ProgramError(
            f"outputs={REGRESSION!r}, but every row of the probe's outputs is not negative and "
            "sums to 1, as class probabilities do, and the targets' rows do not",
            hint=_AS_CLASSES,
        )


def _are_probabilities(wide: Tensor) -> bool:
    sums = (wide.sum(dim=1) - 1).abs() <= ROW_SUM_TOLERANCE
    return wide.shape[1] > 1 and bool((sums & (wide >= 0).all(dim=1)).all())
