"""Perturber: carry out one declared change on a restored session, and nothing else."""

from __future__ import annotations

from auditkit.observe.rng.streams import GlobalStreams, capture_streams
from auditkit.perturbations.registry import perturbation_of
from auditkit.program.session import Session
from auditkit.records.declaration import matches
from auditkit.records.plan import PerturbationSpec


def perturb(session: Session, spec: PerturbationSpec | None) -> None:
    """Apply a perturbation; None changes nothing.

    Global streams that the perturbation does not declare are put back afterwards, so that a
    perturbation that draws cannot leak into training.

    Raises:
        UnknownPerturbation: When there is none of that name.
        NothingToPerturb: When the program has nothing that it could change.
    """
    if spec is None:
        return
    perturbation = perturbation_of(spec.name)
    complete = perturbation.declaration.resolve(spec)
    streams = capture_streams()
    perturbation.apply(session.objects, complete.parameters, session.seed)
    touched = perturbation.declaration.touches(complete)
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
