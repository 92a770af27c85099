"""A study with several forks: each is judged as a study of its own, and their trunk is one.

Every fork has the whole trunk and its control on record. So beside what is checked of each, this
says whether they are the same trunk: steps, order, data and random streams of a seed are equal in
all of its forks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from auditkit.evidence.reader import RunEvidence, SeedEvidence
from auditkit.records.fork_points import at_fork, marked, of_fork, views
from auditkit.records.manifest import SeedRecord, StudyManifest
from auditkit.records.perturbation_spec import FORK_MARK
from auditkit.records.plan import StudyPlan
from auditkit.records.report import Finding

#: What a manifest says of a seed that no fork changes.
_OF_THE_TRUNK = ("seed", "order_sha256", "initial", "components", "data")


def fork_runs(run: RunEvidence) -> tuple[RunEvidence, ...]:
    """The study of each fork; of one fork, the study itself."""
    return tuple(RunEvidence(run.root, view, run.intact) for view in views(run.manifest))


def all_seeds(manifest: StudyManifest) -> tuple[SeedRecord, ...]:
    """The records of every seed and fork."""
    return tuple(record for view in views(manifest) for record in view.seeds)


def in_table(name: str, one: RunEvidence, run: RunEvidence) -> str:
    """A branch of one fork as replays and tables of the whole study name it."""
    plan = run.manifest.plan
    return marked(name, one.manifest.plan.fork_at) if plan.further_forks else name


def own_names(names: Iterable[str], one: RunEvidence, run: RunEvidence) -> tuple[str, ...]:
    """Those of such names that are one fork's, as it names them itself."""
    if not run.manifest.plan.further_forks:
        return tuple(names)
    return of_fork(names, one.manifest.plan.fork_at)


def is_replica(name: str) -> bool:
    """Whether a branch of any fork is the replica."""
    return name.partition(FORK_MARK)[0] == "replica"


def forks_note(plan: StudyPlan) -> str:
    """How many forks a seed has, where it has several."""
    return f" with {len(plan.forks)} forks each" if plan.further_forks else ""


def spelled_forks(plan: StudyPlan) -> str:
    """The steps after which the state is forked, in words."""
    steps = ", ".join(map(str, plan.forks))
    return f"steps {steps}" if plan.further_forks else f"step {steps}"


def check_listed_forks(run: RunEvidence) -> Iterator[Finding]:
    """Findings of check 4 about the list of forks: without them, nothing can be told apart."""
    manifest = run.manifest
    found = tuple(further.fork_at for further in manifest.further)
    if found != manifest.plan.further_forks:
        yield Finding("the forks are not the plan's", "plan")
    elif found and manifest.extends:
        yield Finding("seeds were added to a study with several forks, which no run does", "plan")


def check_one_trunk(runs: tuple[RunEvidence, ...]) -> Iterator[Finding]:
    """Findings of check 4 about the trunks and controls of forks that must be one."""
    first, *others = runs
    for other in others:
        fork = other.manifest.plan.fork_at
        for left, right in zip(first.manifest.seeds, other.manifest.seeds, strict=False):
            for name in _OF_THE_TRUNK:
                if getattr(left, name) != getattr(right, name):
                    text = f"the forks of a seed are not of one trunk: another {name}"
                    yield at_fork(Finding(text, f"seed {right.seed}"), fork)
            if _end(left) != _end(right):
                text = "the forks of a seed are not of one trunk: another state at T"
                yield at_fork(Finding(text, f"seed {right.seed}"), fork)
            for finding in _rows(first.seed(left), other.seed(right), first.manifest.plan.fork_at):
                yield at_fork(finding, fork)


def _end(record: SeedRecord) -> dict[str, str] | None:
    return record.branches[0].digests.get("T")


def _rows(left: SeedEvidence, right: SeedEvidence, first_fork: int) -> Iterator[Finding]:
    """The first row of which two forks of a seed have different ones."""
    parts = (
        (left.trunk, right.trunk, 1, first_fork + 1),
        (left.control, right.trunk, first_fork + 1, right.trunk.last_step + 1),
        (left.control, right.control, right.control.first_step, right.control.last_step + 1),
    )
    for here, there, start, stop in parts:
        for name in sorted(here.columns.keys() | there.columns.keys()):
            step = here.first_unequal(there, name, start, stop)
            if step is not None:
                text = "the forks of a seed are not of one trunk"
                yield Finding(text, f"seed {right.record.seed}", step, name)
                return
        lost = here.first_other_loss(there, start, stop)
        if lost is not None:
            text = "the forks of a seed are not of one trunk"
            yield Finding(text, f"seed {right.record.seed}", lost, "loss")
            return
