"""What the evidence of a training step costs.

Run it from anywhere::

    python tests/benchmarks/bench_recording.py [--model mlp|digits|cnn|transformer|resnet18|all]
        [--steps N]

The first table is of a study, the second one of the Recorder in a loop of the user's own.

Each model trains in a process of its own, with one thread and deterministic kernels, as the
workers of a study do. A bare step and the evidence of the next one alternate in one run, so that
whatever else the machine does meets both; the table gives medians.

``train``
    forward, backward and optimizer step, in ms.
``load``
    the batch from the user's own DataLoader, untouched, in ms.
``evidence``
    what the Auditor adds to the step: freezing the random streams and naming the live state
    (``capture``), a digest of every component at the batch boundary (``cut``), digests of the
    batch and its order with the SHA-256 commitment of the trunk and the control (``consume``),
    and closing the row (``finish``).
``evidence/train``
    the ratio of the two medians. Loading is left out of it: most of it is the user's data set.
``load+``
    how much longer the batch takes from the intercepted loader, which seeds every sample.
``file B/step``
    length of the trace file over its steps.
``peak MiB``
    largest resident memory of the process after bare steps alone, and after steps with
    evidence (Linux only).

In the second table two equal loops take turns, step by step, one of them recorded:

``bare``
    a whole step of the bare loop, its batch included, in ms.
``recorded-bare``
    median of the differences between a recorded step and the bare one beside it, in ms.
``evidence/bare``
    its ratio to the bare step: the cost of the Recorder.
``snapshot ms``
    a checkpoint, written and flushed to disk.
"""

from __future__ import annotations

import argparse
import multiprocessing
import operator
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak
from auditkit.formats import tensor_file
from auditkit.formats.run_files import trace_to_tensors
from auditkit.observe.loader.driver import Delivery, LoaderDriver
from auditkit.observe.machine.determinism import deterministic
from auditkit.program.program import LoadedFactory, load_factory
from auditkit.program.session import Session, open_session
from auditkit.study.stages.auditor import Auditor

EXAMPLES = Path(__file__).parents[2] / "examples"
BATCH_SIZE = 64
#: Of random data; an epoch has 16 steps.
N_SAMPLES = 16 * BATCH_SIZE
WARM_STEPS = 2
#: Steps that are timed where ``--steps`` is not given.
STEPS = {"mlp": 600, "digits": 200, "cnn": 100, "transformer": 40, "resnet18": 15}


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut, ``(B, C_in, H, W)`` to ``(B, C_out, H/s, W/s)``."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            conv = nn.Conv2d(width_in, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        out = relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        return relu(out)


def resnet18() -> nn.Module:
    """ResNet-18 for 32x32 images (3x3 stem without pooling), 11.17 million parameters."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1, bias=False)]
    layers += [nn.BatchNorm2d(64), nn.ReLU()]
    width_in = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(width_in, width, stride), Block(width, width, 1)]
        width_in = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def mlp() -> nn.Module:
    """Three layers, 40,000 parameters: steps of about half a millisecond."""
    layers = (nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    return nn.Sequential(*layers)


def cnn() -> nn.Module:
    """Three convolutions with BatchNorm on 32x32 images: steps of some 50 ms."""
    layers: list[nn.Module] = []
    for width_in, width in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(width_in, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 10))


def transformer() -> nn.Module:
    """Six encoder layers of width 128 on 32 tokens, with dropout."""
    layer = nn.TransformerEncoderLayer(128, 4, 256, batch_first=True)
    # Without nested tensors: the fast path would warn that it cannot be taken in training.
    encoder = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
    return nn.Sequential(nn.Linear(16, 128), encoder, nn.Flatten(), nn.Linear(32 * 128, 10))


def _on_random_data(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> Any:
    def make_program(seed: int) -> ak.Program:
        del seed  # the global streams are seeded already
        data = TensorDataset(torch.randn(N_SAMPLES, *shape), torch.arange(N_SAMPLES) % 10)
        model = make()
        return ak.Program(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
            loader=DataLoader(data, batch_size=BATCH_SIZE, shuffle=True),
            loss=lambda model, batch: cross_entropy(model(batch[0]), batch[1]),
            probe=ak.Probe(torch.zeros(2, *shape), torch.zeros(2, dtype=torch.int64)),
        )

    return make_program


def factory(name: str) -> LoadedFactory:
    """The program of that name."""
    if name == "digits":
        return load_factory("digits.py", EXAMPLES)
    make: dict[str, Any] = {
        "mlp": (mlp, (64,)),
        "cnn": (cnn, (3, 32, 32)),
        "transformer": (transformer, (32, 16)),
        "resnet18": (resnet18, (3, 32, 32)),
    }
    return LoadedFactory(_on_random_data(*make[name]), sys.modules[__name__], name, None)


class Clock:
    """Collects durations by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def time(self, name: str, call: Callable[[], Any]) -> Any:
        """Call, and note how long it took."""
        start = time.perf_counter()
        result = call()
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)
        return result

    def milliseconds(self, name: str) -> float:
        """Median, in ms."""
        return 1000 * statistics.median(self.seconds[name])


@dataclass(frozen=True)
class Result:
    """The measurements of one model, times in ms."""

    model: str
    parameters: int
    steps: int
    components: int
    train: float
    load: float
    load_recorded: float
    parts: dict[str, float]
    evidence: float
    trace_bytes: int
    peak_bare: float
    peak: float


def measure(name: str, steps: int) -> Result:
    """Train with evidence of every step."""
    with deterministic(threads=1):
        plan = ak.StudyPlan(1, 1, 2, [0], ["carry"])
        session = open_session(factory(name), {}, plan, seed=0)
        try:
            return _measure(name, session, _endless(factory(name).build(0, {}).loader), steps)
        finally:
            session.close()


def _measure(name: str, session: Session, plain: Iterator[Any], steps: int) -> Result:
    program, clock = session.program, Clock()
    for step in range(1, WARM_STEPS + 1):
        program.train_on(next(plain), step)
    peak_bare = _peak_mib()
    auditor = Auditor(1, commit_data=True, beside=True)
    for step in range(1, steps + WARM_STEPS + 1):
        if step == WARM_STEPS + 1:
            clock = Clock()
        clock.time("load", partial(next, plain))
        delivery = _cut_and_load(session, auditor, clock)
        clock.time("consume", partial(auditor.consume, delivery.batch, delivery.order))
        loss = clock.time("train", partial(program.train_on, delivery.batch, step))
        clock.time("finish", partial(auditor.finish_step, loss))
    auditor.close(session.state())
    trace = auditor.trace()
    return Result(
        model=name,
        parameters=sum(p.numel() for p in program.model.parameters()),
        steps=steps,
        components=len(trace.columns),
        train=clock.milliseconds("train"),
        load=clock.milliseconds("load"),
        load_recorded=clock.milliseconds("load_recorded"),
        parts={part: clock.milliseconds(part) for part in ("capture", "cut", "consume", "finish")},
        evidence=_median_sum(clock, ("capture", "cut", "consume", "finish")),
        trace_bytes=len(tensor_file.to_bytes(trace_to_tensors(trace))) // (steps + WARM_STEPS),
        peak_bare=peak_bare,
        peak=_peak_mib(),
    )


def _cut_and_load(session: Session, auditor: Auditor, clock: Clock) -> Delivery:
    """The batch boundary, as ``auditkit.study.stages.holder`` has it."""
    driver = session.driver
    assert isinstance(driver, LoaderDriver)
    while True:
        streams, state = clock.time("capture", partial(_capture, session))
        clock.time("cut", partial(auditor.cut, state))
        delivery: Delivery | None = clock.time("load_recorded", partial(driver.next, streams))
        if delivery is not None:
            return delivery
        for name in ("capture", "cut", "load_recorded"):
            clock.seconds[name].pop()  # the end of an epoch is no step
        driver.begin_epoch()


def _capture(session: Session) -> Any:
    streams = session.streams()
    return streams, session.state(streams)


def _median_sum(clock: Clock, parts: tuple[str, ...]) -> float:
    columns = (clock.seconds[part] for part in parts)
    return 1000 * statistics.median(map(sum, zip(*columns, strict=True)))


def _endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def _peak_mib() -> float:
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    return int(found[1]) / 1024 if found else float("nan")


@dataclass(frozen=True)
class Recorded:
    """What the Recorder costs one loop, times in ms."""

    model: str
    steps: int
    bare: float
    added: float
    snapshot: float
    trace_bytes: int
    peak_bare: float
    peak: float


def measure_recorder(name: str, steps: int) -> Recorded:
    """Let a bare and a recorded loop take turns."""
    torch.set_num_threads(1)
    bare, recorded = (factory(name).build(0, {}) for _ in range(2))
    plain = _loop(bare, None)
    for _ in range(WARM_STEPS):
        next(plain)
    peak_bare = _peak_mib()
    with tempfile.TemporaryDirectory() as folder, ak.Recorder(f"{folder}/out") as rec:
        rec.wrap(recorded.model, recorded.optimizer, recorded.loader)
        loop = _loop(recorded, rec)
        clock = Clock()
        for step in range(steps + WARM_STEPS):
            if step == WARM_STEPS:
                clock = Clock()
            clock.time("bare", partial(next, plain))
            clock.time("recorded", partial(next, loop))
        rec.checkpoint()
        clock.time("snapshot", partial(next, loop))
        rec.close()
        sizes = [path.stat().st_size for path in Path(folder, "out", "trace").iterdir()]
    differences = map(operator.sub, clock.seconds["recorded"], clock.seconds["bare"])
    return Recorded(
        model=name,
        steps=steps,
        bare=clock.milliseconds("bare"),
        added=1000 * statistics.median(differences),
        snapshot=clock.milliseconds("snapshot"),
        trace_bytes=sum(sizes) // (steps + WARM_STEPS + 1),
        peak_bare=peak_bare,
        peak=_peak_mib(),
    )


def _loop(program: ak.Program, rec: ak.Recorder | None) -> Iterator[None]:
    step = 0
    while True:
        for batch in program.loader:
            step += 1
            loss = program.train_on(batch, step)
            if rec is not None and loss is not None:
                rec.log(loss=loss)
            yield


RECORDER_COLUMNS: dict[str, Callable[[Any], str]] = {
    "model": lambda r: r.model,
    "steps": lambda r: str(r.steps),
    "bare": lambda r: f"{r.bare:.2f}",
    "recorded-bare": lambda r: f"{r.added:.3f}",
    "evidence/bare": lambda r: f"{r.added / r.bare:.4f}",
    "snapshot ms": lambda r: f"{r.snapshot:.0f}",
    "file B/step": lambda r: f"{r.trace_bytes:,}",
    "peak MiB bare": lambda r: f"{r.peak_bare:.0f}",
    "peak MiB": lambda r: f"{r.peak:.0f}",
}

COLUMNS: dict[str, Callable[[Any], str]] = {
    "model": lambda r: r.model,
    "parameters": lambda r: f"{r.parameters:,}",
    "steps": lambda r: str(r.steps),
    "load": lambda r: f"{r.load:.2f}",
    "train": lambda r: f"{r.train:.2f}",
    "capture": lambda r: f"{r.parts['capture']:.3f}",
    "cut": lambda r: f"{r.parts['cut']:.3f}",
    "consume": lambda r: f"{r.parts['consume']:.3f}",
    "finish": lambda r: f"{r.parts['finish']:.3f}",
    "evidence": lambda r: f"{r.evidence:.2f}",
    "evidence/train": lambda r: f"{r.evidence / r.train:.4f}",
    "load+": lambda r: f"{r.load_recorded - r.load:+.2f}",
    "components": lambda r: str(r.components),
    "file B/step": lambda r: f"{r.trace_bytes:,}",
    "peak MiB bare": lambda r: f"{r.peak_bare:.0f}",
    "peak MiB": lambda r: f"{r.peak:.0f}",
}


def table(columns: dict[str, Callable[[Any], str]], results: list[Any]) -> str:
    """The results, a model a line."""
    rows = [list(columns), *([cell(result) for cell in columns.values()] for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.rjust, row, widths)) for row in rows)
    return "\n".join(lines)


def positive(text: str) -> int:
    """A number of steps or blocks, as a type of ``argparse``."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=(*STEPS, "all"), default="all")
    parser.add_argument("--steps", type=positive, help="timed steps (default: by model)")
    options = parser.parse_args()
    names = list(STEPS) if options.model == "all" else [options.model]
    spawn = multiprocessing.get_context("spawn")
    print(f"torch {torch.__version__}, {platform.machine()}, 1 thread; medians in ms a step")
    for columns, measured in ((COLUMNS, measure), (RECORDER_COLUMNS, measure_recorder)):
        results: list[Any] = []
        for name in names:
            call: Callable[[str, int], Any] = measured
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                results.append(pool.submit(call, name, options.steps or STEPS[name]).result())
        print(table(columns, results))


if __name__ == "__main__":
    main()
