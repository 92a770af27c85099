"""From the probe tables of a run to its estimates, fork by fork."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from auditkit.evidence.reader import RunEvidence
from auditkit.formats.run_files import Outcome
from auditkit.records.estimate import EstimateTable
from auditkit.records.fork_points import views
from auditkit.records.plan import StudyPlan
from auditkit.statistics.fork_tables import joined
from auditkit.statistics.near_copies import near_copies
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes
from auditkit.statistics.positions import position_tables
from auditkit.study.divergence import told_divergence
from auditkit.verification.own_data import labelled
from auditkit.verification.several_forks import fork_runs, own_names

__all__ = ["Estimator", "branch_tables", "estimates", "near_copies", "why_no_pair"]

Estimator = Callable[[Sequence[SeedOutcomes], StudyPlan], EstimateTable]


def estimates(
    run: RunEvidence,
    estimator: Estimator,
    recomputed: Mapping[tuple[int, str], Outcome],
    departed: Mapping[str, int],
) -> EstimateTable:
    """The estimates of every fork, as one table.

    Args:
        run: The run.
        estimator: Estimates one fork.
        recomputed: Outcomes from replay by seed and branch; recorded ones stand in elsewhere.
        departed: In how many seeds a branch consumed other data than the control, where any did.
    """
    tables = {}
    for one in fork_runs(run):
        own = {
            (seed, name): outcome
            for (seed, given), outcome in recomputed.items()
            for name in own_names([given], one, run)
        }
        counts = {
            name: count
            for given, count in departed.items()
            for name in own_names([given], one, run)
        }
        table = estimator(branch_tables(one, own), one.manifest.plan)
        tables[one.manifest.plan.fork_at] = labelled(table, counts, one)
    plan = run.manifest.plan
    return joined(tables, plan) if plan.further_forks else tables[plan.fork_at]


def why_no_pair(run: RunEvidence, table: EstimateTable) -> str | None:
    """Which controls and treatments diverged, and from which step on; None where a pair is left."""
    if any(row.n for row in table.rows):
        return None
    told = [
        f"after step {view.plan.fork_at} {text}" if run.manifest.plan.further_forks else text
        for view in views(run.manifest)
        if (text := told_divergence(view.seeds, ("control", "treatment")))
    ]
    told += [note for note in table.notes if "is not finite" in note]
    return f"no pair is left: every control or treatment diverged: {'; '.join(told)}"


def branch_tables(
    run: RunEvidence, recomputed: Mapping[tuple[int, str], Outcome]
) -> list[SeedOutcomes]:
    """The probe tables of a run as the estimator takes them.

    Args:
        run: The run.
        recomputed: Outcomes from replay by seed and branch; recorded ones stand in elsewhere.
    """
    found, observed = [], run.manifest.program.observed
    for record in run.manifest.seeds:
        tables = {}
        for branch in record.branches:
            outcome = recomputed.get((record.seed, branch.name)) or run.outcome(branch)
            named = position_tables(outcome.tables)
            tables[branch.name] = BranchTables(named, branch.diverged_at)
            labels = {name: outcome.labels_of(name) for name in observed.probes}
        plan = run.manifest.plan
        found.append(
            SeedOutcomes(
                seed=record.seed,
                labels=labels,
                control=tables["control"],
                placebos=tuple(tables[name] for name in plan.placebo_names),
                treatments={name: tables[name] for name in plan.treatment_names},
                observed=observed,
                broken={name: tables[name] for name in plan.broken_names},
            )
        )
    return found
