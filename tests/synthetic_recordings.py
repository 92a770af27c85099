"""Synthetic recordings: a loop of arithmetic, with numpy and without torch.

::

    write_recording(folder, key, Loop(steps=5))      an honest recording, signed
    write_replay(recording, key, last_step=5)        what somebody's replay leaves beside it
    write_unfinished(folder, Loop(steps=5))          what a killed loop leaves

The fields of :class:`Loop` after ``seed`` make two loops part at a step. What is written can be
forged with the functions of :mod:`forging`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from studies import Run

from auditkit.files import store
from auditkit.formats import canonical
from auditkit.formats.recipes import digest_raw, order_digest
from auditkit.formats.run_files import trace_to_tensors
from auditkit.formats.snapshot_file import FORMAT, tensor_key
from auditkit.formats.statements import manifest_from_statement, to_statement
from auditkit.records.digest import ABSENT, COMMITMENT_RECIPE, EVIDENCE_RECIPE
from auditkit.records.environment import Environment
from auditkit.records.evidence import Trace
from auditkit.records.manifest import CodeFile, FileRecord, Producer, ProgramRecord, RunTimes
from auditkit.records.recording import (
    TRACE_STEPS,
    CheckpointRecord,
    RankRecord,
    RecordingManifest,
    WorldRecord,
)
from auditkit.records.report import REPLAY_NAME, Finding, ReplayReport
from auditkit.records.rng import ALWAYS_UNCOVERED, UNSEEDED, RngContract, StreamContract
from auditkit.records.tensor import RawTensor
from auditkit.signing.envelopes import open_envelope, sign_statement
from auditkit.signing.keys import PrivateKey, TrustedKey, fingerprint, generate_key

Entries = dict[str, RawTensor | bytes]
State = dict[str, Entries]

SOURCE = b"print('a training loop')\n"

ENVIRONMENT = Environment(
    python="3.11.7 CPython",
    packages={"numpy": "2.4.6", "torch": "2.13.0"},
    hardware={"processor": "x86_64", "cores": "2"},
    libraries={"mkl": "2026.1"},
    variables={},
    determinism={"torch threads": "1", "deterministic algorithms": "False"},
)


@dataclass(frozen=True)
class Loop:
    """A loop that is recorded.

    Attributes:
        steps: Steps that each process takes.
        ranks: How many processes there are.
        checkpoints: Steps after which a checkpoint is written.
        seed: What it seems to be seeded with.
        loader: Name of a second loader, which delivers at every other step; or None.
        order_at: Step from which on other samples are consumed.
        batch_at: Step from which on the samples have other bytes.
        state_at: Row from which on the parameters are others, by ``nudge``.
        nudge: How far they are moved.
    """

    steps: int = 5
    ranks: int = 1
    checkpoints: tuple[int, ...] = (2,)
    seed: int = 0
    loader: str | None = None
    order_at: int | None = None
    batch_at: int | None = None
    state_at: int | None = None
    nudge: float = 0.5

    def state(self, row: int, rank: int) -> State:
        """The training state before step ``row``."""
        moved = self.nudge if self.state_at is not None and row >= self.state_at else 0.0
        weight = np.array([1.0, -2.0], "<f4") * row + self.seed + np.array([moved, 0.0], "<f4")
        half = np.array([0x3F80 + row, 0x4000], "<u2")  # bfloat16: about 1 and 2
        found: State = {
            "params": {
                "half": RawTensor("bfloat16", (2,), half.tobytes()),
                "weight": RawTensor("float32", (2,), weight.astype("<f4").tobytes()),
            },
            "param_groups": {"lr": canonical.dumps(0.1)},
        }
        if row > 1:  # an optimizer's slots come with its first step
            slot = np.array([0.5], "<f8") * row
            found["optimizer/momentum_buffer"] = {"0": RawTensor("float64", (1,), slot.tobytes())}
        for name in ("rng/numpy", "rng/python", "rng/torch"):
            number = row + 1000 * rank + 10**6 * self.seed
            found[name] = {"state": canonical.dumps([name, number])}
        return found

    def consumed(self, step: int, rank: int) -> dict[str, bytes]:
        """Evidence of what a step consumed."""
        first = 100 * rank + 2 * step
        if self.order_at is not None and step >= self.order_at:
            first += 50
        other_bytes = int(self.batch_at is not None and step >= self.batch_at)
        order = np.array([[0, first], [0, first + 1]], np.int64)
        found = {
            "order": order_digest(EVIDENCE_RECIPE, order),
            "batch": _digest({"0": canonical.dumps([first, other_bytes])}),
        }
        if self.loader is not None:
            blank = step % 2 == 0
            for name, digest in list(found.items()):
                found[f"{name}/{self.loader}"] = ABSENT if blank else digest
        return found


#: Somebody who replays recordings that others signed.
REVIEWER = generate_key()


@dataclass(frozen=True)
class Recording(Run):
    """A recording on disk."""

    @property
    def trusted(self) -> list[TrustedKey]:
        """The author's key, and the reviewer's."""
        reviewer = TrustedKey(fingerprint(REVIEWER), REVIEWER.public_key(), "test")
        return [*super().trusted, reviewer]

    @property
    def recorded(self) -> RecordingManifest:
        """What its manifest says."""
        manifest = manifest_from_statement(
            open_envelope(self.path.read_bytes()).payload, what="manifest"
        )
        assert isinstance(manifest, RecordingManifest)
        return manifest


def write_recording(
    folder: Path,
    key: PrivateKey,
    loop: Loop | None = None,
    change: Callable[[RecordingManifest], RecordingManifest] = lambda manifest: manifest,
) -> Recording:
    """Write a recording.

    Args:
        folder: The folder, which need not exist.
        key: What it is signed with.
        loop: What was recorded.
        change: Changes what is signed; the files stay.
    """
    loop = loop or Loop()
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "train.py").write_bytes(SOURCE)
    ranks = tuple(_write_rank(folder, loop, rank, "") for rank in range(loop.ranks))
    roles = {"code/train.py": "code"}
    for record in ranks:
        roles |= dict.fromkeys(record.traces, "trace")
        roles |= {checkpoint.file: "checkpoint" for checkpoint in record.checkpoints}
    manifest = RecordingManifest(
        schema_version="1",
        producer=Producer("auditkit", "0.1.0"),
        run=RunTimes("2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z"),
        seed=loop.seed,
        program=ProgramRecord(
            target="train.py",
            arguments={},
            description={"model": "Linear"},
            git_commit=None,
            git_dirty=None,
            code=(CodeFile("train.py", hashlib.sha256(SOURCE).hexdigest()),),
        ),
        command=("train.py", "--epochs", "1"),
        environment=ENVIRONMENT,
        world=WorldRecord(loop.ranks, "gloo" if loop.ranks > 1 else None, {}),
        ranks=ranks,
        files=tuple(_listed(folder, name, role) for name, role in sorted(roles.items())),
    )
    recording = Recording(folder, key)
    recording.path.write_bytes(sign_statement(to_statement(change(manifest)), key))
    return recording


def write_unfinished(folder: Path, loop: Loop | None = None) -> Path:
    """Write what a loop leaves that was killed: files that end in ``.partial``, no manifest."""
    loop = loop or Loop()
    folder.mkdir(parents=True)
    for rank in range(loop.ranks):
        _write_rank(folder, loop, rank, store.PARTIAL)
    return folder


def write_replay(
    recording: Recording, key: PrivateKey = REVIEWER, name: str = REPLAY_NAME, **changes: Any
) -> Path:
    """Write what a replay says of a recording.

    Args:
        recording: The recording.
        key: What it is signed with.
        name: Of the file.
        changes: Fields of the :class:`ReplayReport`; by default everything was equal.
    """
    manifest = recording.recorded
    report = ReplayReport(
        schema_version="1",
        producer=Producer("auditkit", "0.1.0"),
        run=RunTimes("2026-01-02T00:00:00Z", "2026-01-02T00:10:00Z"),
        manifest_sha256=hashlib.sha256(recording.path.read_bytes()).hexdigest(),
        statement_sha256=hashlib.sha256(
            open_envelope(recording.path.read_bytes()).payload
        ).hexdigest(),
        command=("python", *manifest.command),
        ranks=manifest.world.size,
        first_step=1,
        last_step=manifest.ranks[0].steps,
        findings=(),
        environment=manifest.environment,
        checkpoints=sum(len(rank.checkpoints) for rank in manifest.ranks),
    )
    path = recording.folder / name
    payload = to_statement(replace(report, **changes))
    path.write_bytes(sign_statement(payload, key))
    return path


#: What a replay may have found.
DRIFT = Finding("state drift: params is another", "rank 0", 3, "params")


def write_snapshot(path: Path, state: Mapping[str, Mapping[str, RawTensor | bytes]]) -> None:
    """Write a snapshot file of components that are tensors and JSON."""
    tensors: dict[str, RawTensor] = {}
    components: dict[str, dict[str, object]] = {}
    for name, entries in state.items():
        specs: dict[str, object] = {}
        for entry, value in entries.items():
            if isinstance(value, RawTensor):
                tensors[tensor_key(name, entry)] = value
                specs[entry] = {"dtype": value.dtype, "shape": list(value.shape)}
            else:
                specs[entry] = {"json": canonical.loads(value, what=entry)}
        components[name] = specs
    store.write_tensors(path, tensors, {"format": FORMAT, "components": components})


def traces_of(loop: Loop, rank: int) -> Iterator[Trace]:
    """The chunks of a rank's trace."""
    first = 1
    while first == 1 or first <= loop.steps:
        last = min(first + TRACE_STEPS - 1, loop.steps)
        rows = [loop.consumed(step, rank) for step in range(first, last + 1)] + [{}]
        for row, number in zip(rows, range(first, last + 2), strict=True):
            row |= {name: _digest(part) for name, part in loop.state(number, rank).items()}
        names = sorted({name for row in rows for name in row})
        columns = {name: b"".join(row.get(name, ABSENT) for row in rows) for name in names}
        losses = np.array([1 / step for step in range(first, last + 1)] + [0.0], "<f8")
        yield Trace(first, losses.tobytes(), columns)
        first = last + 1 if last >= first else first + 1


def _write_rank(folder: Path, loop: Loop, rank: int, suffix: str) -> RankRecord:
    place = f"rank-{rank:04d}/" if rank else ""
    (folder / place / "trace").mkdir(parents=True, exist_ok=True)
    chunks = list(traces_of(loop, rank))
    traces = tuple(f"{place}trace/{number:06d}.safetensors" for number in range(len(chunks)))
    for name, chunk in zip(traces, chunks, strict=True):
        store.write_tensors(folder / f"{name}{suffix}", trace_to_tensors(chunk))
    checkpoints = []
    for step in loop.checkpoints:
        state = loop.state(step + 1, rank)
        state["loader"] = {"position": canonical.dumps(step)}
        file = f"{place}checkpoint-{step:08d}.safetensors"
        write_snapshot(folder / f"{file}{suffix}", state)
        checkpoints.append(CheckpointRecord(step, file, _commitments(state)))
    initial, final = loop.state(1, rank), loop.state(loop.steps + 1, rank)
    start, end = _commitments(initial), _commitments(final)
    streams = tuple(
        StreamContract(name, None, start[name], None, end[name])
        for name in sorted(initial)
        if name.startswith("rng/")
    )
    loaders = {"": {"batch size": "2"}}
    if loop.loader is not None:
        loaders[loop.loader] = {"batch size": "2"}
    return RankRecord(
        rank=rank,
        steps=loop.steps,
        epochs=1,
        traces=traces,
        components=tuple(sorted({name for chunk in chunks for name in chunk.columns})),
        initial=start,
        final=end,
        order_sha256=hashlib.sha256(f"order {rank} {loop.order_at}".encode()).hexdigest(),
        consumed_sha256=hashlib.sha256(f"consumed {rank} {loop.batch_at}".encode()).hexdigest(),
        rng=RngContract(UNSEEDED, streams, ALWAYS_UNCOVERED),
        loaders=loaders,
        checkpoints=tuple(checkpoints),
        resumed_at=(),
    )


def _listed(folder: Path, name: str, role: str) -> FileRecord:
    data = (folder / name).read_bytes()
    return FileRecord(name, role, len(data), hashlib.sha256(data).hexdigest())


def _digest(entries: Mapping[str, RawTensor | bytes]) -> bytes:
    return digest_raw(EVIDENCE_RECIPE, entries, {})


def _commitments(state: State) -> dict[str, str]:
    return {
        name: digest_raw(COMMITMENT_RECIPE, part, {}).hex() for name, part in sorted(state.items())
    }
