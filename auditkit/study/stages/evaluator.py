"""Evaluator: what a branch predicts on the probe, while it is held to its horizon.

Rules: the probe leaves no trace. Random streams, train/eval flags and BatchNorm buffers are put
back, and the state is digested before and after; a probe that changes anything else is an
error, not a nuisance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from auditkit.errors import AuditError, ProbeDisturbance, ProgramError, RestoreMismatch
from auditkit.formats.outcome_names import DISTANCE_COLUMNS, RECALIBRATED, split_column
from auditkit.observe.rng.streams import capture_streams
from auditkit.observe.state.attributes import ATTRIBUTES
from auditkit.observe.state.modules import has_batchnorm
from auditkit.observe.values.digests import digest_leaves
from auditkit.program.probe import Probe
from auditkit.program.program import Program, program_failure
from auditkit.program.reference import Reference
from auditkit.program.session import Session
from auditkit.program.streamed_probe import look_by_position
from auditkit.records.digest import EVIDENCE_RECIPE

Tables = dict[str, NDArray[Any]]

_REMEDIES = {
    "evaluating the probe": "where the model itself writes, let it call a copy.deepcopy of it",
    "recalibrating BatchNorm": "give a function that calls the model and does no more, as "
    "Program(recalibrate=...), or in a script as loss=",
}

#: How many of the control's first batches BatchNorm is recalibrated on.
RECALIBRATION_BATCHES = 16


def needs_recalibration(session: Session) -> bool:
    """Whether outcomes are also given with recalibrated BatchNorm statistics."""
    program = session.program
    if program.loader is None:  # there are no batches that were delivered
        return False
    return has_batchnorm(program.probed) and (program.recalibrate or program.loss) is not None


def evaluate_probe(
    session: Session, recalibration: Sequence[Any], reference: Reference | None = None
) -> Tables:
    """Class probabilities on the probe.

    Args:
        session: The live program; its training state is the same afterwards.
        recalibration: The control's first batches; empty for no recalibrated table.
        reference: Of a probe that is looked at by position: the control at this time, to compare
            with it, or an empty one, which is then what this branch is.

    Returns:
        ``""``: float32 ``(N, C)`` as is; ``/recalibrated``: the same with BatchNorm statistics
        recomputed as the cumulative average over ``recalibration``. Of a probe that is looked at
        by position these are columns, ``:tv`` and so on.

    Raises:
        ProbeDisturbance: When evaluating changed the training state.
        ProgramError: When the probe gives no table of class scores.
    """
    before = _fingerprint(session)
    with _without_trace(session):
        tables = _tables(session, "", reference)
    _compare(before, _fingerprint(session), "evaluating the probe", "Probe.predict")
    if recalibration:
        with _without_trace(session), _recalibrated(session, recalibration):
            tables |= _tables(session, RECALIBRATED, reference)
        what = "recalibrate=" if session.program.recalibrate else "loss="
        _compare(before, _fingerprint(session), "recalibrating BatchNorm", what)
    return tables


def has_non_finite(tables: Tables) -> bool:
    """Whether a table holds a probability that is not finite; distances are of two branches."""
    return any(
        not np.isfinite(table).all()
        for name, table in tables.items()
        if split_column(name)[1] not in DISTANCE_COLUMNS
    )


def _tables(session: Session, variant: str, reference: Reference | None) -> Tables:
    """A probe's table, or the columns of one."""
    program, probe = session.program, session.program.probe
    assert probe is not None  # noqa: S101 # checked when the program was built
    try:
        if not probe.by_position:
            parts = (probe.scores(program.probed, part) for part in probe.parts())
            first = next(parts)
            if probe.labels is not None or first.ndim != 3:
                return {variant: _probabilities(probe, torch.cat([first, *parts]))}
        return look_by_position(program.probed, probe, session.seed, variant, reference)
    except (ProgramError, ProbeDisturbance, RestoreMismatch):
        raise
    except Exception as error:
        raise program_failure(error, "evaluating the probe") from error


def _probabilities(probe: Probe, scores: Tensor) -> NDArray[np.float32]:
    n_rows = len(scores) if probe.labels is None else len(probe.labels)
    if scores.ndim != 2 or len(scores) != n_rows or scores.shape[1] < 2:
        raise ProgramError(
            "the probe must give one row of class scores an example",
            expected=f"({n_rows}, C) with C of at least 2",
            found=f"{tuple(scores.shape)}",
            hint="give Probe(predict=...) for models that return something else",
        )
    if (
        probe.labels is not None
        and not 0 <= int(probe.labels.min()) <= int(probe.labels.max()) < scores.shape[1]
    ):
        raise ProgramError(
            "a probe label is no class index",
            expected=f"0 .. {scores.shape[1] - 1}",
            found=f"{int(probe.labels.min())} .. {int(probe.labels.max())}",
        )
    wide = scores.to("cpu", torch.float64)
    return (wide if probe.probabilities else wide.softmax(dim=1)).to(torch.float32).numpy()


@contextmanager
def _without_trace(session: Session) -> Iterator[None]:
    """What is probed in evaluation mode; afterwards every stream and flag as it was."""
    streams = capture_streams()
    objects = session.objects
    held = (objects.model, *objects.averaged.values(), *objects.extras.values())
    modules = [module for module in held if isinstance(module, nn.Module)]
    flags = {id(layer): (layer, layer.training) for module in modules for layer in module.modules()}
    session.program.probed.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for layer, training in flags.values():
            layer.training = training
        streams.restore()


@contextmanager
def _recalibrated(session: Session, batches: Sequence[Any]) -> Iterator[None]:
    """BatchNorm statistics of the current weights over fixed batches; only BatchNorm trains."""
    program = session.program
    layers = [layer for layer in program.probed.modules() if isinstance(layer, _BatchNorm)]
    saved = [
        (layer, layer.momentum, layer.training, [(b, b.clone()) for b in layer.buffers()])
        for layer in layers
    ]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # cumulative average
            layer.train()
        for batch in batches:
            _forward(program, batch)
        for layer in layers:
            layer.eval()
        yield
    finally:
        for layer, momentum, training, buffers in saved:
            layer.momentum, layer.training = momentum, training
            for buffer, value in buffers:
                buffer.copy_(value)


def _forward(program: Program, batch: Any) -> None:
    given = "recalibrate" if program.recalibrate else "loss"
    forward = program.recalibrate or program.loss
    assert forward is not None  # noqa: S101 # see needs_recalibration
    try:
        forward(program.probed, batch)
    except AuditError:
        raise
    except Exception as error:
        failure = program_failure(error, f"{given}(model, batch)")
        raise ProgramError(
            f"BatchNorm cannot be recalibrated: {failure.message}",
            where=failure.where,
            hint="it is given the model and a batch as the loader yields it; give a function that "
            "calls the model on it as Program(recalibrate=...), or leave loss= out",
        ) from error


def _fingerprint(session: Session) -> dict[str, bytes]:
    return {
        name: digest_leaves(EVIDENCE_RECIPE, leaves)
        for name, leaves in session.state().items()
        if not name.startswith(ATTRIBUTES)  # a layer may count its calls, or keep its last output
    }


def _compare(before: dict[str, bytes], after: dict[str, bytes], doing: str, culprit: str) -> None:
    for name in sorted(set(before) | set(after)):
        if before.get(name) != after.get(name):
            raise ProbeDisturbance(
                f"{doing} changed the training state",
                component=name,
                hint=f"{culprit} must not train, draw or write; {_REMEDIES[doing]}",
            )
