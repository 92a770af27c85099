"""Whether a program's augmentation may go into a study under per-sample streams."""

from __future__ import annotations

from auditkit.errors import AugmentationDrift
from auditkit.observe.state.augmentation import BrokenPromise, examine
from auditkit.program.session import Session


def require_per_sample(session: Session, *, moves: bool) -> None:
    """Require samples to look the same whenever they are loaded.

    Without an order perturbation, in one process, a registered generator may as well follow the
    position: every branch has the same positions. What workers keep, no snapshot holds.

    Args:
        session: The live program, before it trains.
        moves: Whether a branch moves samples to other positions.

    Raises:
        AugmentationDrift: Naming the sample, and the generators that moved.
    """
    program = session.program
    if not moves and not program.data_loader.num_workers:
        return
    broken = examine(program.data_loader, session.seed, program.sample_generators)
    if broken is not None:
        raise AugmentationDrift(
            f"sample {broken.index} of epoch 0 does not look the same when it is loaded again"
            + "".join(f"; {path} is {kind}" for path, kind in broken.generators.items()),
            component="batch",
            expected="what follows from (seed, epoch, index) alone",
            found=_found(broken),
            hint=_HINT,
        )


_HINT = (
    "draw from random, numpy.random or torch, which are seeded for every sample; or make the "
    "generators in the data set's __init__, and let each follow the sample: extras={'rng': "
    "auditkit.PerSample(dataset.rng)}"
)


def _found(broken: BrokenPromise) -> str:
    if broken.generators:
        return "a generator that follows the position"
    return "something that counts, or that no seed decides"
