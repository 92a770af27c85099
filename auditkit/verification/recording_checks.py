"""Checks 4 and 5 of a recording: its files, ranks, traces, checkpoints and streams agree."""

from __future__ import annotations

from collections.abc import Iterator

from auditkit.evidence.chunks import BESIDE, check_chunks, place
from auditkit.evidence.reader import RecordingEvidence
from auditkit.records.evidence import CONSUMED, is_consumed
from auditkit.records.recording import TRACE_STEPS, RankRecord, RecordingManifest
from auditkit.records.report import Finding
from auditkit.records.rng import UNSEEDED, StreamContract
from auditkit.verification.listing import check_listing
from auditkit.verification.rng_contract import check_uncovered

#: Streams that every process has.
GLOBAL_STREAMS = ("rng/numpy", "rng/python", "rng/torch")

#: Settings without which nobody could tell why a replay differs.
_SETTINGS = ("torch threads", "deterministic algorithms")


def check_recording(evidence: RecordingEvidence) -> Iterator[Finding]:
    """Check 4: files, ranks, chunks, checkpoints and settings agree."""
    manifest = evidence.manifest
    yield from check_listing(manifest.files, _used(manifest), manifest.program.code)
    yield from _check_world(manifest)
    for name in _SETTINGS:
        if name not in manifest.environment.determinism:
            yield Finding(f"the environment does not say {name!r}", "environment")
    for rank in manifest.ranks:
        yield from _check_rank(rank)
    yield from check_chunks(evidence)


def check_streams(manifest: RecordingManifest) -> Iterator[Finding]:
    """Check 5: every rank's contract is whole."""
    for rank in manifest.ranks:
        where = place(rank)
        names = [stream.stream for stream in rank.rng.streams]
        if len(set(names)) != len(names):
            yield Finding("a stream is listed twice", where, component="rng")
        wanted = {name for name in rank.components if name.startswith("rng/")}
        listed = {name for name in names if name.startswith("rng/")}
        for name in sorted(wanted ^ listed):
            problem = "is missing from the contract" if name in wanted else "is in no component"
            yield Finding(f"the stream {problem}", where, component=name)
        streams = {stream.stream: stream for stream in rank.rng.streams}
        for name in GLOBAL_STREAMS:
            yield from _check_ends(streams.get(name), where, name)
        for name in sorted(listed):
            if streams[name].end != rank.final.get(name):
                text = "the contract's end is not the rank's final state"
                yield Finding(text, where, rank.steps + 1, name)
        if rank.rng.recipe != UNSEEDED:
            yield Finding("a recording seeds nothing", where, None, "rng")
        for stream in rank.rng.streams:
            if stream.seed is not None or stream.fork is not None:
                yield Finding("a recording seeds and forks nothing", where, None, stream.stream)
        yield from check_uncovered(rank.rng, where)


def twin_ranks(manifest: RecordingManifest) -> Iterator[str]:
    """Warnings of check 5: ranks that may have trained on the same samples."""
    seen: dict[tuple[str | None, str], int] = {}
    for rank in manifest.ranks:
        starts = {stream.stream: stream.start for stream in rank.rng.streams}
        mark = (starts.get("rng/torch"), rank.order_sha256)
        if mark in seen:
            yield (
                f"ranks {seen[mark]} and {rank.rank} start from the same rng/torch and consumed "
                "the same samples: each may have trained on all of the data"
            )
        else:
            seen[mark] = rank.rank


def _check_ends(stream: StreamContract | None, where: str, name: str) -> Iterator[Finding]:
    if stream is None:
        yield Finding("the contract lacks the stream", where, component=name)
    elif stream.start is None or stream.end is None:
        yield Finding("the contract does not say where it started and ended", where, None, name)


def _used(manifest: RecordingManifest) -> Iterator[tuple[str, str]]:
    """Name and role of every file that the manifest refers to, besides code."""
    for rank in manifest.ranks:
        yield from ((name, "trace") for name in rank.traces)
        yield from ((checkpoint.file, "checkpoint") for checkpoint in rank.checkpoints)


def _check_world(manifest: RecordingManifest) -> Iterator[Finding]:
    ranks, size = manifest.ranks, manifest.world.size
    if [rank.rank for rank in ranks] != list(range(size)):
        numbers = ", ".join(str(rank.rank) for rank in ranks[:8])
        yield Finding(f"ranks are {numbers}; the world has {size}, from 0", "world")
    if size > 1 and manifest.world.backend is None:
        yield Finding(f"{size} processes without a backend", "world")
    for rank in ranks[1:]:
        if rank.steps != ranks[0].steps:
            yield Finding(
                f"took {rank.steps} steps, rank {ranks[0].rank} took {ranks[0].steps}", place(rank)
            )


def _check_rank(rank: RankRecord) -> Iterator[Finding]:
    where = place(rank)
    if rank.steps < 1:
        yield Finding("no steps were recorded", where)
    n_chunks = max(-(-rank.steps // TRACE_STEPS), 1)
    if len(rank.traces) != n_chunks:
        yield Finding(f"{len(rank.traces)} trace files for {rank.steps} steps", where)
    if len(set(rank.components)) != len(rank.components):
        yield Finding("a component is listed twice", where)
    if list(rank.components) != sorted(rank.components):
        yield Finding("the list of components is not in the order of their names", where)
    for name in (*CONSUMED, "params"):
        if name not in rank.components:
            yield Finding("there is no such component", where, component=name)
    loaders = {name.partition("/")[2] for name in rank.components if is_consumed(name)}
    for name in sorted(loaders - set(rank.loaders)):
        yield Finding(f"nothing is said of the loader {name!r}", where)
    yield from _check_checkpoints(rank)


def _check_checkpoints(rank: RankRecord) -> Iterator[Finding]:
    where = place(rank)
    steps = [checkpoint.step for checkpoint in rank.checkpoints]
    if steps != sorted(set(steps)) or any(step > rank.steps for step in steps):
        yield Finding("checkpoints are not in the order of their steps", where)
    resumed = list(rank.resumed_at)
    if resumed != sorted(resumed) or any(step > rank.steps for step in resumed):
        yield Finding("resumptions are not in the order of their steps", where)
    ends = {0: rank.initial, rank.steps: rank.final}
    for checkpoint in rank.checkpoints:
        committed = ends.get(checkpoint.step)
        if committed is None:
            continue
        held = {
            name: v
            for name, v in checkpoint.digests.items()
            if name.partition("/")[0] not in BESIDE
        }
        for name in sorted(set(held) | set(committed)):
            if held.get(name) != committed.get(name):
                text = "the rank's commitment is of another state"
                yield Finding(text, checkpoint.file, checkpoint.step, name)
