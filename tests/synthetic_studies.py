"""Synthetic studies: whole, signed, and large at little cost, since nothing is trained.

::

    write_study(folder, key, Size(seeds=20, steps=10_000))    a study that verifies without replay

Digests of states that no file holds are drawn at random; whatever a verifier can recompute from
the files (the fork, orders, commitments at t0) is computed. Torch is not loaded.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from auditkit.files import artifacts
from auditkit.formats import canonical, tensor_file
from auditkit.formats.ordering import Batch, delivered_order, order_sha256
from auditkit.formats.recipes import digest_raw, order_digest
from auditkit.formats.run_files import (
    Outcome,
    order_to_tensors,
    outcome_to_tensors,
    trace_to_tensors,
)
from auditkit.formats.seeds import RECIPE, derive_seed
from auditkit.formats.snapshot_file import FORMAT, tensor_key
from auditkit.formats.statements import to_statement
from auditkit.records.declaration import DECLARATIONS, matches
from auditkit.records.digest import COMMITMENT_RECIPE, EVIDENCE_BYTES, EVIDENCE_RECIPE
from auditkit.records.environment import Environment
from auditkit.records.evidence import CONSUMED, Trace
from auditkit.records.manifest import (
    MANIFEST_NAME,
    SIGNER_NAME,
    TIMES,
    BranchRecord,
    CodeFile,
    DataRecord,
    FileRecord,
    Producer,
    ProgramRecord,
    RunTimes,
    SeedRecord,
    StudyManifest,
)
from auditkit.records.plan import StudyPlan
from auditkit.records.rng import ALWAYS_UNCOVERED, DERIVED_STREAMS, RngContract, StreamContract
from auditkit.records.tensor import RawTensor
from auditkit.signing.envelopes import sign_statement
from auditkit.signing.keys import PrivateKey, public_line

SOURCE = b"def make_program(seed): ...\n"

TREATMENTS = ("momentum-reset", "batchnorm-reset", "order-shuffle")

#: From this size on a block of zeros becomes a hole in its file.
_HOLE = 2**24

_SLOT, _STREAMS = "optimizer/momentum_buffer", ("rng/numpy", "rng/python", "rng/torch")
_STATE = ("params", "param_groups", "batchnorm", _SLOT, "scheduler", "averaged/ema", "extras/queue")

Section = dict[str, RawTensor | bytes]


@dataclass(frozen=True)
class Size:
    """How large a study is.

    Attributes:
        seeds: Seeds, with eight branches each: control, replica, three placebos, TREATMENTS.
        steps: The horizon; the fork is at a tenth of it, the window another tenth.
        batch: Samples a step.
        probe: Rows and classes of the probe's table.
        padding: Bytes of zeros that every fork has in its parameters.
    """

    seeds: int = 2
    steps: int = 40
    batch: int = 4
    probe: tuple[int, int] = (20, 3)
    padding: int = 2**10

    @property
    def plan(self) -> StudyPlan:
        """The plan, with every parameter filled in."""
        tenth = self.steps // 10
        plan = StudyPlan(tenth, tenth, self.steps, range(self.seeds), TREATMENTS, placebos=3)
        return plan.with_perturbations(
            DECLARATIONS[spec.name].resolve(spec) for spec in plan.perturbations
        )


def write_study(folder: Path, key: PrivateKey, size: Size) -> Path:
    """Write a study.

    Args:
        folder: The folder, which need not exist.
        key: What it is signed with.
        size: How large it is.

    Returns:
        The manifest.
    """
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "made.py").write_bytes(SOURCE)
    seeds = tuple(_Seed(folder, size, seed).write() for seed in range(size.seeds))
    roles = {"code/made.py": "code"}
    for record in seeds:
        roles |= {record.fork: "fork", record.order: "order", record.trunk: "trace"}
        for branch in record.branches:
            roles |= {branch.trace: "trace", branch.outcome: "outcome"}
    manifest = StudyManifest(
        schema_version="1",
        producer=Producer("auditkit", "0.1.0"),
        run=RunTimes("2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z"),
        plan=size.plan,
        program=ProgramRecord(
            target="made.py:make_program",
            arguments={},
            description={"model": "Linear"},
            git_commit=None,
            git_dirty=None,
            code=(CodeFile("made.py", hashlib.sha256(SOURCE).hexdigest()),),
        ),
        environment=Environment(
            python="3.11.7 CPython",
            packages={"numpy": "2.4.6", "torch": "2.13.0"},
            hardware={"processor": "x86_64", "cores": "2"},
            libraries={"mkl": "2026.1"},
            variables={},
            determinism={"torch threads": "1", "deterministic algorithms": "True"},
        ),
        seeds=seeds,
        files=tuple(
            FileRecord(
                name, role, artifacts.file_size(folder, name), artifacts.file_sha256(folder, name)
            )
            for name, role in sorted(roles.items())
        ),
    )
    (folder / SIGNER_NAME).write_text(public_line(key))
    path = folder / MANIFEST_NAME
    path.write_bytes(sign_statement(to_statement(manifest), key))
    return path


class _Seed:
    """Writes one seed."""

    def __init__(self, folder: Path, size: Size, seed: int) -> None:
        self._folder, self._size, self._seed = folder, size, seed
        self._plan = size.plan
        self._rng = np.random.default_rng(seed)
        self._place = f"seed-{seed:04d}"
        pairs = self._rng.integers(0, 50_000, (self._plan.horizon, size.batch, 2))
        pairs[:, :, 0] = np.arange(self._plan.horizon)[:, None] // 100
        self._batches: list[Batch] = list(pairs)
        self._state = self._make_state()
        self._fork_digests = _digests(COMMITMENT_RECIPE, self._state)
        held = self._plan.horizon - self._plan.fork_at
        self._columns = {name: self._cells(held + 1) for name in (*CONSUMED, *_STATE, *_STREAMS)}
        for name, digest in _digests(EVIDENCE_RECIPE, self._state).items():
            if name in self._columns:
                self._columns[name][0] = np.frombuffer(bytes.fromhex(digest), np.uint8)
        self._columns["order"][:-1] = _order_cells(self._batches[self._plan.fork_at :])
        self._columns["batch"][-1] = self._columns["order"][-1] = 0
        self._losses = self._rng.random(held + 1)
        self._losses[-1] = 0
        self._at = {
            "t0": {name: self._fork_digests[name] for name in (*_STATE, *_STREAMS)},
            **{time: self._drawn_digests() for time in ("t0+W", "T")},
        }
        self._outcome = self._drawn_outcome()

    def write(self) -> SeedRecord:
        """Write the files; what the manifest says of them."""
        (self._folder / self._place).mkdir()
        fork, order = f"{self._place}/fork.safetensors", f"{self._place}/order.safetensors"
        trunk = f"{self._place}/trunk.trace.safetensors"
        _write_snapshot(self._folder / fork, self._state)
        _write(self._folder / order, order_to_tensors(self._batches, None))
        self._write_trunk(trunk)
        return SeedRecord(
            seed=self._seed,
            fork=fork,
            fork_digests=self._fork_digests,
            order=order,
            order_sha256=order_sha256(self._batches),
            trunk=trunk,
            initial=self._drawn_digests(),
            components=tuple(sorted(self._columns)),
            rng=self._contract(),
            data=DataRecord(_hex(b"data"), _hex(b"probe"), {"batch size": "4"}, None, 1000),
            branches=tuple(self._write_branch(name) for name in self._plan.branch_names),
        )

    def _make_state(self) -> dict[str, Section]:
        weight = self._rng.random(1000, dtype=np.float32)
        zeros = memoryview(mmap.mmap(-1, self._size.padding))
        tensor = RawTensor("float32", (1000,), weight.astype("<f4").tobytes())
        state: dict[str, Section] = {name: {"weight": tensor} for name in _STATE}
        state["params"]["zeros"] = RawTensor("uint8", (self._size.padding,), zeros)
        for name in ("param_groups", "scheduler", *_STREAMS, "loader"):
            state[name] = {"state": canonical.dumps([name, self._seed])}
        return state

    def _write_trunk(self, name: str) -> None:
        rows = self._plan.fork_at + 1
        columns = {column: self._cells(rows) for column in self._columns}
        columns["order"][:-1] = _order_cells(self._batches[: self._plan.fork_at])
        for column, cells in columns.items():
            cells[-1] = 0 if column in CONSUMED else self._columns[column][0]
        losses = np.append(self._rng.random(rows - 1), 0.0)
        _write(self._folder / name, trace_to_tensors(_trace(1, losses, columns)))

    def _write_branch(self, name: str) -> BranchRecord:
        role, spec = self._plan.branch(name)
        declared = DECLARATIONS[spec.name] if spec else None
        touched = declared.touches(spec) if declared and spec else ()
        columns, at, outcome = dict(self._columns), dict(self._at), self._outcome
        batches = self._batches[self._plan.fork_at :]
        if spec is not None:
            for column in (*_STATE, *_STREAMS):
                columns[column] = self._cells(len(self._losses))
                if not matches(column, touched):
                    columns[column][0] = self._columns[column][0]
            at = {time: self._drawn_digests() for time in TIMES}
            at["t0"] |= {
                column: digest
                for column, digest in self._at["t0"].items()
                if not matches(column, touched)
            }
            outcome = self._drawn_outcome()
        if spec is not None and declared is not None and declared.kind == "order":
            window = slice(0, self._plan.window)
            batches = delivered_order(batches, spec, self._plan.window, self._seed)
            for column in CONSUMED:
                columns[column] = self._columns[column].copy()
            columns["order"][window] = _order_cells(batches[window])
            columns["batch"][window] = self._cells(self._plan.window)
        stem, first = f"{self._place}/{name}", self._plan.fork_at + 1
        trace = _trace(first, self._losses, columns)
        _write(self._folder / f"{stem}.trace.safetensors", trace_to_tensors(trace))
        _write(self._folder / f"{stem}.outcome.safetensors", outcome_to_tensors(outcome))
        return BranchRecord(
            name=name,
            role=role,
            perturbation=spec,
            version=declared.version if declared else None,
            trace=f"{stem}.trace.safetensors",
            outcome=f"{stem}.outcome.safetensors",
            order_sha256=order_sha256(batches),
            digests=at,
        )

    def _contract(self) -> RngContract:
        streams = [
            StreamContract(
                name,
                str(derive_seed(self._seed, name.removeprefix("rng/"))),
                _hex(f"{name} {self._seed}".encode()),
                self._at["t0"][name],
                self._at["T"][name],
            )
            for name in _STREAMS
        ]
        streams += [StreamContract(name, None, None, None, None) for name in DERIVED_STREAMS]
        streams.sort(key=lambda stream: stream.stream)
        return RngContract(RECIPE, tuple(streams), ALWAYS_UNCOVERED)

    def _cells(self, rows: int) -> NDArray[np.uint8]:
        return self._rng.integers(1, 256, (rows, EVIDENCE_BYTES), dtype=np.uint8)

    def _drawn_digests(self) -> dict[str, str]:
        return {name: _hex(self._rng.bytes(8)) for name in (*_STATE, *_STREAMS)}

    def _drawn_outcome(self) -> Outcome:
        rows, classes = self._size.probe
        tables: dict[str, NDArray[np.float32]] = {}
        for time in TIMES:
            table = self._rng.random((rows, classes)) + 0.1
            probabilities = (table / table.sum(axis=1, keepdims=True)).astype(np.float32)
            tables |= {time: probabilities, f"{time}/recalibrated": probabilities}
        return Outcome(np.arange(rows) % classes, tables)


def _trace(
    first: int, losses: NDArray[np.float64], columns: Mapping[str, NDArray[np.uint8]]
) -> Trace:
    cells = {name: column.tobytes() for name, column in columns.items()}
    return Trace(first, losses.astype("<f8").tobytes(), cells)


def _order_cells(batches: Iterable[Batch]) -> NDArray[np.uint8]:
    cells = b"".join(order_digest(EVIDENCE_RECIPE, batch) for batch in batches)
    return np.frombuffer(cells, np.uint8).reshape(-1, EVIDENCE_BYTES)


def _digests(recipe: str, state: Mapping[str, Section]) -> dict[str, str]:
    return {name: digest_raw(recipe, section, {}).hex() for name, section in state.items()}


def _hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_snapshot(path: Path, state: Mapping[str, Section]) -> None:
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
    _write(path, tensors, {"format": FORMAT, "components": components})


def _write(path: Path, tensors: Mapping[str, RawTensor], metadata: object = None) -> None:
    """Write a tensor file; large blocks, which are all zeros here, take no room on the disk."""
    with path.open("wb") as file:
        for chunk in tensor_file.to_chunks(tensors, metadata):
            if chunk.nbytes >= _HOLE and not any(chunk[:64]):
                file.seek(chunk.nbytes, 1)
            else:
                file.write(chunk)
        file.truncate()
