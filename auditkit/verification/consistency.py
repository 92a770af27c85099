"""Check 4, consistency: plan, branches, traces and outcomes agree with each other.

What a file claims is compared with what the plan asks for; nothing is compared with a replay
here, and no other branch is looked at (checks 6, 7 and 9 do that).
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from auditkit.errors import UnknownPerturbation
from auditkit.evidence.reader import RunEvidence, SeedEvidence
from auditkit.formats.outcome_names import is_distance, time_of
from auditkit.formats.quote import brief
from auditkit.formats.run_files import Outcome
from auditkit.formats.snapshot_file import recalibrated_on
from auditkit.records.declaration import Declaration, matches
from auditkit.records.digest import ABSENT
from auditkit.records.evidence import CONSUMED, DELIVERED, Trace, blocks
from auditkit.records.manifest import (
    CODE_FOLDER,
    EARLIER_ROLE,
    BranchRecord,
    CodeFile,
    FileRecord,
    SeedRecord,
    StudyManifest,
)
from auditkit.records.plan import CONFIRMATORY, PerturbationSpec, Role, StudyPlan
from auditkit.records.registration import PLAN_NAME, PLAN_ROLE
from auditkit.records.report import Finding
from auditkit.verification.outcome_tables import check_outcome

Declarations = Mapping[str, Declaration]


def check_plan(manifest: StudyManifest, declarations: Declarations) -> Iterator[Finding]:
    """Findings about plan, seeds, branches and the list of files."""
    plan = manifest.plan
    if tuple(record.seed for record in manifest.seeds) != plan.seeds:
        yield Finding("the seeds are not the plan's")
    for spec in plan.specs:
        if spec.name not in declarations:
            yield Finding(f"no perturbation {spec.name!r} is known here", where="plan")
    yield from check_parameters(plan, declarations)
    wanted = {name: plan.branch(name) for name in plan.branch_names}
    for record in manifest.seeds:
        yield from _check_branches(record, wanted, declarations)
    yield from check_listing(manifest.files, _used(manifest), manifest.program.code)
    for text in manifest.environment.contradictions(plan.threads):
        yield Finding(text, "environment")


def check_parameters(plan: StudyPlan, declarations: Declarations) -> Iterator[Finding]:
    """Findings about parameters that no run writes: what has any of them cannot be replayed."""
    for spec in plan.specs:
        if spec.name not in declarations:
            continue
        where = f"plan, {spec.branch_name}"
        try:
            if declarations[spec.name].resolve(spec) != spec:
                yield Finding("a parameter is left open", where)
        except UnknownPerturbation as error:  # of the plan, and not of what the verifier typed
            yield Finding(f"{error.message}{error.details()}", where)


def _check_branches(
    record: SeedRecord,
    wanted: Mapping[str, tuple[Role, PerturbationSpec | None]],
    declarations: Declarations,
) -> Iterator[Finding]:
    where = f"seed {record.seed}"
    names = [branch.name for branch in record.branches]
    if names != list(wanted):
        pairs = itertools.zip_longest(names, wanted, fillvalue="nothing")
        here, there = next((h, t) for h, t in pairs if h != t)
        yield Finding(
            f"branches are not the plan's: {brief(here)} stands where the plan has {brief(there)}",
            where,
        )
        return
    if list(record.components) != sorted(set(record.components)):
        yield Finding("the list of components is not in the order of their names", where)
    for branch in record.branches:
        role, spec = wanted[branch.name]
        if branch.role != role or branch.perturbation != spec:
            yield Finding("role or perturbation is not the plan's", f"{where}, {branch.name}")
            continue
        if (branch.broken is not None) != (role == "broken"):
            text = "lacks" if role == "broken" else "has"
            yield Finding(f"the record {text} a causal break", f"{where}, {branch.name}")
            continue
        try:
            if spec is not None and spec.name in declarations:
                declarations[spec.name].of_version(branch.version)
            elif spec is None and branch.version is not None:
                yield Finding("a version, and no perturbation", f"{where}, {branch.name}")
        except UnknownPerturbation as error:
            yield Finding(error.message, f"{where}, {branch.name}")


def _used(manifest: StudyManifest) -> Iterator[tuple[str, str]]:
    """Name and role of every file that the manifest refers to, besides code."""
    for record in manifest.seeds:
        yield from ((record.fork, "fork"), (record.order, "order"), (record.trunk, "trace"))
        for branch in record.branches:
            yield from ((branch.trace, "trace"), (branch.outcome, "outcome"))
            if branch.samples is not None:
                yield branch.samples, "samples"
            if branch.consumed is not None:
                yield branch.consumed, "consumed"
    for extension in manifest.extends:
        yield extension.manifest, EARLIER_ROLE
    if any(file.name == PLAN_NAME for file in manifest.files):  # a plan is not referred to
        yield PLAN_NAME, PLAN_ROLE


def check_trunk(seed: SeedEvidence, plan: StudyPlan) -> Iterator[Finding]:
    """Findings about the trunk's trace, the order file and the fork's sections."""
    where = f"seed {seed.record.seed}, trunk"
    yield from _check_rows(seed.trunk, 1, plan.fork_at, where, _needed(seed), plan)
    if len(seed.order.flat) != plan.horizon:
        yield Finding(
            f"the order file has {len(seed.order.flat)} steps, the plan {plan.horizon}",
            where=seed.record.order,
        )
    step = plan.fork_at + 1
    if seed.trunk.last_step == plan.fork_at and seed.control.first_step == step:
        for name in seed.trunk.row_difference(step, seed.control):
            if name not in (*CONSUMED, DELIVERED, "loss"):  # the trunk's last row consumed nothing
                yield Finding("the trunk's last row is not the control's first", where, step, name)


def check_branch(
    evidence: RunEvidence,
    seed: SeedEvidence,
    branch: BranchRecord,
    trace: Trace,
    outcome: Outcome,
    declarations: Declarations,
) -> Iterator[Finding]:
    """Findings about one branch's trace and outcome."""
    plan, where = evidence.manifest.plan, seed.place(branch)
    yield from _check_rows(trace, plan.fork_at + 1, plan.horizon, where, _needed(seed), plan)
    yield from _check_columns(seed.record, branch, trace, declarations, where)
    yield from _check_digests(branch, trace, plan, where)
    yield from check_outcome(evidence, seed, branch, outcome)
    yield from _check_evaluated_on(seed.record, branch, where)
    found = _diverged_at(trace, outcome, plan)
    if found != branch.diverged_at:
        yield Finding(
            f"diverged at step {found} by its evidence, at {branch.diverged_at} by the manifest",
            where,
            found or branch.diverged_at,
        )


def _needed(seed: SeedEvidence) -> tuple[str, ...]:
    """Columns of what every row consumed; a step without a loader may consume nothing."""
    return () if seed.record.data.data_from == "step" else CONSUMED


def _check_rows(
    trace: Trace, first: int, last: int, where: str, needed: tuple[str, ...], plan: StudyPlan
) -> Iterator[Finding]:
    if (trace.first_step, trace.last_step) != (first, last):
        yield Finding(
            f"the trace has steps {trace.first_step}..{trace.last_step}, the plan {first}..{last}",
            where,
        )
        return
    params = [name for name in trace.columns if name == "params" or name.startswith("params/")]
    if not params or any(name not in trace.columns for name in needed):
        yield Finding("the trace has no column params, order or batch", where)
        return
    for name in (*needed, *sorted(params)):
        empty = _first_empty(trace, name, None if name in needed else plan)
        if empty is not None:
            yield Finding("no evidence in this row", where, empty, name)
    if any(trace.cell(last + 1, name) != ABSENT for name in CONSUMED) or any(trace.loss(last + 1)):
        yield Finding("the last row consumed something", where, last + 1)


def _first_empty(trace: Trace, name: str, plan: StudyPlan | None) -> int | None:
    """The first step without a digest in a column, of those in which the plan wants the state."""
    for begin, end in blocks(trace.first_step, trace.last_step + 1):
        halves = np.frombuffer(trace.cells(name, begin, end), dtype=np.uint64).reshape(-1, 2)
        is_empty = (halves[:, 0] | halves[:, 1]) == 0
        if plan is not None and is_empty.any():
            is_empty &= _has_state(plan, begin, end)
        if is_empty.any():
            return begin + int(np.argmax(is_empty))
    return None


def _has_state(plan: StudyPlan, first: int, stop: int) -> NDArray[np.bool_]:
    """Of which rows of these steps the plan wants the state."""
    steps = np.arange(first, stop)
    is_turn: NDArray[np.bool_] = (steps - 1) % plan.evidence_every == 0
    return is_turn | np.isin(steps, list(plan.stated))


def _check_columns(
    record: SeedRecord,
    branch: BranchRecord,
    trace: Trace,
    declarations: Declarations,
    where: str,
) -> Iterator[Finding]:
    spec = branch.perturbation
    touched: tuple[str, ...] = ()
    if spec and spec.name in declarations:
        touched = declarations[spec.name].of_version(branch.version).may_touch(spec)
    if spec and spec.name in declarations and declarations[spec.name].kind == "data":
        touched = (*touched, DELIVERED)
    for name in sorted(set(record.components) ^ set(trace.columns)):
        if not matches(name, touched):
            verb = "lacks" if name in record.components else "has"
            yield Finding(f"the trace {verb} a component", where, component=name)


def _check_digests(
    branch: BranchRecord, trace: Trace, plan: StudyPlan, where: str
) -> Iterator[Finding]:
    steps = {time: step + 1 for time, step in {"t0": plan.fork_at, **plan.probed}.items()}
    if set(branch.digests) != set(steps):
        yield Finding(f"commitments are not given for {', '.join(steps)} and no other time", where)
        return
    for time, step in steps.items():
        if not trace.first_step <= step <= trace.last_step + 1:
            continue
        # An epoch that ends there may run hooks before the next row is cut, which can add a
        # component but not lose one.
        present = {
            name
            for name in trace.columns
            if name not in (*CONSUMED, DELIVERED) and trace.cell(step, name) != ABSENT
        }
        # What exists on both sides of a step inside the branch existed there, too.
        before = {name for name in present if trace.cell(step - 1, name) != ABSENT}
        # The row behind the window's end is that of the state after a causal break.
        is_broken = branch.broken is not None and time == CONFIRMATORY[0]
        committed = branch.broken.digests if branch.broken and is_broken else branch.digests[time]
        for name in sorted(set(committed) - present):
            yield Finding(f"committed to at {time} but absent from the trace", where, step, name)
        wanted = present if time in ("t0", "T") else before
        for name in sorted(wanted - set(committed)):
            yield Finding(f"no commitment at {time}", where, step, name)


def _check_evaluated_on(record: SeedRecord, branch: BranchRecord, where: str) -> Iterator[Finding]:
    """Outcomes are compared, so they are of the same examples and the same batches."""
    control = record.branches[0].evaluated_on or {}
    here = branch.evaluated_on or {}
    if branch is record.branches[0]:
        digests = record.fork_digests
        by_name = next(filter(None, map(recalibrated_on, sorted(digests))), None)
        batches, snapshot = here.get("recalibration"), digests.get("recalibration")
        if batches is not None and batches != (by_name or snapshot):
            yield Finding("recalibrated on other batches than the snapshot holds", where)
        return
    for name in sorted({*here, *control}):
        if here.get(name) != control.get(name):
            of = "recalibration batches" if name == "recalibration" else f"probe's {name}"
            yield Finding(f"the {of} are not the control's", where, component=f"probe {name}")


def _diverged_at(trace: Trace, outcome: Outcome, plan: StudyPlan) -> int | None:
    """First step whose loss or probabilities are not finite, by the evidence."""
    steps = []
    for begin, end in blocks(trace.first_step, trace.last_step + 1):
        is_finite = np.isfinite(np.frombuffer(trace.losses(begin, end), dtype="<f8"))
        if not is_finite.all():
            steps.append(begin + int(np.argmin(is_finite)))
            break
    times = {"t0": plan.fork_at, **plan.probed}
    for name, table in outcome.tables.items():
        # A distance is of two branches, of which either may have diverged.
        if not is_distance(name) and not np.isfinite(table).all():
            steps.append(times.get(time_of(name), plan.horizon))
    return min(steps, default=None)


# The list of files


def check_listing(
    files: Sequence[FileRecord], used: Iterable[tuple[str, str]], code: Sequence[CodeFile]
) -> Iterator[Finding]:
    """Findings about the list of files.

    Args:
        files: What the manifest lists.
        used: Name and role of everything that it refers to, besides code.
        code: The sources that it refers to.
    """
    pairs = [(f"{CODE_FOLDER}/{file.name}", "code") for file in code] + list(used)
    wanted = dict(pairs)
    if len(wanted) != len(pairs):
        yield Finding("one file stands for two things")
    listed = {file.name: file.role for file in files}
    for name in sorted(set(wanted) | set(listed)):
        if wanted.get(name) != listed.get(name):
            yield Finding(f"listed as {listed.get(name)}, used as {wanted.get(name)}", where=name)
    digests = {file.name: file.sha256 for file in files}
    for source in code:
        name = f"{CODE_FOLDER}/{source.name}"
        if digests.get(name) != source.sha256:
            yield Finding("two digests for one source", where=name)
    if list(listed) != sorted(listed):
        yield Finding("the list of files is not in the order of their names")
    yield from _name_collisions(sorted(listed))


def _name_collisions(names: Iterable[str]) -> Iterator[Finding]:
    """Names that another file system takes for one: it would hold one of the two files."""
    seen: dict[str, str] = {}
    for name in names:
        plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
        if plain in seen:
            text = f"differs from {seen[plain]!a} only in case or in Unicode form"
            yield Finding(f"{text}; elsewhere the two are one file", where=name)
        seen[plain] = name
