"""One run of a replayed job, and where it parts from the record or from another run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from auditkit import store
from auditkit.comparison import (
    Parting,
    compare_commitments,
    compare_outcomes,
    compare_records,
    compare_traces,
)
from auditkit.evidence import SeedEvidence
from auditkit.records.evidence import Trace
from auditkit.records.study import BranchesResult, BranchRecord, TrunkResult
from auditkit.runfiles import Outcome, outcome_from_tensors, trace_from_tensors


@dataclass(frozen=True)
class Attempt:
    """One run of one job.

    Attributes:
        result: What the worker answered.
        traces: Evidence by branch, ``trunk`` included.
        outcomes: Probe tables by branch.
        records: What the worker says of each branch.
    """

    result: TrunkResult | BranchesResult
    traces: Mapping[str, Trace]
    outcomes: Mapping[str, Outcome]
    records: Mapping[str, BranchRecord]


def read_attempt(folder: Path, result: TrunkResult | BranchesResult) -> Attempt:
    """Read what a job left behind.

    Args:
        folder: The job's folder.
        result: What its worker answered.

    Raises:
        StoreError: When a file is missing.
        FormatError: When a file is broken.
    """
    is_trunk = isinstance(result, TrunkResult)
    records = (result.control,) if isinstance(result, TrunkResult) else result.branches
    names = [*(["trunk"] if is_trunk else []), *(record.name for record in records)]
    return Attempt(
        result,
        {name: _read_trace(folder, name) for name in names},
        {record.name: _read_outcome(folder, record.name) for record in records},
        {record.name: record for record in records},
    )


class Comparison:
    """Compares replays of one seed with its record.

    Args:
        seed: The recorded evidence.
    """

    def __init__(self, seed: SeedEvidence) -> None:
        self._seed = seed

    def trunk(self, attempt: Attempt) -> Iterator[Parting]:
        """Where trunk, fork, control, contract or data part from the record."""
        result, record = attempt.result, self._seed.record
        if not isinstance(result, TrunkResult):
            return
        partings = [
            compare_commitments("trunk", record.initial, result.initial, 1),
            compare_traces("trunk", self._seed.trunk, attempt.traces["trunk"]),
            compare_commitments(
                "fork",
                record.fork_digests,
                result.fork_digests,
                self._seed.run.manifest.plan.fork_at + 1,
            ),
            self._compare_branch(record.branches[0], attempt),
        ]
        yield from (parting for parting in partings if parting is not None)
        if record.order_sha256 != result.order_sha256:
            yield Parting("trunk", None, "order", (), "order drift")
        if record.rng.streams != result.rng.streams:
            yield Parting("trunk", None, "rng", (), "commitment")
        for name in ("consumed_sha256", "probe_sha256", "declared", "samples", "loader"):
            if getattr(record.data, name) != getattr(result.data, name):
                yield Parting("trunk", None, f"data ({name})", (), "data drift")
        yield from self._compare_description(result.program)

    def _compare_description(self, replayed: Mapping[str, str]) -> Iterator[Parting]:
        """What the manifest tells people of the program; it is the first seed's."""
        manifest = self._seed.run.manifest
        described = manifest.program.description
        if self._seed.record.seed == manifest.seeds[0].seed and described != replayed:
            names = set(described) | set(replayed)
            first, *others = sorted(n for n in names if described.get(n) != replayed.get(n))
            yield Parting("trunk", None, first, tuple(others), "description")

    def branches(self, attempt: Attempt) -> Iterator[Parting]:
        """Where each replayed branch parts from the record."""
        for name in attempt.records:
            parting = self._compare_branch(self._seed.record.branch(name), attempt)
            if parting is not None:
                yield parting

    def _compare_branch(self, recorded: BranchRecord, attempt: Attempt) -> Parting | None:
        name = recorded.name
        trace = self._seed.control if name == "control" else self._seed.run.trace(recorded.trace)
        plan = self._seed.run.manifest.plan
        return (
            compare_traces(name, trace, attempt.traces[name])
            or compare_records(recorded, attempt.records[name], {"t0": plan.fork_at, **plan.times})
            or compare_outcomes(name, self._seed.run.outcome(recorded), attempt.outcomes[name])
        )


def find_disagreement(left: Attempt, right: Attempt) -> Parting | None:
    """The earliest place at which two runs of one job part, or None."""
    partings = [compare_traces(name, left.traces[name], right.traces[name]) for name in left.traces]
    partings += [
        compare_outcomes(name, left.outcomes[name], right.outcomes[name]) for name in left.outcomes
    ]
    partings += [
        compare_records(left.records[name], right.records[name], dict.fromkeys(record.digests, 0))
        for name, record in left.records.items()
    ]
    found = [parting for parting in partings if parting is not None]
    return min(found, key=lambda parting: parting.step or 2**63, default=None)


def _read_trace(folder: Path, name: str) -> Trace:
    tensors, _ = store.read_tensors(folder / f"{name}.trace.safetensors", what=name)
    return trace_from_tensors(tensors, what=name)


def _read_outcome(folder: Path, name: str) -> Outcome:
    tensors, _ = store.read_tensors(folder / f"{name}.outcome.safetensors", what=name)
    return outcome_from_tensors(tensors, what=name)
