"""Checks 5, 6, 7 and 9: what makes two branches a pair.

The same random streams, the same samples in the same order, the same state but for the
declared change, and a replica that shows that nothing else could have differed. A branch is
judged by the verifier's own table of declarations, never by what the manifest says of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from auditkit.evidence.comparison import compare_traces
from auditkit.evidence.reader import SeedEvidence
from auditkit.formats.ordering import Batch, delivered, order_sha256
from auditkit.formats.recipes import order_digest
from auditkit.formats.run_files import Outcome
from auditkit.records.digest import EVIDENCE_BYTES, EVIDENCE_RECIPE
from auditkit.records.evidence import CONSUMED, Trace
from auditkit.records.perturbation import Declaration, matches
from auditkit.records.plan import StudyPlan
from auditkit.records.report import Finding
from auditkit.records.study import BranchRecord

Declarations = Mapping[str, Declaration]


def check_streams(
    seed: SeedEvidence, branch: BranchRecord, touched: tuple[str, ...]
) -> Iterator[Finding]:
    """Check 5, for one branch: it starts from the control's streams at t0."""
    control = seed.record.branches[0].digests.get("t0", {})
    here = branch.digests.get("t0", {})
    for name in sorted(set(control) | set(here)):
        if not name.startswith("rng/") or matches(name, touched):
            continue
        if control.get(name) != here.get(name):
            yield Finding(
                "the branch starts from another random state than the control",
                seed.place(branch),
                step=seed.control.first_step,
                component=name,
            )


def check_control_order(seed: SeedEvidence, plan: StudyPlan) -> Iterator[Finding]:
    """Check 6, for trunk and control: what they consumed is what the order file says."""
    record, order = seed.record, seed.order
    where = f"seed {record.seed}"
    batches = _as_batches(seed)
    if order_sha256(batches) != record.order_sha256:
        yield Finding("the order file is not the committed order", record.order, component="order")
    tail = batches[plan.fork_at :]
    if order_sha256(tail) != record.branches[0].order_sha256:
        yield Finding("the control's order is not the committed one", where, component="order")
    for name, trace in (("trunk", seed.trunk), ("control", seed.control)):
        for step in range(trace.first_step, trace.last_step + 1):
            if step > len(order.batches):
                break
            if trace.cell(step, "order") != _order_cell(seed, step):
                yield Finding(
                    "order drift: consumed other samples than the order file says",
                    f"{where}, {name}",
                    step,
                    "order",
                )
                break


def check_branch_order(
    seed: SeedEvidence,
    branch: BranchRecord,
    trace: Trace,
    plan: StudyPlan,
    declarations: Declarations,
) -> Iterator[Finding]:
    """Check 6, for one branch: the control's samples, or its own declared permutation of them."""
    where = seed.place(branch)
    spec = branch.perturbation
    kind = declarations[spec.name].kind if spec and spec.name in declarations else "state"
    moved = spec if kind == "order" else None
    first = plan.fork_at + 1
    tail = seed.order.batches[plan.fork_at :]
    if moved is not None and seed.order.content is not None:
        yield Finding("an iterable dataset cannot be put in another order", where)
        return
    # Whether the control's own commitment is that of the order file was seen with the control.
    committed = seed.record.branches[0].order_sha256
    expected: list[Batch] = []
    if moved is not None:
        expected = delivered(tail, moved, plan.window, seed.record.seed)
        committed = order_sha256(expected)
    if branch.order_sha256 != committed:
        yield Finding(
            "the order is not the control's"
            + ("" if moved is None else " in the declared permutation"),
            where,
            component="order",
        )
    start = first if moved is None else plan.window_end + 1
    if moved is not None:
        for step, batch in zip(range(first, start), expected, strict=False):
            if trace.cell(step, "order") != order_digest(EVIDENCE_RECIPE, batch):
                yield Finding("order drift: not the declared permutation", where, step, "order")
                break
    yield from _same_consumption(seed.control, trace, start, where, plan)


def _same_consumption(
    control: Trace, trace: Trace, start: int, where: str, plan: StudyPlan
) -> Iterator[Finding]:
    # Under inherited augmentation equal samples may be augmented differently.
    columns = CONSUMED if plan.augmentation_rng == "per-sample" else ("order",)
    texts = {
        "order": "order drift: other samples than the control's",
        "batch": "data drift: the control's samples with other bytes",
    }
    for name in columns:
        stop = min(trace.last_step, control.last_step) + 1
        step = control.first_unequal(trace, name, start, stop)
        if step is not None:
            yield Finding(texts[name], where, step, name)
            return


def check_fork(seed: SeedEvidence, plan: StudyPlan) -> Iterator[Finding]:
    """Check 7, for the snapshot: its content is the control's first row and the commitments."""
    record, control = seed.record, seed.control
    sections = seed.run.sections(record.fork)
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
        if name in ("loader", "recalibration"):
            continue
        if committed.get(name) != digest:
            yield Finding("the control's commitment is of another state", record.fork, step, name)
        if control.cell(step, name) != sections[name].evidence:
            yield Finding("the control's first row is of another state", record.fork, step, name)
    for name in sorted(set(control.columns) - set(sections) - set(CONSUMED)):
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
    declared = declarations.get(spec.name) if spec else None
    if spec is not None and declared is None:
        yield Finding(f"no perturbation {spec.name!r} is known here", where)
        return
    touched = declared.touches(spec) if declared and spec else ()
    by_evidence = _changed_by_evidence(trace, seed.control, step)
    by_commitment = _changed_by_commitment(seed.record.branches[0], branch)
    for name in sorted(by_evidence ^ by_commitment):
        yield Finding(
            "evidence and commitment disagree on whether it was changed", where, step, name
        )
    changed = by_evidence | by_commitment
    for name in sorted(changed):
        if not matches(name, touched):
            yield Finding("changed at t0 but not declared", where, step, name)
    for pattern in touched:
        if not any(matches(name, (pattern,)) for name in changed):
            yield Finding("declared but not changed at t0", where, step, pattern)
    if declared is not None and declared.kind == "order":
        window = range(step, plan.window_end + 1)
        if all(trace.cell(t, "order") == seed.control.cell(t, "order") for t in window):
            yield Finding("the order inside the window is the control's", where, step, "order")


def check_replica(
    seed: SeedEvidence, replica: BranchRecord, trace: Trace, outcome: Outcome
) -> Iterator[Finding]:
    """Check 9: replica (and ``carry``) equal the control at every step, commitment and outcome."""
    where = seed.place(replica)
    control = seed.record.branches[0]
    parting = compare_traces(replica.name, seed.control, trace)
    if parting is not None:
        others = f" (also {', '.join(parting.others)})" if parting.others else ""
        yield Finding(
            f"{replica.name} parts from the control: {parting.kind}, {parting.component}{others}",
            where,
            parting.step,
            parting.component,
        )
        yield Finding(
            "kernels are not deterministic, or the program keeps state that no snapshot holds",
            where,
        )
    for time in sorted(control.digests):
        for name, value in sorted(control.digests[time].items()):
            if replica.digests.get(time, {}).get(name) != value:
                yield Finding(f"{replica.name}'s state at {time} is another", where, component=name)
    for name, table in sorted(seed.control_outcome.tables.items()):
        other = outcome.tables.get(name)
        if other is None or other.tobytes() != table.tobytes():
            yield Finding(f"{replica.name}'s outcome {name} is another", where, component="outcome")


def _changed_by_evidence(trace: Trace, control: Trace, step: int) -> set[str]:
    names = (set(trace.columns) | set(control.columns)) - set(CONSUMED)
    return {name for name in names if trace.cell(step, name) != control.cell(step, name)}


def _changed_by_commitment(control: BranchRecord, branch: BranchRecord) -> set[str]:
    here, there = branch.digests.get("t0", {}), control.digests.get("t0", {})
    return {name for name in set(here) | set(there) if here.get(name) != there.get(name)}


def _as_batches(seed: SeedEvidence) -> list[Batch]:
    """The order as what ``order_sha256`` runs over; for an iterable dataset its content."""
    if seed.order.content is None:
        return seed.order.batches
    return list(np.frombuffer(seed.order.content, dtype="<i8").reshape(-1, 1, 2))


def _order_cell(seed: SeedEvidence, step: int) -> bytes:
    if seed.order.content is not None:
        start = (step - 1) * EVIDENCE_BYTES
        return seed.order.content[start : start + EVIDENCE_BYTES]
    return order_digest(EVIDENCE_RECIPE, seed.order.batches[step - 1])
