"""What a large state costs: a checkpoint, and everything that is done with it.

Run it from anywhere::

    python tests/benchmarks/bench_checkpoint.py [--megabytes 88] [--repeat 5] [--folder DIR]
    python tests/benchmarks/bench_checkpoint.py --megabytes 4000 --repeat 1 --no-torch
    python tests/benchmarks/bench_checkpoint.py --moments

The state is of one model, its tensors of 4 MB. With ``--moments`` two thirds of it are Adam's
moments, which do not exist yet where a fork or checkpoint is restored: they are in ``extra`` there.
Rows take turns in one run; times are medians, of the processor and of the clock, with a ratio to
the row that each is held against.

``checkpoint``
    what a recording does at a batch boundary: state and data position, digests, and a file that
    is flushed to the disk; held against ``torch.save`` of the same and a flush.
``digest``
    SHA-256 of every component of the live state; held, as all that follows, against SHA-256 of
    as many bytes (*throughput* is the inverse of that ratio).
``restore``
    the file as a fork: read into the live objects.
``resume``
    the file as a recording goes on from it: read into the live objects and hashed there.
``fork check``
    both digests of every section of the file, as ``auditkit verify`` makes them.

``extra`` is the largest resident memory beyond that before, over the state's bytes (Linux only).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn

import auditkit as ak
from auditkit.evidence.reader import RunEvidence
from auditkit.files import artifacts
from auditkit.files.recording_folder import RecordingFolder
from auditkit.observe.values.digests import commitments
from auditkit.program.program import LoadedFactory
from auditkit.program.session import Session, open_session
from auditkit.recorder.checkpoint_checks import open_checkpoint
from auditkit.recorder.pending_checkpoint import PendingCheckpoint
from auditkit.records.manifest import FileRecord
from auditkit.records.recording import CheckpointRecord
from auditkit.study.stages.forker import load_fork, restore_fork

PIECE = 2**20  # elements of a tensor


@dataclass
class Cost:
    """What one row took, each time."""

    cpu: list[float] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)
    extra: list[float] = field(default_factory=list)


def _memory(name: str) -> float:
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{name}:\s+([0-9]+)", status)
    return 1024.0 * int(found[1]) if found else 0.0


@contextmanager
def measured(cost: Cost, n_bytes: int) -> Iterator[None]:
    """Add what happens inside to a row."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, start = _memory("VmRSS"), time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield
    now = resource.getrusage(resource.RUSAGE_SELF)
    cost.clock.append(time.perf_counter() - start)
    cost.cpu.append(now.ru_utime - used.ru_utime + now.ru_stime - used.ru_stime)
    cost.extra.append((_memory("VmHWM") - before) / n_bytes)


class Large(nn.Module):
    """A model of so many tensors, that computes nothing."""

    def __init__(self, n_tensors: int) -> None:
        super().__init__()
        pieces = (torch.rand(PIECE) for _ in range(n_tensors))
        self.pieces = nn.ParameterList(map(nn.Parameter, pieces))


def make_program(n_tensors: int, seed: int) -> ak.Program:
    """A program whose state is the model's parameters."""
    model = Large(n_tensors)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return ak.Program(
        model=model,
        optimizer=optimizer,
        loader=None,
        step=lambda *_: 0.0,
        measures={"none": ak.Measure(lambda _: 0.0)},
    )


def _make_moments(session: Session) -> None:
    optimizer = session.objects.optimizer
    for parameter in session.program.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def _forget_moments(session: Session) -> None:
    session.objects.optimizer.state.clear()
    session.state()  # which holds what was seen last


def _torch_save(session: Session, path: Path) -> None:
    state = [session.program.model.state_dict(), session.objects.optimizer.state_dict()]
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def _checkpoint(session: Session, folder: RecordingFolder) -> CheckpointRecord:
    pending = PendingCheckpoint(session, folder)
    pending.take(1, session.state(), counts=True)
    return CheckpointRecord(1, *pending.write(1))


def _sha256(session: Session) -> None:
    digest = hashlib.sha256()
    for parameter in session.program.model.parameters():
        moments = session.objects.optimizer.state.get(parameter, {}).values()
        for tensor in (parameter.detach(), *moments):
            digest.update(tensor.reshape(-1).numpy().data)


def _restore(session: Session, path: Path) -> None:
    restore_fork(session, load_fork(path))


def _resume(session: Session, path: Path, checkpoint: CheckpointRecord) -> None:
    restore_fork(session, open_checkpoint(path, checkpoint, at_once=False))


def _fork_check(path: Path) -> None:
    record = FileRecord(path.name, "fork", artifacts.file_size(path.parent, path.name), "")
    run = RunEvidence(path.parent, None)  # type: ignore[arg-type]
    run.__dict__["_files"] = {path.name: record}
    run.sections(path.name)


def measure(
    folder: Path, megabytes: int, repeat: int, *, with_torch: bool, with_moments: bool = False
) -> dict[str, Cost]:
    """Every row, in turns."""
    torch.set_num_threads(1)
    copies = 3 if with_moments else 1
    n_tensors = max(1, round(megabytes * 10**6 / (4 * PIECE * copies)))
    n_bytes = n_tensors * 4 * PIECE * copies
    plan = ak.StudyPlan(1, 1, 2, [0], ["carry"])
    factory = LoadedFactory(partial(make_program, n_tensors), sys.modules[__name__], "make", plan)
    session = open_session(factory, {}, plan, seed=0)
    if with_moments:
        _make_moments(session)
    recording = RecordingFolder(folder / "recording")
    (folder / "recording").mkdir()
    checkpoint = _checkpoint(session, recording)
    file = recording.checkpoint_path(checkpoint)
    rows: dict[str, Callable[[], object]] = {
        "torch.save + fsync": partial(_torch_save, session, folder / "torch.pt"),
        "checkpoint": partial(_checkpoint, session, recording),
        "SHA-256": partial(_sha256, session),
        "digest": lambda: commitments(session.state()),
        "restore": partial(_restore, session, file),
        "resume": partial(_resume, session, file, checkpoint),
        "fork check": partial(_fork_check, file),
    }
    if not with_torch:
        del rows["torch.save + fsync"]
    costs = {name: Cost() for name in rows}
    for _ in range(repeat):
        for name, row in rows.items():
            if name in ("restore", "resume"):
                _forget_moments(session)
            with measured(costs[name], n_bytes):
                row()
    session.close()
    return costs


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=88, help="of the state")
    parser.add_argument("--repeat", type=int, default=5, help="times that each is measured")
    parser.add_argument("--folder", type=Path, help="where files are written and removed")
    parser.add_argument("--no-torch", action="store_true", help="without torch.save")
    parser.add_argument("--moments", action="store_true", help="two thirds are Adam's moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        costs = measure(
            Path(folder),
            options.megabytes,
            options.repeat,
            with_torch=not options.no_torch,
            with_moments=options.moments,
        )
    print(f"{'':20} {'CPU s':>7} {'clock s':>8} {'CPU ratio':>10} {'clock ratio':>12} {'extra':>6}")
    for name, cost in costs.items():
        beside = "torch.save + fsync" if name == "checkpoint" else "SHA-256"
        other = costs.get(beside, cost)
        cpu, clock = (
            statistics.median(map(lambda a, b: a / max(b, 1e-9), here, there))
            for here, there in ((cost.cpu, other.cpu), (cost.clock, other.clock))
        )
        print(
            f"{name:20} {statistics.median(cost.cpu):7.3f} {statistics.median(cost.clock):8.3f} "
            f"{cpu:10.2f} {clock:12.2f} {max(cost.extra):6.2f}"
        )


if __name__ == "__main__":
    main()
