"""Perturber: carry out one declared change on a restored session, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from auditkit.errors import AuditError, PlanError
from auditkit.observe.rng.streams import GlobalStreams, capture_streams
from auditkit.observe.state.attributes import OPTIMIZER
from auditkit.observe.state.components import optimizer_state
from auditkit.observe.state.groups import GROUPS
from auditkit.observe.values.codec import flatten, unflatten
from auditkit.observe.values.digests import digest_leaves
from auditkit.perturbations.base import Material
from auditkit.perturbations.registry import perturbation_of
from auditkit.program.program import program_failure
from auditkit.program.recalibration import recalibrate
from auditkit.program.session import Session
from auditkit.program.untouched import MACHINERY, machinery
from auditkit.records.declaration import matches
from auditkit.records.digest import EVIDENCE_RECIPE
from auditkit.records.plan import PerturbationSpec


def perturb(
    session: Session,
    spec: PerturbationSpec | None,
    version: int | None = None,
    recalibration: Sequence[Any] = (),
) -> tuple[str, ...]:
    """Apply a perturbation; None changes nothing.

    Global streams that the perturbation does not declare are put back afterwards, so that a
    perturbation that draws cannot leak into training.

    Args:
        session: The restored session.
        spec: The perturbation.
        version: Of it, where an earlier study is replayed; None for the current one.
        recalibration: The control's first batches.

    Returns:
        What it changed in the optimizer's groups and plain attributes, by path.

    Raises:
        UnknownPerturbation: When there is none of that name and version.
        NothingToPerturb: When the program has nothing that it could change.
        PlanError: When it attaches code, which would go on after t0.
        ProgramFailed: When it raises.
    """
    if spec is None:
        return ()
    perturbation = perturbation_of(spec.name, version)
    complete = perturbation.declaration.resolve(spec)
    streams, before = capture_streams(), _counters(session)
    attached = machinery(session.objects)
    try:
        material = Material(session.rebuild, _recalibrator(session, recalibration))
        perturbation.apply_with(session.objects, complete.parameters, session.seed, material)
    except AuditError:
        raise
    except Exception as error:  # whatever somebody else's code raises is reported as ours
        raise program_failure(error, f"applying {spec.typed}") from error
    if machinery(session.objects) != attached:
        raise PlanError(
            f"{spec.typed} changes {MACHINERY}: what it does would go on after t0",
            hint="a perturbation changes the state at t0, and leaves the program's code as it is",
        )
    touched = perturbation.declaration.may_touch(complete)
    drawn = capture_streams()
    kept = {
        field: getattr(drawn if matches(f"rng/{field}", touched) else streams, field)
        for field in ("python", "numpy", "torch")
    }
    cuda = {
        index: drawn.cuda[index] if matches(f"rng/cuda:{index}", touched) else state
        for index, state in streams.cuda.items()
    }
    GlobalStreams(**kept, cuda=cuda).restore()
    after = _counters(session)
    return tuple(sorted(p for p in {*before, *after} if before.get(p) != after.get(p)))


def _recalibrator(session: Session, batches: Sequence[Any]) -> Callable[[], None] | None:
    return partial(recalibrate, session.program, batches) if batches else None


def _counters(session: Session) -> dict[str, bytes]:
    """Digest of every group entry and changed attribute of the optimizer, by path."""
    state = {**optimizer_state(session.objects), **session.attributes()}
    found: dict[str, bytes] = {}
    for component, leaves in state.items():
        if component == OPTIMIZER:
            for path, value in unflatten(leaves)["values"].items():
                found[path] = _digest(value)
        elif component.partition("/")[0] == GROUPS:
            for number, group in enumerate(unflatten(leaves)):
                for name, value in group.items():
                    found[f"{component}[{number}].{name}"] = _digest(value)
    return found


def _digest(value: object) -> bytes:
    return digest_leaves(EVIDENCE_RECIPE, flatten(value, where="counter"))
