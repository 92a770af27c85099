"""The tiny study, with what no snapshot holds and what a fork would share or lack."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tiny_study
import torch

import auditkit as ak

#: What is held beyond the factory's return.
HELD: list[object] = []

STEPS = itertools.count()

STUDY = tiny_study.STUDY


def make_program(seed: int, holds: str = "nothing", calls: str = "") -> ak.Program:
    """Build the program.

    Args:
        seed: The study seed.
        holds: ``nothing``, ``thread``, ``file``, ``pipe``, ``shared``, ``mapped``, ``child``
            or ``queue``.
        calls: File that gets a line for each call of this factory, with seed and process.
    """
    if calls:
        with Path(calls).open("a", encoding="utf-8") as log:
            log.write(f"{seed} {os.getpid()}\n")
    HELD.append(_mapped(calls) if holds == "mapped" else _MAKERS[holds]())
    return tiny_study.make_program(seed)


def counting(seed: int) -> ak.Program:
    """A loss that counts its calls in a module-level iterator, and says so in the environment."""
    program = tiny_study.make_program(seed)
    inner = program.loss
    assert inner is not None

    def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        os.environ["HELD_STEPS"] = str(next(STEPS))
        return inner(model, batch) * (1 + int(os.environ["HELD_STEPS"]) / 1000)

    return replace(program, loss=loss)


def probe_by_call(seed: int) -> ak.Program:
    """Another probe at every second call."""
    program = tiny_study.make_program(seed)
    assert program.probe is not None
    scaled = program.probe.inputs * (1 + next(STEPS) % 2)
    return replace(program, probe=replace(program.probe, inputs=scaled))


def by_process(seed: int) -> ak.Program:
    """Another model in every process."""
    program = tiny_study.make_program(seed)
    with torch.no_grad():
        next(program.model.parameters()).add_(os.getpid() % 997)
    return program


def later_by_process(seed: int) -> ak.Program:
    """The same for one seed only, and a working folder of its own."""
    os.chdir("/")
    return by_process(seed) if seed == 5 else tiny_study.make_program(seed)


def probe_by_process(seed: int) -> ak.Program:
    """Another probe in every process."""
    program = tiny_study.make_program(seed)
    assert program.probe is not None
    shifted = program.probe.inputs + os.getpid() % 997
    return replace(program, probe=replace(program.probe, inputs=shifted))


def looking_for_the_fork(seed: int) -> ak.Program:
    """A trunk that would go on from the recorded fork if it found it."""
    program = tiny_study.make_program(seed)
    inner = program.loss
    assert inner is not None

    def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        in_trunk = not program.optimizer.state
        if in_trunk and list(Path(__file__).parents[1].glob(f"seed-{seed:04d}/given/*")):
            raise RuntimeError("there it is")
        return inner(model, batch)

    return replace(program, loss=loss)


def probe_that_moves(seed: int) -> ak.Program:
    """A probe that training writes into."""
    program = tiny_study.make_program(seed)
    inner, probe = program.loss, program.probe
    assert inner is not None
    assert probe is not None

    def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        probe.inputs.mul_(1.01)
        return inner(model, batch)

    return replace(program, loss=loss)


def dies_in_a_branch(seed: int) -> ak.Program:
    """A process that is killed in the third step that it takes from the fork."""
    program = tiny_study.make_program(seed)
    inner, born = program.loss, os.getpid()
    assert inner is not None
    steps = itertools.count()

    def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        if os.getpid() != born and next(steps) == 2:
            os.kill(os.getpid(), 9)
        return inner(model, batch)

    return replace(program, loss=loss)


def keeping_the_best(seed: int, where: str) -> ak.Program:
    """A file of one name, which every step writes and reads."""
    program = tiny_study.make_program(seed)
    inner, path = program.loss, Path(where)
    assert inner is not None

    def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        torch.save(model.state_dict(), path)
        torch.load(path, weights_only=True)
        return inner(model, batch)

    return replace(program, loss=loss)


def meeting(seed: int, room: str) -> ak.Program:
    """Branches of which the first waits for the second.

    Each notes in ``room`` at its first step how many have begun, and how many of them are there.
    """
    program = tiny_study.make_program(seed)
    inner, born = program.loss, os.getpid()
    assert inner is not None
    steps = itertools.count()

    def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        if os.getpid() != born and next(steps) == 0:
            _meet(Path(room))
        return inner(model, batch)

    return replace(program, loss=loss)


def _meet(room: Path) -> None:
    processes = room.with_suffix(".processes")
    processes.mkdir(exist_ok=True)
    (processes / str(os.getpid())).touch()
    begun = [int(path.name) for path in processes.iterdir()]
    alive = [pid for pid in begun if Path(f"/proc/{pid}").exists()]
    with room.open("a", encoding="utf-8") as log:
        log.write(f"{len(begun)} {len(alive)}\n")
    until = time.monotonic() + 60
    while len(list(processes.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.01)


def waiting(seed: int, room: str) -> ak.Program:
    """Branches that wait at their third step until a file ``go`` is in a room.

    Each leaves a file there that its process is the name of.
    """
    program = tiny_study.make_program(seed)
    inner, born = program.loss, os.getpid()
    assert inner is not None
    steps = itertools.count()

    def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        if os.getpid() != born and next(steps) == 2:
            (Path(room) / str(os.getpid())).touch()
            while not (Path(room) / "go").exists():
                time.sleep(0.01)
        return inner(model, batch)

    return replace(program, loss=loss)


def _thread() -> object:
    thread = threading.Thread(target=threading.Event().wait, daemon=True)
    thread.start()
    return thread


def _mapped(beside: str) -> object:
    path = Path(f"{beside}-{os.getpid()}")
    return np.memmap(path, dtype=np.uint8, mode="w+", shape=(4096,))


_MAKERS: dict[str, Any] = {
    "nothing": lambda: None,
    "thread": _thread,
    "file": lambda: Path(__file__).open("rb"),  # noqa: SIM115 # kept open on purpose
    "pipe": os.pipe,
    "shared": lambda: torch.zeros(3).share_memory_(),  # type: ignore[no-untyped-call]
    "daemon": lambda: subprocess.Popen(["/bin/sleep", "600"], start_new_session=True).pid,
    "child": lambda: subprocess.Popen([sys.executable, "-c", "input()"]),
    "queue": multiprocessing.Queue,
}
