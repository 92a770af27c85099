"""What evidence of every step costs, beside what else a run could leave behind.

Run it from anywhere::

    python tests/benchmarks/bench_peers.py [--model mlp|cnn|resnet18] [--blocks N] [--every K]

Equal programs take turns in one process of one thread, a block of K steps each, with random
streams of their own; in the end all must have the same weights. ``ms`` is the processor time of a
step with its batch, and ``ratio`` that over the bare loop's in the block beside it: medians of the
blocks. ``bytes`` is what a step leaves on disk.

``bare``
    The loop with nothing added.
``recorder``
    The same loop, wrapped by ``auditkit.Recorder``.
``study``
    A branch of a study, whose loader seeds every sample.
``torch.save``
    Model and optimizer in a new file after every step, which nothing flushes to disk.
``sha256``
    One SHA-256 a step of model, optimizer, random streams and batch: a line of a file.
``debug norm``, ``debug xor``
    ``DebugMode`` of torch around forward, backward and optimizer step, with either of its hashes
    of what every operation gives. They stay in memory.
``every K``
    The rule of Proof-of-Learning (Jia et al. 2021), and not its authors' tool: the state saved
    every K steps, and SHA-256 of the indices of every batch.

The last columns are about two runs that differ. ``order``: are other samples told from the same
samples with another outcome? ``where``: what is said of the place? ``edited``: does somebody who
is given the files see that they were edited afterwards?
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_recording import Clock, _cut_and_load, _endless, _loop, factory, positive, table
from torch import Tensor
from torch.utils.data import DataLoader

import auditkit as ak
from auditkit.formats import tensor_file
from auditkit.formats.run_files import trace_to_tensors
from auditkit.observe.machine.determinism import deterministic
from auditkit.program.session import open_session
from auditkit.study.stages.auditor import Auditor

#: Blocks that are timed, and steps of one, where neither is given.
BLOCKS = {"mlp": (60, 10), "cnn": (5, 10), "resnet18": (5, 4)}


@dataclass
class Way:
    """One of the programs that take turns.

    Attributes:
        step: Takes a step.
        weights: Of the model that is trained.
        told: What two runs that differ are told: order, where, edited.
        size: Bytes on disk so far.
        tidy: Called after every block, outside of what is timed.
        streams: Its random streams, while it is another program's turn.
        seconds: Processor time of every block.
    """

    step: Callable[[], object]
    weights: Callable[[], Iterator[Tensor]]
    told: tuple[str, str, str]
    size: Callable[[], int] = lambda: 0
    tidy: Callable[[], object] = lambda: None
    streams: Any = None
    seconds: list[float] = field(default_factory=list)

    def take(self, n_steps: int) -> None:
        """Take a block of steps on its own random streams."""
        restore(self.streams)
        start = time.process_time()
        for _ in range(n_steps):
            self.step()
        self.seconds.append(time.process_time() - start)
        self.streams = streams()
        self.tidy()


def streams() -> Any:
    """The state of the random streams."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def restore(state: Any) -> None:
    """Put it back."""
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])


class Loop:
    """A loop of one's own, and what it leaves after every step.

    Args:
        name: Of the model.
        leave: Called with the loop after every step.
        loader_of: Makes another loader of the program's.
        around: What forward, backward and optimizer step are done in.
    """

    def __init__(
        self,
        name: str,
        leave: Callable[[Loop], object] = lambda _: None,
        loader_of: Callable[[Any], Any] = lambda loader: loader,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.program = factory(name).build(0, {})
        self.loader = loader_of(self.program.loader)
        self.leave, self.around, self.n_steps = leave, around, 0
        self.batch: Any = None
        self._batches = _endless(self.loader)

    def take(self) -> None:
        """Take a step."""
        self.batch = next(self._batches)
        self.n_steps += 1
        with self.around():
            self.program.train_on(self.batch, self.n_steps)
        self.leave(self)

    def state(self) -> dict[str, Any]:
        """What is saved."""
        program = self.program
        return {"model": program.model.state_dict(), "optimizer": program.optimizer.state_dict()}


class Files:
    """Files of a way, which are counted and removed when they are complete."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._bytes, self._count = folder, 0, 0

    def save(self, state: Any) -> None:
        """Write a new one."""
        self._count += 1
        torch.save(state, self._folder / f"{self._count}.pt")

    def size(self) -> int:
        """Bytes of all that there ever were."""
        return self._bytes

    def tidy(self) -> None:
        """Count and remove what lies there."""
        for path in self._folder.iterdir():
            self._bytes += path.stat().st_size
            path.unlink()


def bare(name: str) -> Way:
    """Nothing is left behind."""
    loop = Loop(name)
    return Way(loop.take, loop.program.model.parameters, ("no", "nothing", "no"))


def recorded(name: str, folder: Path, stack: ExitStack) -> Way:
    """The Recorder around the loop."""
    program = factory(name).build(0, {})
    rec = stack.enter_context(ak.Recorder(folder))
    rec.wrap(program.model, program.optimizer, program.loader)
    loop = _loop(program, rec)

    def size() -> int:
        rec.close()
        return sum(path.stat().st_size for path in (folder / "trace").iterdir())

    return Way(
        lambda: next(loop), program.model.parameters, ("yes", "step, component", "yes"), size
    )


def studied(name: str, stack: ExitStack) -> Way:
    """A branch of a study."""
    plan = ak.StudyPlan(1, 1, 2, [0], ["carry"])
    session = stack.enter_context(closing(open_session(factory(name), {}, plan, seed=0)))
    auditor, clock, steps = Auditor(1, commit_data=True), Clock(), count(1)

    def take() -> None:
        delivery = _cut_and_load(session, auditor, clock)
        auditor.consume(delivery.batch, delivery.order)
        auditor.finish_step(session.program.train_on(delivery.batch, next(steps)))

    def size() -> int:
        auditor.close(session.state())
        return len(tensor_file.to_bytes(trace_to_tensors(auditor.trace())))

    return Way(take, session.program.model.parameters, ("yes", "step, component", "yes"), size)


def saved(name: str, folder: Path) -> Way:
    """``torch.save`` after every step."""
    files = Files(folder)
    loop = Loop(name, lambda loop: files.save(loop.state()))
    told = ("no", "step, tensor", "no")
    return Way(loop.take, loop.program.model.parameters, told, files.size, files.tidy)


def hashed(name: str, path: Path, stack: ExitStack) -> Way:
    """One SHA-256 of everything after every step."""
    file = stack.enter_context(path.open("w", encoding="ascii"))

    def leave(loop: Loop) -> None:
        digest = hashlib.sha256()
        for part in parts_of((loop.state(), loop.batch, streams())):
            digest.update(part)
        file.write(f"{digest.hexdigest()}\n")

    def size() -> int:
        file.flush()
        return path.stat().st_size

    loop = Loop(name, leave)
    return Way(loop.take, loop.program.model.parameters, ("no", "step", "no"), size)


def parts_of(value: Any) -> Iterator[Any]:
    """What can be hashed of a state."""
    if isinstance(value, Tensor):
        yield value.contiguous().numpy()
    elif isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield repr(key).encode()
            yield from parts_of(one)
    elif isinstance(value, (list, tuple)) and not all(isinstance(one, int) for one in value):
        for one in value:
            yield from parts_of(one)
    else:
        yield repr(value).encode()


def debugged(name: str, hash_fn: str) -> Way | None:
    """``DebugMode`` with hashes; None where torch has none."""
    try:
        from torch.utils._debug_mode import DebugMode  # since torch 2.10
    except ImportError:
        return None

    @contextmanager
    def around() -> Iterator[None]:
        with DebugMode() as mode, DebugMode.log_tensor_hashes(hash_fn=hash_fn):
            yield
        assert mode.operators

    loop = Loop(name, around=around)
    return Way(loop.take, loop.program.model.parameters, ("no", "step, operation", "no"))


class Telling:
    """A batch sampler that keeps the batch which is read now."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.last: list[int] = []

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.inner:
            self.last = batch
            yield batch


def every(name: str, folder: Path, n_steps: int) -> Way:
    """The state every so many steps, and SHA-256 of the indices of every batch."""
    files, lines = Files(folder), list[str]()

    def leave(loop: Loop) -> None:
        indices = np.asarray(loop.loader.batch_sampler.last)
        lines.append(hashlib.sha256(indices.tobytes()).hexdigest())
        if loop.n_steps % n_steps == 0:
            files.save({**loop.state(), "order": lines})
            lines.clear()

    def telling(loader: Any) -> Any:
        return DataLoader(loader.dataset, batch_sampler=Telling(loader.batch_sampler))

    loop, told = Loop(name, leave, telling), ("yes", "K steps, tensor", "no")
    return Way(loop.take, loop.program.model.parameters, told, files.size, files.tidy)


@dataclass(frozen=True)
class Row:
    """What a way costs."""

    name: str
    milliseconds: float
    ratio: float
    size: int
    told: tuple[str, str, str]


def measure(name: str, n_blocks: int, n_steps: int) -> list[Row]:
    """All ways, in blocks of so many steps."""
    with deterministic(threads=1), tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        makers: dict[str, Callable[[], Way | None]] = {
            "bare": partial(bare, name),
            "recorder": partial(recorded, name, folder / "recorder", stack),
            "study": partial(studied, name, stack),
            "torch.save": partial(saved, name, folder / "saved"),
            "sha256": partial(hashed, name, folder / "sha256", stack),
            "debug norm": partial(debugged, name, "norm"),
            "debug xor": partial(debugged, name, "hash_tensor"),
            f"every {n_steps}": partial(every, name, folder / "every", n_steps),
        }
        ways: dict[str, Way] = {}
        for what, make in makers.items():
            torch.manual_seed(0)
            if (way := make()) is not None:
                ways[what] = way
                way.streams = streams()
        for _ in range(n_blocks + 1):  # the first one warms up
            for way in ways.values():
                way.take(n_steps)
        require_equal(ways)
        return [row(what, way, ways["bare"], n_steps) for what, way in ways.items()]


def require_equal(ways: dict[str, Way]) -> None:
    """Require that no way has changed what was trained, but a study's, whose samples are others."""
    weights = {what: list(way.weights()) for what, way in ways.items() if what != "study"}
    for what, found in weights.items():
        if not all(map(torch.equal, found, weights["bare"])):
            sys.exit(f"{what}: the weights are not those of the bare loop")


def row(what: str, way: Way, other: Way, n_steps: int) -> Row:
    """A way beside the bare one."""
    mine, bare = way.seconds[1:], other.seconds[1:]
    ratio = statistics.median(one / two for one, two in zip(mine, bare, strict=True))
    size = way.size() // (len(way.seconds) * n_steps)
    return Row(what, 1000 * statistics.median(mine) / n_steps, ratio, size, way.told)


COLUMNS: dict[str, Callable[[Any], str]] = {
    "way": lambda row: row.name,
    "ms": lambda row: f"{row.milliseconds:.2f}",
    "ratio": lambda row: f"{row.ratio:.3f}",
    "bytes": lambda row: f"{row.size:,}",
    "order": lambda row: row.told[0],
    "where": lambda row: row.told[1],
    "edited": lambda row: row.told[2],
}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", action="append", choices=BLOCKS, help="default: mlp and cnn")
    parser.add_argument("--blocks", type=positive, help="blocks that are timed (default: by model)")
    parser.add_argument("--every", type=positive, help="steps of a block (default: by model)")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {platform.machine()}, 1 thread; medians of a step")
    for name in options.model or ["mlp", "cnn"]:
        n_blocks, n_steps = options.blocks or BLOCKS[name][0], options.every or BLOCKS[name][1]
        print(f"{name}, {n_blocks} blocks of {n_steps} steps")
        print(table(COLUMNS, measure(name, n_blocks, n_steps)))


if __name__ == "__main__":
    main()
