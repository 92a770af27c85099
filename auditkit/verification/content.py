"""Checks 4, 5, 6, 7 and 9 over a whole run, one seed in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from auditkit.errors import AuditError
from auditkit.evidence.reader import RunEvidence, SeedEvidence
from auditkit.evidence.verdicts import as_finding
from auditkit.formats.run_files import Outcome
from auditkit.records.perturbation import Declaration
from auditkit.records.report import Finding
from auditkit.records.study import BranchRecord
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes
from auditkit.verification import consistency, order, rng_contract

Numbered = Iterator[tuple[int, Finding]]
Declarations = Mapping[str, Declaration]


def content_findings(run: RunEvidence, declarations: Declarations) -> Numbered:
    """Every finding of checks 4, 5, 6, 7 and 9, with its check's number."""
    manifest = run.manifest
    found_in_plan = list(_numbered(4, consistency.check_plan(manifest, declarations)))
    yield from found_in_plan
    yield from _numbered(5, rng_contract.check_contracts(manifest))
    if found_in_plan:
        return  # branches that are not the plan's cannot be told apart
    for record in manifest.seeds:
        seed = run.seed(record)
        yield from _numbered(4, consistency.check_trunk(seed, manifest.plan))
        yield from _numbered(6, order.check_control_order(seed, manifest.plan))
        yield from _numbered(7, order.check_fork(seed, manifest.plan))
        for branch in record.branches:
            yield from _branch_findings(run, seed, branch, declarations)


def branch_tables(
    run: RunEvidence, recomputed: Mapping[tuple[int, str], Outcome]
) -> list[SeedOutcomes]:
    """The probe tables of a run as the estimator takes them.

    Args:
        run: The run.
        recomputed: Outcomes from replay by seed and branch; recorded ones stand in elsewhere.
    """
    found = []
    for record in run.manifest.seeds:
        tables = {}
        for branch in record.branches:
            outcome = recomputed.get((record.seed, branch.name)) or run.outcome(branch)
            tables[branch.name] = BranchTables(outcome.tables, branch.diverged_at)
            labels = outcome.labels
        plan = run.manifest.plan
        found.append(
            SeedOutcomes(
                seed=record.seed,
                labels=labels,
                control=tables["control"],
                placebos=tuple(tables[name] for name in plan.placebo_names),
                treatments={name: tables[name] for name in plan.treatment_names},
            )
        )
    return found


def _branch_findings(
    run: RunEvidence, seed: SeedEvidence, branch: BranchRecord, declarations: Declarations
) -> Numbered:
    plan, is_control = run.manifest.plan, branch.role == "control"
    try:
        trace = seed.control if is_control else run.trace(branch.trace)
        outcome = seed.control_outcome if is_control else run.outcome(branch)
        seed.order  # noqa: B018 # read here, so that a bad file is one finding
    except AuditError as error:
        yield 4, as_finding(error)
        return
    yield from _numbered(
        4, consistency.check_branch(run, seed, branch, trace, outcome, declarations)
    )
    if is_control:
        return
    spec = branch.perturbation
    touched = declarations[spec.name].touches(spec) if spec else ()
    yield from _numbered(5, order.check_streams(seed, branch, touched))
    yield from _numbered(6, order.check_branch_order(seed, branch, trace, plan, declarations))
    yield from _numbered(7, order.check_touched(seed, branch, trace, plan, declarations))
    # carry changes nothing, so that whatever it shows has leaked from somewhere.
    if branch.role == "replica" or (spec is not None and spec.name == "carry"):
        yield from _numbered(9, order.check_replica(seed, branch, trace, outcome))


def _numbered(number: int, findings: Iterable[Finding]) -> Numbered:
    try:
        for finding in findings:
            yield number, finding
    except AuditError as error:
        yield number, as_finding(error)
