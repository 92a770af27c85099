"""Check 6, order: every branch consumed the control's samples, or a declared permutation.

A branch is judged by the verifier's own table of declarations, never by what the manifest says of
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from auditkit.evidence.reader import SeedEvidence
from auditkit.formats.flat_order import FlatOrder, Order
from auditkit.formats.ordering import (
    CURRICULUM,
    delivered_window,
    flat_sha256,
    whole_and_tail_sha256,
)
from auditkit.formats.recipes import order_digests
from auditkit.formats.run_files import OrderFile
from auditkit.formats.sample_digests import Window, augmentation_drift
from auditkit.records.declaration import Declaration
from auditkit.records.digest import EVIDENCE_BYTES
from auditkit.records.evidence import CONSUMED, DELIVERED, Trace, blocks, first_unequal_cell
from auditkit.records.manifest import BranchRecord
from auditkit.records.plan import StudyPlan
from auditkit.records.report import Finding
from auditkit.verification.own_data import makes_own_data

Declarations = Mapping[str, Declaration]


def check_control_order(seed: SeedEvidence, plan: StudyPlan) -> Iterator[Finding]:
    """Check 6, for trunk and control: what they consumed is what the order file says."""
    record, order = seed.record, seed.order
    where = f"seed {record.seed}"
    committed = order.flat if order.content is None else FlatOrder.of_content(order.content)
    whole, tail = whole_and_tail_sha256(committed, plan.fork_at)
    if whole != record.order_sha256:
        yield Finding("the order file is not the committed order", record.order, component="order")
    by_difficulty = any(spec.name == CURRICULUM for spec in plan.perturbations)
    if (order.difficulty is not None) != by_difficulty:
        said = "lacks" if by_difficulty else "has, though nothing is ordered by them,"
        yield Finding(f"the order file {said} difficulties", record.order, component="order")
    if tail != record.branches[0].order_sha256:
        yield Finding("the control's order is not the committed one", where, component="order")
    for name, trace in (("trunk", seed.trunk), ("control", seed.control)):
        parts = blocks(trace.first_step, trace.last_step + 1)
        others = (_first_other(trace, begin, _cells(order, begin, end)) for begin, end in parts)
        step = next((step for step in others if step is not None), None)
        if step is not None:
            yield Finding(
                "order drift: consumed other samples than the order file says",
                f"{where}, {name}",
                step,
                "order",
            )


def check_branch_order(
    seed: SeedEvidence,
    branch: BranchRecord,
    trace: Trace,
    plan: StudyPlan,
    declarations: Declarations,
) -> Iterator[Finding]:
    """Check 6, for one branch: the control's samples, or its own declared permutation of them."""
    where = seed.place(branch)
    if makes_own_data(seed.record, branch, declarations):
        yield from _own_order(seed, branch, trace)
        return
    spec = branch.perturbation
    kind = declarations[spec.name].kind if spec and spec.name in declarations else "state"
    moved = spec if kind == "order" else None
    first = plan.fork_at + 1
    if moved is not None and seed.order.content is not None:
        yield Finding("an iterable dataset cannot be put in another order", where)
        return
    # Whether the control's own commitment is that of the order file was seen with the control.
    committed = seed.record.branches[0].order_sha256
    flat = seed.order.flat
    window = flat.part(plan.fork_at, plan.window_end)
    if moved is not None:
        try:
            window = delivered_window(window, moved, seed.record.seed, seed.order.difficulty)
        except ValueError as error:
            yield Finding(f"the order file does not fit the window: {error}", where)
            return
        committed = flat_sha256(window, flat.part(plan.window_end))
    if branch.order_sha256 != committed:
        yield Finding(
            "the order is not the control's"
            + ("" if moved is None else " in the declared permutation"),
            where,
            component="order",
        )
    if kind == "data":
        yield from _check_data(seed, trace, where, plan)
        return
    start = first if moved is None else plan.window_end + 1
    if moved is not None:
        step = _first_other(trace, trace.first_step, order_digests(window))
        if step is not None:
            yield Finding("order drift: not the declared permutation", where, step, "order")
        yield from _check_samples(seed, branch, window, plan)
    yield from _same_consumption(seed.control, trace, start, where, plan)


def _check_data(seed: SeedEvidence, trace: Trace, where: str, plan: StudyPlan) -> Iterator[Finding]:
    """The same samples everywhere; other bytes inside the window, made of the control's."""
    control, first, after = seed.control, plan.fork_at + 1, plan.window_end + 1
    stop = min(trace.last_step, control.last_step) + 1
    step = control.first_unequal(trace, "order", first, stop)
    if step is not None:
        yield Finding("order drift: other samples than the control's", where, step, "order")
    if plan.augmentation_rng != "per-sample":
        return
    source = DELIVERED if DELIVERED in control.columns else "batch"
    for step in range(first, after):
        if trace.cell(step, DELIVERED) != control.cell(step, source):
            text = "data drift: what was changed is not what the control was delivered"
            yield Finding(text, where, step, "batch")
            break
    for column in ("batch", DELIVERED):
        step = control.first_unequal(trace, column, after, stop)
        if step is not None:
            text = "data drift: the control's samples with other bytes, outside the window"
            yield Finding(text, where, step, "batch")
            break


def _own_order(seed: SeedEvidence, branch: BranchRecord, trace: Trace) -> Iterator[Finding]:
    """An order of a branch's own is held to the one that it committed to, where that is kept."""
    if seed.order.content is None:
        return  # the cells are digests of batches of indices, which only a replay has
    nothing = bytes(trace.n_rows * EVIDENCE_BYTES)
    cells = trace.columns.get("order", nothing)[:-EVIDENCE_BYTES]
    if flat_sha256(FlatOrder.of_content(cells)) != branch.order_sha256:
        yield Finding("the order is not the committed one", seed.place(branch), component="order")


def _check_samples(
    seed: SeedEvidence, branch: BranchRecord, order: Order, plan: StudyPlan
) -> Iterator[Finding]:
    """A sample that is moved keeps its looks, where they were measured."""
    control, where = seed.record.branches[0], seed.place(branch)
    if plan.augmentation_rng != "per-sample" or (control.samples, branch.samples) == (None, None):
        return  # no promise, or nobody measured
    if control.samples is None or branch.samples is None:
        yield Finding("the samples of one branch were measured, and not the control's", where)
        return
    first, last = plan.fork_at, plan.window_end
    here = Window(seed.order.flat.part(first, last).batches(), seed.run.samples(control.samples))
    there = Window(order.batches(), seed.run.samples(branch.samples))
    drift = augmentation_drift(here, there)
    if drift is not None:
        yield Finding(str(drift), where, plan.fork_at + 1 + drift.offset, "batch")


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


def _cells(order: OrderFile, start: int, stop: int) -> bytes:
    """The digests of the order of the steps ``start`` .. ``stop - 1``, of those that it has."""
    if order.content is None:
        return order_digests(order.flat.part(start - 1, stop - 1))
    return order.content[(start - 1) * EVIDENCE_BYTES : (stop - 1) * EVIDENCE_BYTES]


def _first_other(trace: Trace, start: int, cells: bytes) -> int | None:
    """The first step whose order has not the digest that it should have.

    Args:
        trace: The trace.
        start: A step.
        cells: The digests from there on.
    """
    rows = len(cells) // EVIDENCE_BYTES
    column = trace.cells("order", start, start + rows)
    if column == cells:
        return None
    return start + first_unequal_cell(column, cells, rows, EVIDENCE_BYTES)
