"""Whether a study is its own counterexample: a replica, or ``carry``, that is not the control."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from auditkit.errors import ReplicaMismatch
from auditkit.files import store
from auditkit.formats.run_files import trace_from_tensors
from auditkit.records.evidence import Trace
from auditkit.records.manifest import BranchRecord, StudyManifest


@dataclass(frozen=True)
class PartedBranch:
    """A branch that nothing was changed in, and that parts from its control all the same.

    Attributes:
        seed: The study seed.
        branch: ``replica``, or the treatment that carries over.
        step: The first step whose row differs.
        components: What differs in it.
    """

    seed: int
    branch: str
    step: int
    components: tuple[str, ...]


def parted_branches(folder: Path, manifest: StudyManifest) -> Iterator[PartedBranch]:
    """Compare the branches that must equal their control with it, row by row.

    Args:
        folder: Of the finished study.
        manifest: Its manifest.
    """
    for seed in manifest.seeds:
        same = [branch for branch in seed.branches[1:] if _changes_nothing(branch)]
        control = _trace(folder, seed.branches[0]) if same else None
        for branch in same:
            found = _trace(folder, branch).first_difference(control) if control else None
            if found is not None:
                yield PartedBranch(seed.seed, branch.name, found.step, found.components)


def refuse_parted_branches(folder: Path, manifest: StudyManifest) -> None:
    """Say at once what check 9 would say after a replay.

    Raises:
        ReplicaMismatch: When a branch parts from its control without a reason.
    """
    parted = list(parted_branches(folder, manifest))
    if not parted:
        return
    first, others = parted[0], len(parted) - 1
    also = f" (also {', '.join(first.components[1:])})" if first.components[1:] else ""
    more = f"; {others} more such {'branch' if others == 1 else 'branches'}" if others else ""
    run = f"{folder}#seed-{first.seed}"
    raise ReplicaMismatch(
        f"this run will not verify: seed {first.seed}, {first.branch} is not what the control "
        f"is{more}; either the kernels are not deterministic, or the program keeps state that no "
        "snapshot holds",
        step=first.step,
        component=f"{first.components[0]}{also}",
        hint=f"the files are kept: `auditkit diff {run}/control {run}/{first.branch}`, and "
        "`auditkit doctor` looks for the cause",
    )


def _changes_nothing(branch: BranchRecord) -> bool:
    spec = branch.perturbation
    return branch.role == "replica" or (spec is not None and spec.name == "carry")


def _trace(folder: Path, branch: BranchRecord) -> Trace:
    tensors, _ = store.read_tensors(folder / branch.trace, what=branch.trace)
    return trace_from_tensors(tensors, what=branch.trace)
