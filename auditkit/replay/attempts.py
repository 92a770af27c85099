"""One run of a replayed job, and where it differs from the record or from another run.

Of a trunk everything is compared that the manifest says of its seed, of a branch its evidence,
its commitments and its outcomes. A branch whose sampler yields other indices than the control's
ends its run; that, too, is an answer (:attr:`Attempt.ended`) and no failure to give one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from auditkit.errors import OrderDrift
from auditkit.evidence.comparison import (
    Mismatch,
    compare_commitments,
    compare_inputs,
    compare_outcomes,
    compare_records,
    compare_resets,
    compare_traces,
)
from auditkit.evidence.founding import BranchSide, Shared, unfounded
from auditkit.evidence.reader import SeedEvidence
from auditkit.files import artifacts, store
from auditkit.formats.consumed_file import CONSUMED_FILE
from auditkit.formats.outcome_names import labels_name
from auditkit.formats.run_files import Outcome, outcome_from_tensors, trace_from_tensors
from auditkit.formats.sample_digests import Digests, samples_from_tensors
from auditkit.records.evidence import Trace
from auditkit.records.job import Job
from auditkit.records.manifest import BranchRecord, SeedRecord
from auditkit.records.results import BranchesResult, TrunkResult


@dataclass(frozen=True)
class Attempt:
    """One run of one job.

    Attributes:
        result: What the worker answered; None where the run was ended.
        traces: Evidence by branch, ``trunk`` included.
        outcomes: Probe tables by branch.
        records: What the worker says of each branch.
        samples: What samples looked like, by branch, where that was measured.
        ended: Why the run was ended: a sampler that yielded other indices.
        consumed: SHA-256 of what the control kept for branches that are yoked to it.
    """

    result: TrunkResult | BranchesResult | None
    traces: Mapping[str, Trace]
    outcomes: Mapping[str, Outcome]
    records: Mapping[str, BranchRecord]
    ended: Mismatch | None = None
    samples: Mapping[str, list[Digests]] = field(default_factory=dict)
    consumed: str | None = None


def ended_attempt(job: Job, error: OrderDrift) -> Attempt:
    """A run that was ended by its sampler.

    Args:
        job: What was run.
        error: Says in which branch, at which step.
    """
    places = (error.where or "").split(", ")
    branch = next((name for name in places if name in job.branches), job.kind)
    component = error.component or "order"
    return Attempt(None, {}, {}, {}, Mismatch(branch, error.step, component, (), "order drift"))


def read_attempt(
    folder: Path, result: TrunkResult | BranchesResult, recorded: SeedRecord | None = None
) -> Attempt:
    """Read what a job left behind.

    Args:
        folder: The job's folder.
        result: What its worker answered.
        recorded: The seed whose branches these are, in an order that was drawn: they come in its.

    Raises:
        StoreError: When a file is missing.
        FormatError: When a file is broken.
    """
    is_trunk = isinstance(result, TrunkResult)
    records = (result.control,) if isinstance(result, TrunkResult) else result.branches
    order = () if recorded is None else recorded.branches
    place = {branch.name: n for n, branch in enumerate(order)}
    records = tuple(sorted(records, key=lambda one: place.get(one.name, len(place))))
    names = [*(["trunk"] if is_trunk else []), *(record.name for record in records)]
    return Attempt(
        result,
        {name: _read_trace(folder, name) for name in names},
        {record.name: _read_outcome(folder, record.name) for record in records},
        {record.name: record for record in records},
        samples={
            record.name: _read_samples(folder, record.name) for record in records if record.samples
        },
        consumed=_consumed_sha256(folder) if is_trunk else None,
    )


class SeedComparison:
    """Compares replays of one seed with its record.

    Args:
        seed: The recorded evidence.
    """

    def __init__(self, seed: SeedEvidence) -> None:
        self._seed = seed
        self._shared = Shared(probe=False, recalibration=False)

    def trunk(self, attempt: Attempt) -> Iterator[Mismatch]:
        """Where trunk, fork, control, contract or data differ from the record."""
        result, record = attempt.result, self._seed.record
        if attempt.ended is not None:
            yield attempt.ended
        if not isinstance(result, TrunkResult):
            return
        manifest = self._seed.run.manifest
        self._shared = Shared.of(record, result)
        mismatches = [
            compare_traces("trunk", self._seed.trunk, attempt.traces["trunk"]),
            self._compare_branch(record.branches[0], attempt),
        ]
        yield from (mismatch for mismatch in mismatches if mismatch is not None)
        yield from compare_seeds(record, result, manifest.plan.fork_at)
        # What the manifest tells people of the program is the first seed's.
        if record.seed == manifest.seeds[0].seed:
            yield from _compare_descriptions(manifest.program.description, result.program)
        if manifest.program.observed != result.observed:  # the same of every seed
            yield Mismatch("trunk", None, "probes and measures", (), "description")
        consumed = record.branches[0].consumed
        recorded = None if consumed is None else self._seed.run.listed(consumed).sha256
        if recorded != attempt.consumed:
            yield Mismatch("control", None, "what it consumed", (), "data drift")

    def branches(self, attempt: Attempt) -> Iterator[Mismatch]:
        """Where each replayed branch differs from the record."""
        if attempt.ended is not None:
            yield attempt.ended
        for name in attempt.records:
            mismatch = self._compare_branch(self._seed.record.branch(name), attempt)
            if mismatch is not None:
                yield mismatch

    def _compare_branch(self, recorded: BranchRecord, attempt: Attempt) -> Mismatch | None:
        name = recorded.name
        trace = self._seed.control if name == "control" else self._seed.run.trace(recorded.trace)
        plan = self._seed.run.manifest.plan
        return (
            compare_traces(name, trace, attempt.traces[name])
            or compare_records(recorded, attempt.records[name], {"t0": plan.fork_at, **plan.probed})
            or self._compare_samples(recorded, attempt)
            or compare_outcomes(name, self._seed.run.outcome(recorded), attempt.outcomes[name])
        )

    def _compare_samples(self, recorded: BranchRecord, attempt: Attempt) -> Mismatch | None:
        """What was recorded of single samples; earlier builds recorded nothing."""
        if recorded.samples is None:
            return None
        there = attempt.samples.get(recorded.name, [])
        first = self._seed.run.manifest.plan.fork_at + 1
        pairs = itertools.zip_longest(self._seed.run.samples(recorded.samples), there)
        for step, (left, right) in enumerate(pairs, start=first):
            if left != right:
                return Mismatch(recorded.name, step, "batch", (), "data drift")
        return None

    def inputs(self, attempt: Attempt) -> Iterator[Mismatch]:
        """Where a replay differs from the record in what no other environment explains.

        That is what was consumed at any step, where the random streams stand, what there is of
        steps, components, tables and labels, where a branch diverged, and what the manifest says
        of data and program. Rounding changes none of it, unless the program makes its data or
        its draws of rounded numbers: then nothing can be said of it.
        """
        traces = {"trunk": self._seed.trunk, "control": self._seed.control}
        for name, trace in attempt.traces.items():
            recorded = traces.get(name) or self._recorded_trace(name)
            mismatch = compare_inputs(name, recorded, trace)
            if mismatch is not None:
                yield mismatch
        for name, record in attempt.records.items():
            yield from self._compare_shapes(name, record, attempt.outcomes[name])
        yield from filter(is_input, self.trunk(attempt))

    def reached(self, mismatch: Mismatch, attempt: Attempt) -> bool:
        """Whether a replay stood in every state that the record commits to, of a branch.

        The trunk and the fork are judged by the control, which goes on from them.
        """
        name = "control" if mismatch.branch in ("trunk", "fork") else mismatch.branch
        if name not in attempt.records:
            return False
        here, there = self._seed.record.branch(name).digests, attempt.records[name].digests
        times = ("t0", *self._seed.run.manifest.plan.probed)
        return all(time in here and here[time] == there.get(time) for time in times)

    def unfounded(self, attempt: Attempt) -> Iterator[Mismatch]:
        """Where the record contradicts states that the replay reached, too.

        No environment explains that. The trunk must have been compared before.
        """
        plan = self._seed.run.manifest.plan
        steps = {"t0": plan.fork_at, **plan.probed}
        for name, record in attempt.records.items():
            recorded = self._seed.record.branch(name)
            trace = self._seed.control if name == "control" else self._recorded_trace(name)
            yield from unfounded(
                BranchSide(recorded, trace, self._seed.run.outcome(recorded)),
                BranchSide(record, attempt.traces[name], attempt.outcomes[name]),
                steps,
                self._shared,
            )

    def _recorded_trace(self, name: str) -> Trace:
        return self._seed.run.trace(self._seed.record.branch(name).trace)

    def _compare_shapes(
        self, name: str, replayed: BranchRecord, outcome: Outcome
    ) -> Iterator[Mismatch]:
        record = self._seed.record.branch(name)
        recorded = self._seed.run.outcome(record)
        if record.order_sha256 != replayed.order_sha256:
            yield Mismatch(name, None, "order", (), "order drift")
        if record.diverged_at != replayed.diverged_at:
            yield Mismatch(name, replayed.diverged_at, "loss", (), "state drift")
        yield from compare_resets(record, replayed)
        for time, digests in record.digests.items():
            there = replayed.digests.get(time, {})
            changed = [key for key in sorted(digests) if there.get(key) != digests[key]]
            streams = [key for key in changed if key.startswith("rng/")]
            if streams:
                yield Mismatch(name, None, streams[0], tuple(streams[1:]), "RNG drift")
                return
        for probe in self._seed.run.manifest.program.observed.probes:
            if recorded.labels_of(probe).tobytes() != outcome.labels_of(probe).tobytes():
                yield Mismatch(name, None, labels_name(probe), (), "data drift")


def is_input(mismatch: Mismatch) -> bool:
    """Whether a mismatch is one that no rounding makes, see :meth:`SeedComparison.inputs`."""
    excusable = ("state drift", "outcome", "commitment")
    return mismatch.kind not in excusable or mismatch.component == "rng"


def compare_seeds(
    left: SeedRecord | TrunkResult, right: TrunkResult, fork_at: int
) -> Iterator[Mismatch]:
    """Where two descriptions of one seed differ: commitments, order, streams, data."""
    commitments = [
        compare_commitments("trunk", left.initial, right.initial, 1),
        compare_commitments("fork", left.fork_digests, right.fork_digests, fork_at + 1),
    ]
    yield from (mismatch for mismatch in commitments if mismatch is not None)
    if left.order_sha256 != right.order_sha256:
        yield Mismatch("trunk", None, "order", (), "order drift")
    if left.rng.streams != right.rng.streams:
        yield Mismatch("trunk", None, "rng", (), "commitment")
    for name in ("consumed_sha256", "probe_sha256", "declared", "samples", "loader", "data_from"):
        if getattr(left.data, name) != getattr(right.data, name):
            yield Mismatch("trunk", None, f"data ({name})", (), "data drift")


def _compare_descriptions(
    recorded: Mapping[str, str], replayed: Mapping[str, str]
) -> Iterator[Mismatch]:
    names = set(recorded) | set(replayed)
    changed = sorted(name for name in names if recorded.get(name) != replayed.get(name))
    if changed:
        yield Mismatch("trunk", None, changed[0], tuple(changed[1:]), "description")


def compare_processes(trunk: Attempt, branches: Attempt) -> Iterator[Mismatch]:
    """What two processes of one replay were not given alike, by a factory called with one seed.

    Args:
        trunk: Of trunk and control.
        branches: Of the same seed.
    """
    if isinstance(trunk.result, TrunkResult) and isinstance(branches.result, BranchesResult):
        for built in branches.result.built:
            changed = trunk.result.built.differences(built)
            if changed:
                yield Mismatch("branches", None, changed[0], changed[1:], "description")
    control = trunk.records.get("control")
    here = (control.evaluated_on if control else None) or {}
    for name, record in branches.records.items():
        there = record.evaluated_on or {}
        # Recalibration batches come from the trunk there, and from the recorded fork here.
        made = [item for item in sorted(here) if item != "recalibration"]
        other = [item for item in made if here[item] != there.get(item)]
        if other:
            yield Mismatch(name, None, f"probe {other[0]}", (), "data drift")


def find_disagreement(left: Attempt, right: Attempt) -> Mismatch | None:
    """The earliest place at which two runs of one job differ, or None.

    Args:
        left: One run.
        right: The other; of branches, those that both ran are compared.
    """
    found: list[Mismatch | None] = [
        compare_traces(name, left.traces[name], right.traces[name])
        for name in left.traces
        if name in right.traces
    ]
    if left.ended != right.ended:
        found += [left.ended, right.ended]
    elif isinstance(left.result, TrunkResult) and isinstance(right.result, TrunkResult):
        fork_at = left.traces["trunk"].last_step
        found += compare_seeds(left.result, right.result, fork_at)
        found += _compare_descriptions(left.result.program, right.result.program)
    for name in left.records:  # after the data, another probe among them, that explain outcomes
        if name in right.records:
            times = dict.fromkeys(left.records[name].digests, 0)
            found.append(compare_records(left.records[name], right.records[name], times))
            found.append(compare_outcomes(name, left.outcomes[name], right.outcomes[name]))
    mismatches = [mismatch for mismatch in found if mismatch is not None]
    return min(mismatches, key=lambda mismatch: mismatch.step or 2**63, default=None)


def _consumed_sha256(folder: Path) -> str | None:
    is_kept = (folder / CONSUMED_FILE).exists()
    return artifacts.file_sha256(folder, CONSUMED_FILE) if is_kept else None


def _read_trace(folder: Path, name: str) -> Trace:
    tensors, _ = store.read_tensors(folder / f"{name}.trace.safetensors", what=name)
    return trace_from_tensors(tensors, what=name)


def _read_samples(folder: Path, name: str) -> list[Digests]:
    tensors, _ = store.read_tensors(folder / f"{name}.samples.safetensors", what=name)
    return samples_from_tensors(tensors, what=name)


def _read_outcome(folder: Path, name: str) -> Outcome:
    tensors, _ = store.read_tensors(folder / f"{name}.outcome.safetensors", what=name)
    return outcome_from_tensors(tensors, what=name)
