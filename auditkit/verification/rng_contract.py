"""Check 5, RNG contract: streams are whole; branches of a seed start alike; seeds do not."""

from __future__ import annotations

from collections.abc import Iterator

from auditkit.evidence.reader import SeedEvidence
from auditkit.formats.seeds import RECIPE, derive_seed
from auditkit.records.declaration import matches
from auditkit.records.manifest import BranchRecord, SeedRecord, StudyManifest
from auditkit.records.plan import StudyPlan
from auditkit.records.report import Finding
from auditkit.records.rng import ALWAYS_UNCOVERED, DERIVED_STREAMS, RngContract

#: Streams that every process has.
GLOBAL_STREAMS = ("rng/numpy", "rng/python", "rng/torch")


def check_contracts(manifest: StudyManifest) -> Iterator[Finding]:
    """Over all seeds: contracts are whole and no two seeds start alike."""
    starts: dict[tuple[str | None, ...], int] = {}
    ends: dict[tuple[tuple[str, str], ...], int] = {}
    for record in manifest.seeds:
        end = tuple(sorted(record.branches[0].digests.get("T", {}).items()))
        if end in ends:
            yield Finding(
                f"the control ends in the very state of seed {ends[end]}'s: a pair twice is no "
                "replication",
                where=f"seed {record.seed}",
                component="params",
            )
        ends[end] = record.seed
        yield from _check_contract(record, manifest.plan, bool(manifest.program.command))
        streams = {stream.stream: stream for stream in record.rng.streams}
        start = tuple(streams[name].start if name in streams else None for name in GLOBAL_STREAMS)
        if start in starts:
            yield Finding(
                f"starts from the same random streams as seed {starts[start]}",
                where=f"seed {record.seed}",
                component="rng",
            )
        starts[start] = record.seed


def check_branch_streams(
    seed: SeedEvidence, branch: BranchRecord, touched: tuple[str, ...]
) -> Iterator[Finding]:
    """For one branch: it starts from the control's streams at t0."""
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


def check_uncovered(contract: RngContract, where: str) -> Iterator[Finding]:
    """What no contract covers is named in every one, so that nobody takes it for covered."""
    for text in ALWAYS_UNCOVERED:
        if text not in contract.uncovered:
            yield Finding(
                f"the contract does not name what it does not cover: {text}", where, component="rng"
            )


def _check_contract(record: SeedRecord, plan: StudyPlan, scripted: bool) -> Iterator[Finding]:
    where = f"seed {record.seed}"
    names = [stream.stream for stream in record.rng.streams]
    control = record.branches[0]
    at_fork, at_end = control.digests.get("t0", {}), control.digests.get("T", {})
    wanted = {name for name in (*record.components, *at_fork) if name.startswith("rng/")}
    wanted |= set(GLOBAL_STREAMS)
    if plan.augmentation_rng == "per-sample":
        wanted |= set(DERIVED_STREAMS)
    for name in sorted(wanted ^ set(names)):
        problem = "is missing from the contract" if name in wanted else "is in no component"
        yield Finding(f"the stream {problem}", where, component=name)
    if len(set(names)) != len(names):
        yield Finding("a stream is listed twice", where, component="rng")
    if record.rng.recipe != RECIPE:
        yield Finding(f"unknown recipe {record.rng.recipe!r}", where, component="rng")
    yield from check_uncovered(record.rng, where)
    for stream in record.rng.streams:
        name = stream.stream
        if not name.startswith("rng/"):
            if any((stream.seed, stream.start, stream.fork, stream.end)):
                yield Finding("a derived stream has no state of its own", where, component=name)
            continue
        if stream.fork != at_fork.get(name) or stream.end != at_end.get(name):
            yield Finding("the contract is not of the control's states", where, component=name)
        is_seeded = not name.startswith("rng/extras/")
        # A script seeds itself, and says so by leaving the seeds out.
        derives = is_seeded and not scripted
        seed = str(derive_seed(record.seed, name.removeprefix("rng/"))) if derives else None
        if stream.seed != seed or (is_seeded and stream.start is None):
            yield Finding("the stream was not seeded from the study seed", where, component=name)
