"""Checks 4 to 7 and 9 of a study: what its files say, and whether that agrees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from auditkit.errors import AuditError
from auditkit.evidence.reader import RunEvidence, SeedEvidence
from auditkit.evidence.verdicts import as_finding
from auditkit.records.declaration import Declaration
from auditkit.records.fork_points import at_fork
from auditkit.records.manifest import BranchRecord
from auditkit.records.report import Finding
from auditkit.verification.causal_break import check_broken, check_history, check_version
from auditkit.verification.consistency import check_branch, check_plan, check_trunk
from auditkit.verification.fork import check_fork, check_touched
from auditkit.verification.noise_floor import check_replica
from auditkit.verification.order import check_branch_order, check_control_order
from auditkit.verification.own_data import check_consumed
from auditkit.verification.own_perturbations import check_own
from auditkit.verification.program_code import check_opened, check_program
from auditkit.verification.replication import Replication
from auditkit.verification.rng_contract import check_branch_streams, check_contracts
from auditkit.verification.segments import check_held, check_overlap
from auditkit.verification.several_forks import check_listed_forks, check_one_trunk, fork_runs

Declarations = Mapping[str, Declaration]
Numbered = Iterator[tuple[int, Finding]]


def content_findings(run: RunEvidence, declarations: Declarations) -> Numbered:
    """Every finding of checks 4, 5, 6, 7 and 9, with its check's number."""
    manifest = run.manifest
    yield from _numbered(4, check_program(manifest.program))
    yield from _numbered(4, check_opened(manifest.opened))
    listed = list(_numbered(4, check_listed_forks(run)))
    yield from listed
    if listed:
        return
    runs = fork_runs(run)
    for one in runs:
        for number, finding in _fork_findings(one, declarations):
            several = len(runs) > 1
            yield number, at_fork(finding, one.manifest.plan.fork_at) if several else finding
    yield from _numbered(4, check_one_trunk(runs))


def _fork_findings(run: RunEvidence, declarations: Declarations) -> Numbered:
    """The findings of one fork."""
    manifest = run.manifest
    found_in_plan = list(_numbered(4, check_own(manifest.plan)))
    found_in_plan += _numbered(4, check_plan(manifest, declarations))
    yield from found_in_plan
    yield from _numbered(5, check_contracts(manifest))
    if found_in_plan:
        return  # branches that are not the plan's cannot be told apart
    replication = Replication()
    for record in manifest.seeds:
        seed = run.seed(record)
        yield from _numbered(5, replication.findings(seed))
        yield from _numbered(4, check_trunk(seed, manifest.plan))
        yield from _numbered(6, check_control_order(seed, manifest.plan))
        yield from _numbered(6, check_consumed(seed, manifest.plan))
        yield from _numbered(6, check_overlap(seed, manifest.plan))
        yield from _numbered(7, check_fork(seed, manifest.plan))
        for branch in record.branches:
            yield from _branch_findings(run, seed, branch, declarations)


def is_as_long_as_planned(run: RunEvidence) -> bool:
    """Whether there is evidence of every step that a replay would take."""
    return all(map(_is_as_long_as_planned, fork_runs(run)))


def _is_as_long_as_planned(run: RunEvidence) -> bool:
    plan = run.manifest.plan
    ends = (plan.fork_at, plan.horizon)
    try:
        seeds = map(run.seed, run.manifest.seeds)
        return all((seed.trunk.last_step, seed.control.last_step) == ends for seed in seeds)
    except AuditError:  # said by the check that reads it; a replay says what it can
        return True


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
    yield from _numbered(4, check_branch(run, seed, branch, trace, outcome, declarations))
    yield from _numbered(7, check_held(seed, branch, trace, plan))
    if is_control:
        return
    spec = branch.perturbation
    touched = declarations[spec.name].of_version(branch.version).may_touch(spec) if spec else ()
    yield from _numbered(5, check_branch_streams(seed, branch, touched))
    yield from _numbered(6, check_branch_order(seed, branch, trace, plan, declarations))
    yield from _numbered(7, check_touched(seed, branch, trace, plan, declarations))
    if branch.broken is not None:
        version = check_version(branch.broken, plan, declarations, seed.place(branch))
        unknown = list(_numbered(4, version))
        yield from unknown or _numbered(7, check_broken(seed, branch, trace, plan, declarations))
        yield from _numbered(7, check_history(seed, branch, trace, plan))
        return
    # carry changes nothing, so that whatever it shows has leaked from somewhere.
    if branch.role == "replica" or (spec is not None and spec.name == "carry"):
        yield from _numbered(9, check_replica(seed, branch, trace, outcome))


def _numbered(number: int, findings: Iterable[Finding]) -> Numbered:
    try:
        for finding in findings:
            yield number, finding
    except AuditError as error:
        yield number, as_finding(error)
