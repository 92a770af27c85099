"""Runs loops of :mod:`random_loops` bare, recorded, killed and resumed, each in a fork of its own.

A process by itself, since a fork of one that has threads may wait for ever: it is told a loop as
one line of JSON, and answers with one::

    {"plan": {...}, "every": 3, "kill": 7, "again": 0}
    ["right", ""]
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import random
import re
import sys
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import random_loops
import torch
from random_loops import LoopPlan, NoRecorder

import auditkit as ak


@dataclass(frozen=True)
class Ended:
    """How a process that ran a loop ended.

    Attributes:
        weights: Digest of the final weights; None where it did not get there.
        error: Name and text of what was raised, or None.
        warned: What was warned of.
    """

    weights: str | None
    error: str | None
    warned: str


def run(plan: LoopPlan, folder: Path, how: str, every: int = 0, kill: int = 0) -> Ended:
    """Run a loop in a fork of this process.

    Args:
        plan: The loop.
        folder: For the recording.
        how: ``bare``, ``recorded`` or ``resumed``.
        every: Steps between checkpoints.
        kill: At which of its own steps the process is killed; 0 for none.
    """
    told = folder.with_suffix(f".{how}{kill}")
    pid = os.fork()
    if not pid:
        try:
            told.write_text(_run_here(plan, folder, how, every, kill))
        except BaseException:
            told.write_text(f"ERROR {traceback.format_exc()}")
        os._exit(0)
    os.waitpid(pid, 0)
    text = told.read_text() if told.exists() else ""
    final = re.match(r"FINAL (\w+)\n", text)
    error = re.findall(r"^([\w.]+(?:Error|Exception|\w+): .*)", text, re.M)
    failed = text.startswith("ERROR")
    return Ended(final[1] if final else None, error[-1] if failed and error else None, text)


def _run_here(plan: LoopPlan, folder: Path, how: str, every: int, kill: int) -> str:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if done == kill:
            os._exit(9)

    notes: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: notes.append(f"note: {record.getMessage()}")  # type: ignore[method-assign]
    logging.getLogger("auditkit").addHandler(handler)
    rec: Any = NoRecorder()
    if how == "recorded":
        rec = ak.Recorder(folder)
    elif how == "resumed":
        rec = ak.Recorder.resume(folder, checkpoint_every=every)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = random_loops.train(plan, rec, tick)
        if how != "bare":
            rec.close()
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().numpy().tobytes())
    said = [f"{w.category.__name__}: {w.message}" for w in caught] + notes
    return "".join(f"{line}\n" for line in (f"FINAL {digest.hexdigest()[:16]}", *said))


def judge(plan: LoopPlan, every: int, kill: int, resumed_kill: int = 0) -> tuple[str, str]:
    """Run a loop bare, recorded, killed and resumed; the verdict, and why."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        bare = run(plan, folder / "bare", "bare")
        recorded = run(plan, folder / "recorded", "recorded")
        assert bare.weights is not None, bare
        if recorded.weights != bare.weights:
            refused = recorded.error is not None and "auditkit.errors" in recorded.error
            return ("refused at wrap" if refused else "recording changed it"), str(recorded)
        run(plan, folder / "resumed", "resumed", every, kill)
        if resumed_kill:
            run(plan, folder / "resumed", "resumed", every, resumed_kill)
        if (folder / "resumed" / "manifest.json").exists():
            return "was done before", ""
        resumed = run(plan, folder / "resumed", "resumed", every)
    if resumed.weights == bare.weights:
        return "right", resumed.warned
    if resumed.weights is None and resumed.error and "auditkit.errors" in resumed.error:
        return "refused", resumed.error
    if resumed.weights is None:
        return "crashed", resumed.warned
    told = "the script counts the steps itself" in resumed.warned
    return ("told" if told else "silently wrong"), resumed.warned


def main() -> None:
    """Answer until nobody asks any more."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as name:
        # What this process has imported and looked up, its forks need not.
        plan = LoopPlan("adam", "epoch", "shuffle", "torch", 0, 1, 2, 0, True, "plain", True, None)
        _run_here(plan, Path(name) / "out", "recorded", 0, 0)
    gc.collect()
    gc.freeze()  # what is never collected is never copied into a fork
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        plan = LoopPlan(**asked["plan"])
        answer = judge(plan, asked["every"], asked["kill"], asked["again"])
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
