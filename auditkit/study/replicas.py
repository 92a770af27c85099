"""Whether a study is its own counterexample: a replica, or ``carry``, that is not the control."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from auditkit.errors import NothingToPerturb, ReplicaMismatch
from auditkit.files import store
from auditkit.formats.outcome_names import outcome_differences
from auditkit.formats.run_files import outcome_from_tensors, trace_from_tensors
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.evidence import Trace
from auditkit.records.manifest import BranchRecord, StudyManifest
from auditkit.records.opened import some_names
from auditkit.records.planned_declarations import declarations_of


@dataclass(frozen=True)
class PartedBranch:
    """A branch that nothing was changed in, and that parts from its control all the same.

    Attributes:
        seed: The study seed.
        branch: ``replica``, or the treatment that carries over.
        step: The first step whose row differs.
        components: What differs in it.
        folder: As ``auditkit diff`` takes it behind ``#``: seed, and fork where there are several.
    """

    seed: int
    branch: str
    step: int
    components: tuple[str, ...]
    folder: str


def parted_branches(folder: Path, manifest: StudyManifest) -> Iterator[PartedBranch]:
    """Compare the branches that must equal their control with it, row by row.

    Args:
        folder: Of the finished study.
        manifest: Its manifest.
    """
    for seed in manifest.seeds:
        same = [branch for branch in seed.branches[1:] if _changes_nothing(branch)]
        control = _trace(folder, seed.branches[0]) if same else None
        _, mark, fork = seed.fork.partition("/")[0].partition("-fork-")
        where = f"seed-{seed.seed}{mark}{fork}"
        for branch in same:
            found = _trace(folder, branch).first_difference(control) if control else None
            if found is not None:
                yield PartedBranch(seed.seed, branch.name, found.step, found.components, where)
            elif others := _other_outcomes(folder, seed.branches[0], branch):
                yield PartedBranch(seed.seed, branch.name, manifest.plan.horizon, others, where)


def refuse_parted_branches(
    folder: Path,
    manifest: StudyManifest,
    moved: Sequence[str] = (),
    changed: Callable[[], Sequence[str]] = tuple,
) -> None:
    """Say at once what check 9 would say after a replay.

    Args:
        folder: Of the finished study.
        manifest: Its manifest.
        moved: What the program's code keeps where no snapshot looks, and had changed.
        changed: Looks which files that the program opened have changed since.

    Raises:
        ReplicaMismatch: When a branch parts from its control without a reason.
    """
    parted = list(parted_branches(folder, manifest))
    if not parted:
        return
    first, others = parted[0], len(parted) - 1
    also = f" (also {', '.join(first.components[1:])})" if first.components[1:] else ""
    more = f"; {others} more such {'branch' if others == 1 else 'branches'}" if others else ""
    run, kept = f"{folder}#{first.folder}", ""
    if moved:
        kept = f"while the control was trained these changed: {', '.join(moved)}"
    data = some_names(changed())
    raise ReplicaMismatch(
        f"this run will not verify: seed {first.seed}, {first.branch} is not what the control "
        f"is{more}; either the kernels are not deterministic, or the program keeps state that no "
        f"snapshot holds{f' ({kept})' if kept else ''}"
        f"{f'; {data} changed while the study ran' if data else ''}",
        step=first.step,
        component=f"{first.components[0]}{also}",
        hint=f"the files are kept: `auditkit diff {run}/control {run}/{first.branch}`, and "
        "`auditkit doctor` looks for the cause",
    )


def refuse_unchanged_data(folder: Path, manifest: StudyManifest) -> None:
    """Say at once what check 7 would say of a change of data that changed none.

    Raises:
        NothingToPerturb: Naming it.
    """
    plan = manifest.plan
    declarations = declarations_of(plan, DECLARATIONS)  # of a plug-in's nothing is known here
    window = range(plan.fork_at + 1, plan.window_end + 1)
    for seed in manifest.seeds:
        control = None
        for branch in seed.branches[1:]:
            spec = branch.perturbation
            declared = None if spec is None else declarations.get(spec.name)
            if spec is None or declared is None or declared.kind != "data":
                continue
            control = control or _trace(folder, seed.branches[0])
            trace = _trace(folder, branch)
            if all(trace.cell(step, "batch") == control.cell(step, "batch") for step in window):
                raise NothingToPerturb(
                    f"this run will not verify: seed {seed.seed}, {spec.typed} changed no byte of "
                    f"the batches of steps {window[0]} to {window[-1]}",
                    hint="leave it out of the plan, or let it change something there",
                )


def _other_outcomes(folder: Path, control: BranchRecord, branch: BranchRecord) -> tuple[str, ...]:
    """Tables and measures of a branch whose states are the control's that are other ones."""
    here, there = (
        outcome_from_tensors(store.read_tensors(folder / one.outcome, what=one.outcome)[0], what="")
        for one in (control, branch)
    )
    return tuple(f"outcome {name}" for name in outcome_differences(here.tables, there.tables))


def _changes_nothing(branch: BranchRecord) -> bool:
    spec = branch.perturbation if branch.broken is None else None
    return branch.role == "replica" or (spec is not None and spec.name == "carry")


def _trace(folder: Path, branch: BranchRecord) -> Trace:
    tensors, _ = store.read_tensors(folder / branch.trace, what=branch.trace)
    return trace_from_tensors(tensors, what=branch.trace)
