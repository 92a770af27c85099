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
from contextlib import suppress
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
        seen: Digest of the weights at the step that was looked at; None where it is beyond.
        error: Name and text of what was raised, or None.
        warned: What was warned of.
    """

    weights: str | None
    seen: str | None
    error: str | None
    warned: str

    @property
    def is_refused(self) -> bool:
        """Whether auditkit said no."""
        return self.weights is None and self.error is not None and "auditkit.errors" in self.error


def run(plan: LoopPlan, folder: Path, every: int | None, at: int) -> Ended:
    """Run a loop in a fork of this process.

    Args:
        plan: The loop.
        folder: For the recording.
        every: Steps between checkpoints; None for a loop that is not recorded.
        at: Which of its own steps is looked at, in which it is killed if it is recorded; 0 for
            none.
    """
    told = folder.with_name(f"{folder.name}-{at}")
    pid = os.fork()
    if not pid:
        try:
            told.write_text(_run_here(plan, folder, every, at, told.with_suffix(".seen")))
        except BaseException:
            told.write_text(f"ERROR {traceback.format_exc()}")
        os._exit(0)
    os.waitpid(pid, 0)
    text = told.read_text() if told.exists() else ""
    seen = told.with_suffix(".seen")
    final = re.match(r"FINAL (\w+)\n", text)
    error = re.findall(r"^([\w.]+(?:Error|Exception|\w+): .*)", text, re.M)
    failed = text.startswith("ERROR")
    return Ended(
        final[1] if final else None,
        seen.read_text() if seen.exists() else None,
        error[-1] if failed and error else None,
        text,
    )


def _digest(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().numpy().tobytes())
    return digest.hexdigest()[:16]


def _run_here(plan: LoopPlan, folder: Path, every: int | None, at: int, seen: Path) -> str:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    done = 0

    def tick(model: torch.nn.Module) -> None:
        nonlocal done
        done += 1
        if done == at:
            seen.write_text(_digest(model))
            if every is not None:
                os._exit(9)

    notes: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: notes.append(f"note: {record.getMessage()}")  # type: ignore[method-assign]
    logging.getLogger("auditkit").addHandler(handler)
    rec: Any = NoRecorder()
    if every is not None:
        rec = ak.Recorder.resume(folder, checkpoint_every=every)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = random_loops.train(plan, rec, tick)
        if every is not None:
            rec.close()
    said = [f"{w.category.__name__}: {w.message}" for w in caught] + notes
    return "".join(f"{line}\n" for line in (f"FINAL {_digest(model)}", *said))


def judge(plan: LoopPlan, every: int, kill: int, resumed_kill: int = 0) -> tuple[str, str]:
    """Run a loop bare, recorded, killed and resumed; the verdict, and why."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        bare = run(plan, folder / "bare", None, kill)
        assert bare.weights is not None, bare
        out = folder / "out"
        recorded = run(plan, out, every, kill)
        if recorded.is_refused:
            return "refused at wrap", str(recorded)
        is_done = bare.seen is None  # it ended before it was to be killed
        if recorded.seen != bare.seen or recorded.weights != (bare.weights if is_done else None):
            return "recording changed it", str(recorded)
        if resumed_kill:
            run(plan, out, every, resumed_kill)
        if (out / "manifest.json").exists():
            return "was done before", ""
        resumed = run(plan, out, every, 0)
    return _verdict(resumed, bare), resumed.error or resumed.warned


def _verdict(resumed: Ended, bare: Ended) -> str:
    if resumed.weights == bare.weights:
        return "right"
    if resumed.weights is None:
        return "refused" if resumed.is_refused else "crashed"
    told = "the script counts the steps itself" in resumed.warned
    return "told" if told else "silently wrong"


def _warm_up() -> None:
    """What this process has imported and looked up, its forks need not."""
    plan = LoopPlan("adam", "epoch", "shuffle", "torch", 0, 1, 2, 0, True, "plain", True, None)

    def stop(_: object) -> None:
        if rec.step == 6:
            raise KeyboardInterrupt

    with TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = Path(name) / "out"
        with suppress(KeyboardInterrupt), ak.Recorder(out, checkpoint_every=3) as rec:
            random_loops.train(plan, rec, stop)
        _run_here(plan, out, 3, 0, out)


def main() -> None:
    """Answer until nobody asks any more."""
    torch.set_num_threads(1)
    _warm_up()
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
