"""Checks 4 and 7 of a causal break: a broken branch is its counterpart until the window ends.

There the break changes what its declaration names, by the verifier's own table, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from auditkit.errors import UnknownPerturbation
from auditkit.evidence.reader import SeedEvidence
from auditkit.records.causal_break import VACUOUS, BreakRecord, unbroken
from auditkit.records.declaration import Declaration, matches
from auditkit.records.evidence import CONSUMED, DELIVERED, Trace
from auditkit.records.manifest import BranchRecord
from auditkit.records.plan import CONFIRMATORY, StudyPlan
from auditkit.records.report import Finding

Declarations = Mapping[str, Declaration]

_AT_END = CONFIRMATORY[0]


def break_note(plan: StudyPlan) -> str:
    """What check 7 looked at besides, for people; empty without a causal break."""
    if plan.causal_break is None:
        return ""
    return f", broken ones against their counterpart up to step {plan.window_end} and behind it"


def check_history(
    seed: SeedEvidence, branch: BranchRecord, trace: Trace, plan: StudyPlan
) -> Iterator[Finding]:
    """Check 7: up to the end of the window both have every bit in common."""
    where, base = seed.place(branch), seed.record.branch(unbroken(branch.name))
    text = f"parts from {base.name} before the causal break"
    other = _trace_of(seed, base)
    for name in sorted({*trace.columns, *other.columns}):
        step = other.first_unequal(trace, name, plan.fork_at + 1, plan.window_end + 1)
        if step is not None:
            yield Finding(text, where, step, name)
    for time in ("t0", _AT_END):
        here, there = branch.digests.get(time, {}), base.digests.get(time, {})
        for name in sorted(_changed(here, there)):
            yield Finding(f"{text}, at {time}", where, component=name)


def check_broken(
    seed: SeedEvidence,
    branch: BranchRecord,
    trace: Trace,
    plan: StudyPlan,
    declarations: Declarations,
) -> Iterator[Finding]:
    """Check 7: the break changed what it declares, and only that."""
    where, step = seed.place(branch), plan.window_end + 1
    spec, done = plan.causal_break, branch.broken
    if spec is None or done is None or spec.name not in declarations:
        return  # said by check 4
    declared = declarations[spec.name].of_version(done.version)
    settable, touchable = declared.may_set(spec), declared.may_touch(spec)
    changed = _changed(done.digests, branch.digests.get(_AT_END, {}))
    for name in sorted(name for name in changed if not matches(name, settable)):
        if not matches(name, touchable) or name in done.digests:
            yield Finding("changed by the causal break but not declared", where, step, name)
    if _is_inside_epoch(seed, step):
        for name in sorted(changed ^ _changed_by_evidence(seed, branch, trace, step)):
            text = "evidence and commitment disagree on whether the causal break changed it"
            yield Finding(text, where, step, name)
    for pattern in declared.touches(spec):
        if not any(matches(name, (pattern,)) for name in changed):
            yield Finding("declared but not changed by the causal break", where, step, pattern)
    if not changed and spec.name != VACUOUS:
        yield Finding("the causal break changed nothing", where, step)


def check_version(
    done: BreakRecord, plan: StudyPlan, declarations: Declarations, where: str
) -> Iterator[Finding]:
    """Check 4: the break's version is one that is known here."""
    spec = plan.causal_break
    if spec is None or spec.name not in declarations:
        return
    try:
        declarations[spec.name].of_version(done.version)
    except UnknownPerturbation as error:
        yield Finding(f"causal break: {error.message}", where)


def _is_inside_epoch(seed: SeedEvidence, step: int) -> bool:
    """Whether no epoch ends before a step, whose hooks would come between break and row."""
    around = seed.order.flat.part(step - 2, step).batches()
    if len(around) < 2 or any(len(batch) == 0 for batch in around):  # cut off, or without indices
        return False
    return bool(around[0][-1][0] == around[1][0][0])


def _changed_by_evidence(
    seed: SeedEvidence, branch: BranchRecord, trace: Trace, step: int
) -> set[str]:
    other = _trace_of(seed, seed.record.branch(unbroken(branch.name)))
    names = {*trace.columns, *other.columns} - {*CONSUMED, DELIVERED}
    return {name for name in names if trace.cell(step, name) != other.cell(step, name)}


def _trace_of(seed: SeedEvidence, branch: BranchRecord) -> Trace:
    is_control = branch is seed.record.branches[0]
    return seed.control if is_control else seed.run.trace(branch.trace)


def _changed(here: Mapping[str, str], there: Mapping[str, str]) -> set[str]:
    return {name for name in set(here) | set(there) if here.get(name) != there.get(name)}
