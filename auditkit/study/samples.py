"""Whether order branches drew the control's samples with the control's looks, said at the run."""

from __future__ import annotations

from collections.abc import Mapping

from auditkit.errors import AugmentationDrift
from auditkit.files import store
from auditkit.files.run_folder import FinishedSeed, RunFolder
from auditkit.files.run_parts import present
from auditkit.formats.ordering import delivered_order
from auditkit.formats.run_files import order_from_tensors
from auditkit.formats.sample_digests import Window, augmentation_drift, samples_from_tensors
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import PerturbationSpec, StudyPlan
from auditkit.records.results import BranchesResult, TrunkResult
from auditkit.records.tensor import RawTensor


def require_same_samples(
    folder: RunFolder,
    plan: StudyPlan,
    seed: int,
    trunk: TrunkResult,
    branches: BranchesResult,
) -> None:
    """Say at once what check 6 would say: a sample that is moved keeps its looks.

    Args:
        folder: The run's folder; files have their final names where an earlier run was killed
            while it published.
        plan: The plan.
        seed: The seed.
        trunk: What the trunk's worker handed back.
        branches: What the branches' workers did.

    Raises:
        AugmentationDrift: Naming branch, step and sample.
    """
    measured = [branch for branch in branches.branches if branch.samples is not None]
    if not measured or trunk.control.samples is None:
        return

    def read(name: str) -> Mapping[str, RawTensor]:
        return store.read_tensors(folder.path / present(folder.path, name), what=name)[0]

    order = order_from_tensors(read(f"{folder.seed_name(seed)}/order.safetensors"), what="order")
    tail, difficulty = order.batches[plan.fork_at :], order.difficulty

    def window(name: str, spec: PerturbationSpec | None) -> Window:
        digests = samples_from_tensors(read(name), what=name)
        order = delivered_order(tail, spec, plan.window, seed, difficulty)
        return Window(order[: plan.window], digests)

    control = window(trunk.control.samples, None)
    for branch in measured:
        assert branch.samples is not None  # noqa: S101 # those were left out
        drift = augmentation_drift(control, window(branch.samples, branch.perturbation))
        if drift is not None:
            raise AugmentationDrift(
                str(drift),
                where=f"seed {seed}, {branch.name}",
                step=plan.fork_at + 1 + drift.offset,
                component="batch",
                hint="draw from random, numpy.random or torch, which are seeded for every sample; "
                "let a generator that the data set holds follow the sample: extras={'rng': "
                "auditkit.PerSample(dataset.rng)}; fill a cache when the data set is made. Where "
                "looks are to follow what was trained on before, say augmentation_rng='inherit'",
            )


def unmeasured_samples(plan: StudyPlan, finished: FinishedSeed) -> str | None:
    """What to say where nobody could look at the samples that order branches move."""
    names = {spec.name for spec in plan.perturbations}
    moves = any(DECLARATIONS[name].kind == "order" for name in names if name in DECLARATIONS)
    indexed = finished.trunk.data.samples is not None
    if plan.augmentation_rng != "per-sample" or not moves or not indexed:
        return None
    if finished.trunk.control.samples is not None:
        return None
    return (
        "the samples cannot be told apart before they are collated (objects of classes, a data set "
        "that is asked for whole batches, or a loader with an __iter__ of its own), so that nobody "
        "measured whether their augmentation follows (seed, epoch, index)"
    )
