"""What a plan's ``segments`` says, held against the evidence: checks 4, 6 and 7.

That B has A's classes is seen in replay, which looks at the labels of what is delivered.
"""

from __future__ import annotations

from collections.abc import Iterator

from auditkit.evidence.reader import SeedEvidence
from auditkit.formats.flat_order import Order
from auditkit.formats.outcome_names import ALIGNMENT
from auditkit.formats.run_files import Outcome
from auditkit.records.digest import EVIDENCE_BYTES
from auditkit.records.evidence import Trace, blocks
from auditkit.records.manifest import BranchRecord
from auditkit.records.plan import CONFIRMATORY, StudyPlan
from auditkit.records.report import Finding
from auditkit.records.segments import overlap_fault

_BATCHNORM = "batchnorm"

#: Steps whose order is in memory at a time.
_STEPS_AT_ONCE = 1024


def segments_note(plan: StudyPlan) -> str:
    """What check 6 looked at besides, for people; empty where nothing is said of indices."""
    if plan.segments is None or plan.segments.overlap is None:
        return ""
    return f", segment B has a share of {plan.segments.overlap:g} of A's indices"


def check_overlap(seed: SeedEvidence, plan: StudyPlan) -> Iterator[Finding]:
    """Check 6: B has the planned share of A's indices."""
    if plan.segments is None or plan.segments.overlap is None:
        return
    order = seed.order.flat
    parts = order.part(plan.fork_at, plan.window_end), order.part(plan.window_end, plan.horizon)
    first, second = map(_indices, parts)
    text = overlap_fault(plan.segments, first, second)
    if text is not None:
        yield Finding(text, seed.record.order, plan.window_end + 1, "order")


def _indices(order: Order) -> set[int]:
    """Which samples an order has, read in parts."""
    parts = (
        order.part(start, start + _STEPS_AT_ONCE) for start in range(0, len(order), _STEPS_AT_ONCE)
    )
    return {index for part in parts for index in part.pairs[:, 1].tolist()}


def check_held(
    seed: SeedEvidence, branch: BranchRecord, trace: Trace, plan: StudyPlan
) -> Iterator[Finding]:
    """Check 7: BatchNorm's statistics stay what they were at t0; a causal break may reset them."""
    if plan.segments is None or not plan.segments.hold_batchnorm:
        return
    if _BATCHNORM not in trace.columns:
        return  # the model has none
    where, end = seed.place(branch), plan.window_end
    for first, last in ((plan.fork_at + 1, end), (end + 1, trace.last_step)):
        moved = _first_moved(trace, first, last, plan)
        if moved is not None:
            yield Finding("BatchNorm's statistics are not held", where, moved, _BATCHNORM)
            return
    at_end = branch.digests.get(CONFIRMATORY[0], {}).get(_BATCHNORM)
    after = branch.digests if branch.broken is None else {"broken": branch.broken.digests}
    times = [("t0", branch.digests.get("t0", {}), at_end)]
    last_one = branch.digests.get(CONFIRMATORY[1], {}).get(_BATCHNORM)
    times += [(name, each, last_one) for name, each in after.items() if name != "t0"]
    for name, digests, other in times:
        if digests.get(_BATCHNORM) != other:
            yield Finding(f"BatchNorm's statistics are not held ({name})", where, None, _BATCHNORM)
            return


def _first_moved(trace: Trace, first: int, last: int, plan: StudyPlan) -> int | None:
    """The first row with a state that is not the first one's, of BatchNorm."""
    held: bytes | None = None
    for begin, end in blocks(first, last + 1):
        cells = trace.cells(_BATCHNORM, begin, end)
        for step in filter(plan.has_state, range(begin, end)):
            at = (step - begin) * EVIDENCE_BYTES
            cell = cells[at : at + EVIDENCE_BYTES]
            held = cell if held is None else held
            if cell != held:
                return step
    return None


def check_alignment(outcome: Outcome, plan: StudyPlan, where: str) -> Iterator[Finding]:
    """Check 4: a cosine is there only where it is asked for, and is one."""
    if ALIGNMENT not in outcome.tables:
        return
    value = float(outcome.tables[ALIGNMENT][0])
    if plan.segments is None or not plan.segments.alignment:
        yield Finding("momentum was set against the gradient, and the plan does not ask it", where)
    elif not -1 <= value <= 1:
        yield Finding(f"the cosine of momentum and gradient is {value:g}", where)
