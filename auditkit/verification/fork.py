"""Check 7, fork: a branch differs from the control in what it declares, and only there.

The snapshot at t0 is the control's state, and what a branch changes there is judged by the
verifier's own table of declarations, never by what the manifest says of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from auditkit.evidence.reader import SeedEvidence
from auditkit.formats.snapshot_file import UNTRACED, recalibrated_on
from auditkit.records.declaration import Declaration, matches
from auditkit.records.digest import ABSENT
from auditkit.records.evidence import CONSUMED, DELIVERED, Trace
from auditkit.records.manifest import BranchRecord
from auditkit.records.plan import StudyPlan
from auditkit.records.report import Finding

Declarations = Mapping[str, Declaration]


def check_fork(seed: SeedEvidence, plan: StudyPlan) -> Iterator[Finding]:
    """Check 7, for the snapshot: its content is the control's first row and the commitments."""
    record, control = seed.record, seed.control
    sections = seed.run.sections(record.fork, plan.evidence_digest)
    step = plan.fork_at + 1
    committed = record.branches[0].digests.get("t0", {})
    for name in sorted(set(sections) | set(record.fork_digests)):
        if name not in sections or name not in record.fork_digests:
            yield Finding("a section is missing", record.fork, step, name)
            continue
        digest = sections[name].commitment
        if digest != record.fork_digests[name]:
            yield Finding(
                "the snapshot holds another state than committed", record.fork, step, name
            )
        if name in UNTRACED or recalibrated_on(name):
            continue
        if committed.get(name) != digest:
            yield Finding("the control's commitment is of another state", record.fork, step, name)
        if control.cell(step, name) != sections[name].evidence:
            yield Finding("the control's first row is of another state", record.fork, step, name)
    for name in sorted(set(control.columns) - set(sections) - {*CONSUMED, DELIVERED}):
        if any(control.cell(step, name)):
            yield Finding("the snapshot lacks a component", record.fork, step, name)


def check_touched(
    seed: SeedEvidence,
    branch: BranchRecord,
    trace: Trace,
    plan: StudyPlan,
    declarations: Declarations,
) -> Iterator[Finding]:
    """Check 7, for one branch: it differs from the control in what it declares, and only there."""
    where, step = seed.place(branch), plan.fork_at + 1
    spec = branch.perturbation
    if spec is not None and spec.name not in declarations:
        yield Finding(f"no perturbation {spec.name!r} is known here", where)
        return
    declared = declarations[spec.name].of_version(branch.version) if spec else None
    touched = declared.touches(spec) if declared and spec else ()
    allowed = declared.may_touch(spec) if declared and spec else ()
    by_evidence = _changed_by_evidence(trace, seed.control, step)
    by_commitment = _changed_by_commitment(seed.record.branches[0], branch)
    for name in sorted(by_evidence ^ by_commitment):
        yield Finding(
            "evidence and commitment disagree on whether it was changed", where, step, name
        )
    changed = by_evidence | by_commitment
    settable = declared.may_set(spec) if declared and spec else ()
    for name in sorted(name for name in changed if not matches(name, settable)):
        is_there = trace.cell(step, name) != ABSENT or name in branch.digests.get("t0", {})
        if not matches(name, allowed) or is_there:
            yield Finding(_unwanted(name, allowed), where, step, name)
    if allowed and not changed and not touched:
        yield Finding("declared but not changed at t0", where, step, allowed[0])
    for pattern in touched:
        if not any(matches(name, (pattern,)) for name in changed):
            there = [name for name in seed.control.columns if matches(name, (pattern,))]
            named = there[0] if len(there) == 1 else pattern
            yield Finding("declared but not changed at t0", where, step, named)
    if declared is not None:
        yield from _unchanged_window(seed, trace, plan, where, declared.kind)


def _unchanged_window(
    seed: SeedEvidence, trace: Trace, plan: StudyPlan, where: str, kind: str
) -> Iterator[Finding]:
    """What is to be changed inside the window differs there from the control's."""
    step = plan.fork_at + 1
    changes = {
        "order": ("order", "the order inside the window is the control's"),
        "data": ("batch", "the data inside the window are the control's"),
    }
    if kind in changes:
        column, text = changes[kind]
        if trace.first_unequal(seed.control, column, step, plan.window_end + 1) is None:
            yield Finding(text, where, step, column)


def _unwanted(name: str, allowed: tuple[str, ...]) -> str:
    if matches(name, allowed):
        return "changed at t0, where it may only be cleared"
    return "changed at t0 but not declared"


def _changed_by_evidence(trace: Trace, control: Trace, step: int) -> set[str]:
    names = (set(trace.columns) | set(control.columns)) - {*CONSUMED, DELIVERED}
    return {name for name in names if trace.cell(step, name) != control.cell(step, name)}


def _changed_by_commitment(control: BranchRecord, branch: BranchRecord) -> set[str]:
    here, there = branch.digests.get("t0", {}), control.digests.get("t0", {})
    return {name for name in set(here) | set(there) if here.get(name) != there.get(name)}
