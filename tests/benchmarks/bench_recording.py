"""What the evidence of a training step costs.

Run it from anywhere::

    python tests/benchmarks/bench_recording.py [--model resnet18|digits|mlp|all] [--steps N]

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
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import re
import statistics
import sys
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
from auditkit import tensorfile
from auditkit.observe.determinism import deterministic
from auditkit.observe.loader import Delivery
from auditkit.observe.rng import capture_streams
from auditkit.pipeline.auditor import Auditor
from auditkit.program import LoadedFactory, load_factory
from auditkit.runfiles import trace_to_tensors
from auditkit.session import Session, open_session

EXAMPLES = Path(__file__).parents[2] / "examples"
BATCH_SIZE = 64
WARM_STEPS = 2
#: Steps that are timed where ``--steps`` is not given.
STEPS = {"mlp": 400, "digits": 200, "resnet18": 15}


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
    """Two layers, 1,000 parameters: mostly what a step costs however small the model is."""
    return nn.Sequential(nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 10))


def _on_random_data(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> Any:
    def make_program(seed: int) -> ak.Program:
        del seed  # the global streams are seeded already
        data = TensorDataset(torch.randn(4 * BATCH_SIZE, *shape), torch.arange(4 * BATCH_SIZE) % 10)
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
    make = {"resnet18": (resnet18, (3, 32, 32)), "mlp": (mlp, (32,))}[name]
    return LoadedFactory(_on_random_data(*make), sys.modules[__name__], name, None)


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
    auditor = Auditor(1, commit_data=True)
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
        trace_bytes=len(tensorfile.to_bytes(trace_to_tensors(trace))) // (steps + WARM_STEPS),
        peak_bare=peak_bare,
        peak=_peak_mib(),
    )


def _cut_and_load(session: Session, auditor: Auditor, clock: Clock) -> Delivery:
    """The batch boundary, as ``auditkit.pipeline.holder`` has it."""
    while True:
        streams, state = clock.time("capture", partial(_capture, session))
        clock.time("cut", partial(auditor.cut, state))
        delivery: Delivery | None = clock.time(
            "load_recorded", partial(session.driver.next, streams)
        )
        if delivery is not None:
            return delivery
        for name in ("capture", "cut", "load_recorded"):
            clock.seconds[name].pop()  # the end of an epoch is no step
        session.driver.begin_epoch()


def _capture(session: Session) -> Any:
    streams = capture_streams()
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


COLUMNS: dict[str, Callable[[Result], str]] = {
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


def table(results: list[Result]) -> str:
    """The results, a model a line."""
    rows = [list(COLUMNS), *([cell(result) for cell in COLUMNS.values()] for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.rjust, row, widths)) for row in rows)
    return "\n".join(lines)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=(*STEPS, "all"), default="all")
    parser.add_argument("--steps", type=int, help="timed steps (default: by model)")
    options = parser.parse_args()
    names = list(STEPS) if options.model == "all" else [options.model]
    results = []
    for name in names:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            results.append(pool.submit(measure, name, options.steps or STEPS[name]).result())
    print(f"torch {torch.__version__}, {platform.machine()}, 1 thread; medians in ms a step")
    print(table(results))


if __name__ == "__main__":
    main()
