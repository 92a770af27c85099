"""Run the recorded loop of a program file, in the environment of its library.

::

    python recorded_loop.py PROGRAM.py prepare|bare|recorded|killed|resumed WORKERS FOLDER

The file has ``train(wrap, workers)``: it makes its objects, gives them to ``wrap(...)``, as one
does with ``Recorder.wrap``, goes through its loop and returns the model. Prints the digest of its
weights. ``killed`` ends by SIGKILL some steps after the one checkpoint. A file with
``prepare(folder)`` has its data written first, into ``data``, which it is then given.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

import auditkit as ak
from auditkit.observe.machine.code import import_file

#: In mid-epoch of programs with 4 steps an epoch and 12 in all.
CHECKPOINT, KILL = 6, 9


def main() -> None:
    """Train as asked for."""
    file, mode, workers, folder = sys.argv[1:]
    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    module: Any = import_file(file, Path.cwd())
    given = [str(Path("data").resolve())] if hasattr(module, "prepare") else []
    if mode == "prepare":
        Path("data").mkdir(exist_ok=True)
        module.prepare(*given)
        return
    if mode == "bare":
        model = module.train(_passed_on, int(workers), *given)
    else:
        make: Any = ak.Recorder.resume if mode == "resumed" else ak.Recorder
        if mode == "killed":
            register_optimizer_step_post_hook(_kill_after(KILL))
        with make(folder, seed=0, checkpoint_every=CHECKPOINT) as recorder:
            model = module.train(recorder.wrap, int(workers), *given)
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    print("weights", digest.hexdigest())


def _passed_on(*objects: Any, **_named: Any) -> Any:
    return objects


def _kill_after(last: int) -> Any:
    taken = 0

    def count(*_call: object) -> None:
        nonlocal taken
        taken += 1
        if taken == last:
            os.kill(os.getpid(), signal.SIGKILL)

    return count


if __name__ == "__main__":
    main()
