"""A study with several forks: one trunk a seed, and at each fork a study of its own.

What is recorded of a fork is what a study of that fork alone would have recorded. So whatever
judges a study judges each of them by itself (:func:`views`), and branches are told apart by a mark
behind their name, ``momentum-reset/t0=40``, that no name of a branch can hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from auditkit.errors import PlanError
from auditkit.records.manifest import StudyManifest
from auditkit.records.perturbation_spec import FORK_MARK
from auditkit.records.plan import CONFIRMATORY, StudyPlan
from auditkit.records.report import Finding


def marked(name: str, fork: int) -> str:
    """The name of a branch, or of a time, with its fork."""
    return f"{name}{FORK_MARK}{fork}"


def of_fork(names: Iterable[str], fork: int) -> tuple[str, ...]:
    """Those names that are marked with a fork, without the mark."""
    mark = f"{FORK_MARK}{fork}"
    return tuple(name.removesuffix(mark) for name in names if name.endswith(mark))


def fork_of(name: str, plan: StudyPlan) -> int:
    """The fork that a name is marked with; the plan's first one where it is not."""
    _, _, fork = name.partition(FORK_MARK)
    return int(fork) if fork else plan.fork_at


def plans(plan: StudyPlan) -> tuple[StudyPlan, ...]:
    """The plan of each fork."""
    return tuple(plan.at(fork) for fork in plan.forks)


def treatments(plan: StudyPlan) -> tuple[str, ...]:
    """Names of the treatments as a table of estimates has them: marked where there are forks."""
    if not plan.further_forks:
        return plan.treatment_names
    return tuple(marked(name, fork) for fork in plan.forks for name in plan.treatment_names)


def level_times(plan: StudyPlan) -> tuple[str, ...]:
    """Names of the times at which the control is looked at, as a table of estimates has them."""
    if not plan.further_forks:
        return tuple(plan.probed)
    return (*(marked(CONFIRMATORY[0], fork) for fork in plan.forks), CONFIRMATORY[1])


def views(manifest: StudyManifest) -> tuple[StudyManifest, ...]:
    """The manifest of each fork, as a study of it alone; of one fork, the manifest itself.

    Files of other forks are left out of each, and no other.
    """
    if not manifest.plan.further_forks:
        return (manifest,)
    records = (manifest.seeds, *(further.seeds for further in manifest.further))
    names = [{name for record in seeds for name in record.file_names} for seeds in records]
    every = set().union(*names)
    return tuple(
        replace(
            manifest,
            plan=manifest.plan.at(fork),
            seeds=seeds,
            further=(),
            files=tuple(f for f in manifest.files if f.name in own or f.name not in every),
        )
        for fork, seeds, own in zip(manifest.plan.forks, records, names, strict=False)
    )


def at_fork(finding: Finding, fork: int) -> Finding:
    """A finding that says at which fork it was made."""
    where = f"t0={fork}" if finding.where is None else f"t0={fork}, {finding.where}"
    return replace(finding, where=where)


def require_one_fork(plan: StudyPlan, what: str) -> None:
    """Refuse a plan of several forks where only one can be.

    Args:
        plan: The plan.
        what: What cannot have several, as the beginning of a sentence.

    Raises:
        PlanError: When it has several.
    """
    if plan.further_forks:
        steps = ", ".join(map(str, plan.forks))
        raise PlanError(
            f"{what} takes one fork",
            found=f"fork_at={steps}",
            hint="make a study of each fork: --fork-at N, and an --out of its own",
        )
