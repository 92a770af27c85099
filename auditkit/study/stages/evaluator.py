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

from auditkit.errors import AuditError, ProbeDisturbance, ProgramError, RestoreMismatch
from auditkit.formats.outcome_names import (
    RECALIBRATED,
    column_name,
    is_distance,
    measure_name,
    table_name,
)
from auditkit.observe.rng.streams import capture_streams, seed_everything
from auditkit.observe.state.modules import has_batchnorm
from auditkit.program.observables import Measure, probe_on
from auditkit.program.probe import Probe
from auditkit.program.program import Program, program_failure
from auditkit.program.real_outputs import real_table
from auditkit.program.real_probabilities import require_probabilities
from auditkit.program.recalibration import batchnorm_layers, recompute
from auditkit.program.reference import Reference
from auditkit.program.session import Session
from auditkit.program.streamed_probe import Beside, look_by_position
from auditkit.program.untouched import fingerprint, require_untouched
from auditkit.records.observed import POSITION_RECIPE
from auditkit.records.output_kinds import CLASSES

Tables = dict[str, NDArray[Any]]

MEASURING = "a measure"

_REMEDIES = {
    "evaluating the probe": "where the model itself writes, let it call a copy.deepcopy of it",
    MEASURING: "let it work on copies",
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
    has_forward = (program.recalibrate or program.loss) is not None
    return has_forward and any(map(has_batchnorm, _probed(program)))


def evaluate_probe(
    session: Session,
    recalibration: Sequence[Any],
    reference: Reference | None = None,
    recipe: int = POSITION_RECIPE,
) -> Tables:
    """Class probabilities on the probe.

    Args:
        session: The live program; its training state is the same afterwards.
        recalibration: The control's first batches; empty for no recalibrated table.
        reference: Of a probe that is looked at by position: the control at this time, to compare
            with it, or an empty one, which is then what this branch is.
        recipe: How what is kept of such a probe is computed.

    Returns:
        ``""``: float32 ``(N, C)`` as is; ``/recalibrated``: the same with BatchNorm statistics
        recomputed as the cumulative average over ``recalibration``. Of a probe that is looked at
        by position these are columns, ``:tv`` and so on; of named probes ``@NAME``; of measures
        ``=NAME``, see :mod:`auditkit.formats.outcome_names`.

    Raises:
        ProbeDisturbance: When evaluating changed the training state.
        ProgramError: When the probe gives no table of class scores.
    """
    before = fingerprint(session)
    with _without_trace(session):
        tables = _tables(session, "", reference, recipe)
    _compare(before, fingerprint(session), "evaluating the probe", "Probe.predict")
    for name, measure in session.program.named_measures.items():
        with _without_trace(session, every=True):
            tables[measure_name("", name)] = _measured(session, name, measure, tables)
        _compare(before, fingerprint(session), MEASURING, f"measure {name}")
    if recalibration and session.program.named_probes:
        with _without_trace(session), _recalibrated(session, recalibration):
            tables |= _tables(session, RECALIBRATED, reference, recipe)
        what = "recalibrate=" if session.program.recalibrate else "loss="
        _compare(before, fingerprint(session), "recalibrating BatchNorm", what)
    return tables


def has_non_finite(tables: Tables) -> bool:
    """Whether a table holds a probability that is not finite; distances are of two branches."""
    return any(
        not np.isfinite(table).all() for name, table in tables.items() if not is_distance(name)
    )


def _tables(session: Session, variant: str, reference: Reference | None, recipe: int) -> Tables:
    """The table of every probe, or the columns of it."""
    beside = Beside(session.seed, reference, recipe)
    found: Tables = {}
    for name, probe in session.program.named_probes.items():
        module = session.program.probed(probe)
        if not name or not variant or has_batchnorm(module):
            found |= _table(module, probe, table_name("", name, variant), beside)
    return found


def _table(module: nn.Module, probe: Probe, table: str, beside: Beside) -> Tables:
    try:
        if not probe.by_position:
            parts = (probe.scores(module, part) for part in probe.parts())
            first = next(parts)
            if probe.outputs != CLASSES:
                whole = real_table(probe, torch.cat([first, *parts]))
                return {column_name(table, probe.outputs): whole}
            if probe.labels is not None or first.ndim != 3:
                return {table: _probabilities(probe, torch.cat([first, *parts]))}
        return look_by_position(module, probe, table, beside)
    except (ProgramError, ProbeDisturbance, RestoreMismatch):
        raise
    except Exception as error:
        raise program_failure(error, "evaluating the probe") from error


def _measured(session: Session, name: str, measure: Measure, tables: Tables) -> NDArray[np.float64]:
    """A measure, float64 ``(1,)``."""
    seed_everything(session.seed, "measure", name)
    on = probe_on(measure, session.program.named_probes)
    try:
        if on is None:
            return np.array([measure.value(name, session.program)])
        return _measured_on(session.program.named_probes[on], on, name, measure, tables)
    except AuditError:
        raise
    except Exception as error:
        raise program_failure(error, f"measure {name}") from error


def _measured_on(
    probe: Probe, on: str, name: str, measure: Measure, tables: Tables
) -> NDArray[np.float64]:
    """A measure of what a probe gave, as it is kept."""
    table = table_name("", on)
    if probe.outputs != CLASSES:
        table = column_name(table, probe.outputs)
    if table not in tables:
        raise ProgramError(
            f"measure {name} is on a probe that is looked at by position, of which no whole table "
            "is kept",
            hint="give a measure of the program: Measure(fn) with fn(program)",
        )
    if not np.isfinite(tables[table]).all():  # the branch has diverged, and this with it
        return np.array([np.nan])
    labels = None if probe.labels is None else probe.labels.clone()
    value = measure.value(name, torch.from_numpy(tables[table].copy()), labels)
    if not np.isfinite(value):
        raise ProgramError(f"measure {name} is {value} where all outputs of the probe are finite")
    return np.array([value])


def _probed(program: Program) -> list[nn.Module]:
    """What the probes ask, each once."""
    asked = [program.probed(probe) for probe in program.named_probes.values()]
    return list({id(module): module for module in asked}.values())


def _probabilities(probe: Probe, scores: Tensor) -> NDArray[np.float32]:
    n_rows = len(scores) if probe.labels is None else len(probe.labels)
    as_many = "" if probe.labels is None else f", a row for each of its {n_rows} labels"
    if scores.ndim != 2 or len(scores) != n_rows or scores.shape[1] < 2:
        raise ProgramError(
            "the probe must give one row of class scores an example",
            expected=f"({n_rows}, C) with C of at least 2{as_many}",
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
    if probe.probabilities:
        require_probabilities(wide)
    return (wide if probe.probabilities else wide.softmax(dim=1)).to(torch.float32).numpy()


@contextmanager
def _without_trace(session: Session, *, every: bool = False) -> Iterator[None]:
    """What is probed in evaluation mode; afterwards every stream and flag as it was.

    Args:
        session: The live program.
        every: Whether the model and every average are, asked or not.
    """
    streams = capture_streams()
    objects = session.objects
    held = (objects.model, *objects.averaged.values(), *objects.extras.values())
    modules = [module for module in held if isinstance(module, nn.Module)]
    flags = {id(layer): (layer, layer.training) for module in modules for layer in module.modules()}
    program = session.program
    for module in (program.model, *program.averaged.values()) if every else _probed(program):
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for layer, training in flags.values():
            layer.training = training
        streams.restore()


@contextmanager
def _recalibrated(session: Session, batches: Sequence[Any]) -> Iterator[None]:
    """BatchNorm statistics of the current weights over fixed batches; afterwards as they were."""
    program = session.program
    probed = [module for module in _probed(program) if has_batchnorm(module)]
    saved = [
        (buffer, buffer.clone())
        for module in probed
        for layer in batchnorm_layers(module)
        for buffer in layer.buffers()
    ]
    try:
        recompute(program, probed, batches)
        yield
    finally:
        for buffer, value in saved:
            buffer.copy_(value)


def _compare(before: dict[str, bytes], after: dict[str, bytes], doing: str, culprit: str) -> None:
    hint = f"{culprit} must not train, draw or write; {_REMEDIES[doing]}"
    require_untouched(before, after, doing, hint)
