"""What the evidence of a large replay memory costs a step of Q-learning.

Run it from anywhere::

    python tests/benchmarks/bench_ring_buffer.py [--rows 200000] [--steps 300]

Programs take turns, step by step, in one process of one thread: a bare one; one whose memory is
hashed whole at every step (``whole``, an extra with ``state_dict``); one whose memory is an
``ak.extras.RingBuffer`` (``ring``); and one whose memory is no part of its state (``none``), so
that what lies between the last two is the ring buffer's own cost. ``step`` is the bare step, in
ms of processor time; ``ratio`` is a step with its evidence over the bare one, each the median of
five runs' sums.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

import auditkit as ak
from auditkit.observe.loader.consumption import taking
from auditkit.observe.machine.determinism import deterministic
from auditkit.program.program import LoadedFactory
from auditkit.program.session import Session, open_session
from auditkit.study.stages.auditor import Auditor

N_RUNS = 5
BATCH_SIZE = 128


class Whole:
    """A memory that is hashed whole."""

    def __init__(self, arrays: dict[str, Tensor]) -> None:
        self.arrays, self.count = arrays, 0

    def add(self, **row: Tensor) -> None:
        """Write one row."""
        for name, value in row.items():
            self.arrays[name][self.count % len(self.arrays[name])] = value
        self.count += 1

    def __getitem__(self, name: str) -> Tensor:
        return self.arrays[name]

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {"arrays": self.arrays, "count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put it back."""
        raise NotImplementedError


def make_factory(kind: str, n_rows: int) -> LoadedFactory:
    """The program with the memory of a kind."""

    def make_program(seed: int) -> ak.Program:
        del seed  # the global streams are seeded already
        net, target = (
            nn.Sequential(
                nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)
            )
            for _ in range(2)
        )
        shapes = {"seen": (4,), "action": (), "reward": (), "over": (), "next": (4,)}
        dtypes = {"action": torch.int64, "over": torch.bool}
        memory: Any
        if kind == "ring":
            fields = {
                name: (shape, dtypes.get(name, torch.float32)) for name, shape in shapes.items()
            }
            memory = ak.extras.RingBuffer.zeros(n_rows, **fields)
        else:
            memory = Whole(
                {
                    name: torch.zeros(n_rows, *shape, dtype=dtypes.get(name, torch.float32))
                    for name, shape in shapes.items()
                }
            )

        def step(program: ak.Program, _: None, t: int) -> Tensor:
            seen, following = torch.randn(2, 4)
            action = net(seen).argmax()
            memory.add(seen=seen, action=action, reward=seen[0], over=seen[1] > 2, next=following)
            rows = torch.randint(n_rows, (BATCH_SIZE,))
            drawn = [memory[name][rows] for name in shapes]
            seen, action, reward, over, following = ak.consume(rows, drawn)
            with torch.no_grad():
                wanted = reward + 0.99 * (~over) * target(following).max(1).values
            value = net(seen).gather(1, action[:, None])[:, 0]
            loss = smooth_l1_loss(value, wanted)
            program.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            program.optimizer.step()
            return loss

        return ak.Program(
            model=net,
            optimizer=torch.optim.Adam(net.parameters()),
            loader=None,
            step=step,
            extras={"target": target} | ({} if kind == "none" else {"memory": memory}),
            probe=ak.Probe(torch.zeros(2, 4)),
        )

    return LoadedFactory(make_program, sys.modules[__name__], "make_program", None)


class Course:
    """One program that is trained, with or without evidence."""

    def __init__(self, kind: str, n_rows: int, *, is_bare: bool) -> None:
        plan = ak.StudyPlan(1, 1, 2, [0], ["carry"])
        self.session: Session = open_session(make_factory(kind, n_rows), {}, plan, seed=0)
        self.auditor = None if is_bare else Auditor(1, commit_data=True)
        self.seconds, self.step = 0.0, 0

    def take(self) -> None:
        """Take a step."""
        self.step += 1
        session, auditor = self.session, self.auditor
        start = time.process_time()
        if auditor is None:
            session.program.train_on(None, self.step)
        else:
            streams = session.streams()
            auditor.cut(session.state(streams))
            with taking(self._consume):
                loss = session.program.train_on(None, self.step)
            auditor.finish_step(loss)
        self.seconds += time.process_time() - start

    def _consume(self, indices: Any, batch: Any) -> Any:
        assert self.auditor is not None
        self.auditor.consume_part(indices, batch)
        return batch


def measure(n_rows: int, n_steps: int) -> tuple[float, dict[str, float]]:
    """Milliseconds of a bare step, and the ratio of each kind's step to it."""
    ratios: dict[str, list[float]] = {"whole": [], "ring": [], "none": []}
    bare = []
    with deterministic(threads=1):
        courses = {
            "bare": Course("whole", n_rows, is_bare=True),
            "whole": Course("whole", n_rows, is_bare=False),
            "ring": Course("ring", n_rows, is_bare=False),
            "none": Course("none", n_rows, is_bare=False),
        }
        for run in range(N_RUNS + 1):  # the first one warms up
            for course in courses.values():
                course.seconds = 0.0
            for _ in range(n_steps):
                for course in courses.values():
                    course.take()
            if run:
                bare.append(courses["bare"].seconds / n_steps * 1000)
                for name, found in ratios.items():
                    found.append(courses[name].seconds / courses["bare"].seconds)
        for course in courses.values():
            course.session.close()
    return statistics.median(bare), {name: statistics.median(one) for name, one in ratios.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    step, ratios = measure(options.rows, options.steps)
    print(f"{options.rows:,} transitions, {options.steps} steps a run, {N_RUNS} runs")
    print("memory  step ms  ratio")
    for name, ratio in ratios.items():
        print(f"{name:<6}  {step:7.2f}  {ratio:5.2f}")


if __name__ == "__main__":
    main()
