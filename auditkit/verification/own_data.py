"""Branches whose own course makes their data: what the contract can hold, and what it cannot.

A treatment of a program without a loader (reinforcement learning), or of one whose loader asks the
model (hard-example mining), consumes other data than the control, because it is treated. Then its
effect is a *total* one: what the change did, and what the other data did that it led to. Replica
and carry, which change nothing, must consume the control's data all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from auditkit.evidence.reader import RunEvidence, SeedEvidence
from auditkit.formats.consumed_file import cells, sections_by_step
from auditkit.records.declaration import Declaration, is_yoked
from auditkit.records.estimate import EstimateTable
from auditkit.records.evidence import CONSUMED, Trace
from auditkit.records.manifest import BranchRecord, SeedRecord
from auditkit.records.plan import StudyPlan, as_typed
from auditkit.records.report import Finding

#: Label of an effect that goes through the data, too.
TOTAL = "total"

#: Label of an effect that does not: the treatment was given the control's data.
DIRECT = "direct"


def makes_own_data(
    record: SeedRecord, branch: BranchRecord, declarations: Mapping[str, Declaration]
) -> bool:
    """Whether a branch may consume other data than the control, by no change of its data."""
    spec = branch.perturbation
    if record.data.data_from == "loader" or spec is None or spec.name not in declarations:
        return False
    if is_yoked(spec):  # it was given the control's
        return False
    return declarations[spec.name].kind == "state"


def departed(control: Trace, trace: Trace) -> bool:
    """Whether a branch consumed anything else than the control."""
    stop = min(control.last_step, trace.last_step) + 1
    first = control.first_step
    return any(control.first_unequal(trace, name, first, stop) is not None for name in CONSUMED)


def check_consumed(seed: SeedEvidence, plan: StudyPlan) -> Iterator[Finding]:
    """Check 6, for what branches are yoked to: it is what the control consumed, step by step."""
    control = seed.record.branches[0]
    is_kept = seed.record.data.data_from == "step" and any(map(is_yoked, plan.perturbations))
    if is_kept != (control.consumed is not None):
        text = "lacks" if is_kept else "has, though nothing is yoked,"
        yield Finding(f"the record {text} what the control consumed", seed.place(control))
    if control.consumed is None:
        return
    sections = seed.run.sections(control.consumed)
    digests = {name: section.evidence for name, section in sections.items()}
    by_step = sections_by_step(digests)
    steps = range(plan.fork_at + 1, plan.horizon + 1)
    for step in sorted({*steps, *by_step}):
        for column, cell in cells(by_step.get(step, [])).items():
            if step not in steps or seed.control.cell(step, column) != cell:
                text = "data drift: branches were yoked to other data than the control's"
                yield Finding(text, control.consumed, step, column)
                return


def departures(run: RunEvidence, declarations: Mapping[str, Declaration]) -> dict[str, int]:
    """In how many seeds a branch consumed other data than the control, by branch, where any did."""
    found: dict[str, int] = {}
    for record in run.manifest.seeds:
        if record.data.data_from == "loader":
            continue
        control = run.trace(record.branches[0].trace)
        for branch in record.branches[1:]:
            if makes_own_data(record, branch, declarations):
                own = departed(control, run.trace(branch.trace))
                found[branch.name] = found.get(branch.name, 0) + own
    return {name: count for name, count in found.items() if count}


def labelled(
    table: EstimateTable, departed_in: Mapping[str, int], run: RunEvidence
) -> EstimateTable:
    """The same table with rows and notes that say which effects are total ones, and which direct.

    Args:
        table: The estimates.
        departed_in: From :func:`departures`.
        run: The study.
    """
    if all(record.data.data_from == "loader" for record in run.manifest.seeds):
        return table
    effects = {name: TOTAL for name in run.manifest.plan.treatment_names if name in departed_in}
    effects |= {
        spec.branch_name: DIRECT for spec in run.manifest.plan.perturbations if is_yoked(spec)
    }
    notes = (*_notes(effects, departed_in, table.n_seeds), *_unseen(run))
    return replace(
        table,
        signed=tuple(
            replace(row, effect=effects.get(row.perturbation, "")) for row in table.signed
        ),
        distances=tuple(
            replace(row, effect=effects.get(row.perturbation, "")) for row in table.distances
        ),
        notes=(*notes, *table.notes),
    )


def _notes(
    effects: Mapping[str, str], departed_in: Mapping[str, int], n_seeds: int
) -> Iterator[str]:
    for name, effect in effects.items():
        if effect == DIRECT:
            yield (
                f"{as_typed(name)} is a direct effect: the treatment was given the control's data "
                "(without a loader by ak.consume, and its step must train on what that returns); "
                "placebos make their own, so that its floor is too high where these differ"
            )
        else:
            yield (
                f"{as_typed(name)} is a total effect: in {departed_in[name]} of {n_seeds} seeds "
                "its own course made other data than the control's, and what they did is part of it"
            )


def _unseen(run: RunEvidence) -> Iterator[str]:
    """What cannot be known of steps that never say what they consume."""
    for record in run.manifest.seeds:
        if record.data.data_from == "step":
            control = run.trace(record.branches[0].trace)
            if not any(any(control.columns.get(name, b"")[:]) for name in CONSUMED):
                yield (
                    "no step said what it consumes (ak.consume): whether branches consumed other "
                    "data was not seen, and any effect may be a total one"
                )
                return
