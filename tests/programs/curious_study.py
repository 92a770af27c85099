"""The tiny study whose loss looks for the name of the branch that it is in, wherever it may be.

What it finds is appended to the file that ``--arg log=`` names, a JSON object a branch: by place,
the names that were found there. A place that holds exactly one is a place that tells.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny_study
import torch
from torch import Tensor, nn

import auditkit as ak

#: Two treatments beside placebo and replica, so that one name stands for one branch.
STUDY = replace(tiny_study.STUDY, seeds=(0,))

WANTED = ("replica", "placebo-0", "carry", "momentum-reset", "batchnorm-reset", "order-reverse")

#: A name by itself: ``torch/nn/parallel/replicate.py`` names no branch.
_NAMED = {name: re.compile(rf"(?<![a-zA-Z]){name}(?![a-zA-Z])") for name in WANTED}

#: How deep a value is looked into, and how many values of one are.
_DEPTH, _WIDTH = 4, 100000


def make_program(seed: int, log: str = "") -> ak.Program:
    """Look around once a branch, in the loss of its first step.

    Args:
        seed: The study seed.
        log: Where to write what was found.
    """
    program = tiny_study.make_program(seed)
    loss = program.loss
    assert loss is not None
    steps = [0]

    def curious(model: nn.Module, batch: Any) -> Tensor:
        steps[0] += torch.is_grad_enabled()  # else it is called to recalibrate BatchNorm
        if log and steps[0] == 1 and torch.is_grad_enabled():
            found = {place: sorted(names) for place, names in look_around().items() if names}
            with Path(log).open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
        return loss(model, batch)

    return replace(program, loss=curious)


def look_around() -> dict[str, set[str]]:
    """Names by the place in which they were found."""
    found: dict[str, set[str]] = {}
    for place, value in (*_texts(), *_stack(), *_heap()):
        found.setdefault(place, set()).update(_names(value))
    return found


def _texts() -> Iterator[tuple[str, object]]:
    """The process, as the system tells of it, and the files that it can see."""
    yield "arguments", sys.argv
    yield "environment", dict(os.environ)
    for name in ("cmdline", "environ", "comm"):
        yield f"/proc/self/{name}", Path(f"/proc/self/{name}").read_bytes().decode(errors="replace")
    links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    yield "open files", links
    yield "files", [path.name for path in _files(links)]


def _files(links: Iterable[str]) -> Iterator[Path]:
    """Files in the working folder, and in those that an open file or a job names."""
    folders = {Path(link).parent for link in links if link.startswith("/") and "/dev" not in link}
    for thing in gc.get_objects():
        out = getattr(thing, "out", None) if type(thing).__name__ == "Job" else None
        if isinstance(out, str) and out:
            folders.add(Path(out))
    for folder in (*folders, Path.cwd()):
        if folder.is_dir():
            yield from folder.iterdir()


def _stack() -> Iterator[tuple[str, object]]:
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("auditkit"):
            for name, value in list(frame.f_locals.items()):
                yield f"stack: {module}.{frame.f_code.co_name}, {name}", value
        frame = frame.f_back


def _heap() -> Iterator[tuple[str, object]]:
    """Objects of auditkit's own types, wherever they are referred to."""
    for thing in gc.get_objects():
        kind = type(thing)
        if str(kind.__module__).startswith("auditkit.") and not isinstance(thing, type):
            yield f"heap: {kind.__module__}.{kind.__name__}", thing


def _names(value: object) -> set[str]:
    found: set[str] = set()
    seen: set[int] = set()

    def look(thing: object, depth: int) -> None:
        if id(thing) in seen or depth > _DEPTH:
            return
        seen.add(id(thing))
        if isinstance(thing, str):
            found.update(name for name in WANTED if _NAMED[name].search(thing))
            return
        for part in _parts(thing):
            look(part, depth + 1)

    look(value, 0)
    return found


def _parts(thing: object) -> Iterator[object]:
    skipped: tuple[type[Any], ...] = (Tensor, nn.Module, torch.optim.Optimizer, type)
    if isinstance(thing, (*skipped, types.ModuleType, types.FrameType)):
        return
    if isinstance(thing, dict):
        yield from (part for pair in list(thing.items())[:_WIDTH] for part in pair)
    elif isinstance(thing, (list, tuple, set, frozenset)):
        yield from list(thing)[:_WIDTH]
    elif isinstance(thing, types.FunctionType):
        for cell in thing.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # empty
                continue
    elif isinstance(thing, types.MethodType):
        yield from (thing.__self__, thing.__func__)
    elif str(type(thing).__module__).startswith("auditkit."):
        yield getattr(thing, "__dict__", {})
        for name in getattr(type(thing), "__slots__", ()):
            yield getattr(thing, name, None)
