"""What a plan's ``segments`` says, held against the evidence: checks 4, 6 and 7.

That B has A's classes is seen in replay, which looks at the labels of what is delivered.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from auditkit.evidence.reader import SeedEvidence
from auditkit.formats.outcome_names import ALIGNMENT
from auditkit.formats.run_files import Outcome
from auditkit.records.evidence import Trace
from auditkit.records.manifest import BranchRecord
from auditkit.records.plan import CONFIRMATORY, StudyPlan
from auditkit.records.report import Finding
from auditkit.records.segments import overlap_fault

_BATCHNORM = "batchnorm"


def segments_note(plan: StudyPlan) -> str:
    """What check 6 looked at besides, for people; empty where nothing is said of indices."""
    if plan.segments is None or plan.segments.overlap is None:
        return ""
    return f", segment B has a share of {plan.segments.overlap:g} of A's indices"


def check_overlap(seed: SeedEvidence, plan: StudyPlan) -> Iterator[Finding]:
    """Check 6: B has the planned share of A's indices."""
    if plan.segments is None or plan.segments.overlap is None:
        return
    order = seed.order.batches
    parts = order[plan.fork_at : plan.window_end], order[plan.window_end : plan.horizon]
    first, second = (
        {int(index) for batch in part for index in np.asarray(batch)[:, 1]} for part in parts
    )
    text = overlap_fault(plan.segments, first, second)
    if text is not None:
        yield Finding(text, seed.record.order, plan.window_end + 1, "order")


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
        rows = [step for step in range(first, last + 1) if plan.has_state(step)]
        cells = [trace.cell(step, _BATCHNORM) for step in rows]
        moved = [step for step, cell in zip(rows, cells, strict=True) if cell != cells[0]]
        if moved:
            text = "BatchNorm's statistics are not held"
            yield Finding(text, where, moved[0], _BATCHNORM)
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


def check_alignment(outcome: Outcome, plan: StudyPlan, where: str) -> Iterator[Finding]:
    """Check 4: a cosine is there only where it is asked for, and is one."""
    if ALIGNMENT not in outcome.tables:
        return
    value = float(outcome.tables[ALIGNMENT][0])
    if plan.segments is None or not plan.segments.alignment:
        yield Finding("momentum was set against the gradient, and the plan does not ask it", where)
    elif not -1 <= value <= 1:
        yield Finding(f"the cosine of momentum and gradient is {value:g}", where)
