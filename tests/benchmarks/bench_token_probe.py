"""What a probe with a label a position costs, next to a whole table of the same positions.

Run it from anywhere::

    python tests/benchmarks/bench_token_probe.py [--rows 64] [--length 512] [--classes 50257]
        [--share 32] [--repeat 5]

Both are measured ``--repeat`` times in turn, and the medians are shown. One branch is looked at
once, in a process of its own, as at one time of a study. The whole table is made of one
``--share``-th of the rows, one at least, and its numbers are multiplied: 64 x 512 positions of
50,257 classes would need more than 30 GB.

``memory``
    peak resident memory beyond that of the process before it looked, in MB.
``disk``
    what the branch keeps of it, in MB.
``look``
    processor time to evaluate the branch, in seconds; streamed, beside its control.
``verify``
    the same that a verifier takes for it: to evaluate it once more, compare it with the recorded
    file, check that file, and compute every metric.
``equal``
    as ``look``, of a branch that has its control's weights, such as the replica.
``seed``
    as ``verify``, of a control, a branch and a replica: what a study of one treatment has at each
    time. Of whole tables the replica is taken to need what the branch does.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from auditkit.files import store
from auditkit.formats.run_files import Outcome, outcome_from_tensors, outcome_to_tensors
from auditkit.program.probe import Probe
from auditkit.program.reference import Reference
from auditkit.program.streamed_probe import Beside, look_by_position
from auditkit.statistics.positions import distances, position_tables, signed_metrics

WIDTH = 64


def make(rows: int, length: int, classes: int) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """Control, a branch a little away from it, and tokens."""
    torch.manual_seed(0)
    control, branch = (
        nn.Sequential(nn.Embedding(classes, WIDTH), nn.Linear(WIDTH, classes)) for _ in range(2)
    )
    weights = {name: w + 1e-3 * torch.randn_like(w) for name, w in control.state_dict().items()}
    branch.load_state_dict(weights)
    return control.eval(), branch.eval(), torch.randint(classes, (rows, length + 1))


def peak() -> float:
    """Largest resident memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time of a call, and its result."""
    begin = time.process_time()
    found = call()
    return time.process_time() - begin, found


def kept(folder: Path, labels: np.ndarray[Any, Any], tables: dict[str, Any]) -> Path:
    """The file of a branch."""
    path = folder / "branch.safetensors"
    store.write_tensors(path, outcome_to_tensors(Outcome(labels, tables)))
    return path


def again(path: Path, found: dict[str, Any], given: dict[str, Any] | None) -> None:
    """What a verifier does with the file of a branch, or of the control where none is given."""
    recorded = outcome_from_tensors(store.read_tensors(path, what="branch")[0], what="branch")
    assert all(recorded.tables[name].tobytes() == found[name].tobytes() for name in found)
    table = position_tables(recorded.tables)["T"]
    if isinstance(table, np.ndarray):
        assert np.isfinite(table).all()
        assert (np.abs(table.astype(np.float64).sum(axis=1) - 1) < 1e-4).all()
    signed_metrics(table, recorded.labels)
    if given is not None:
        distances(position_tables(given)["T"], table)


@torch.no_grad()
def streamed(rows: int, length: int, classes: int, folder: Path) -> dict[str, float]:
    """Look as it is done now."""
    control, branch, ids = make(rows, length, classes)
    probe = Probe(ids[:, :-1], ids[:, 1:])
    labels = probe.known_labels.numpy()
    reference = Reference()
    base = peak()
    own, given = timed(lambda: look_by_position(control, probe, "T", Beside(0, reference)))
    path = kept(folder, labels, given)
    seed = own + timed(lambda: again(path, given, None))[0]
    reference.complete = True
    look, found = timed(lambda: look_by_position(branch, probe, "T", Beside(0, reference)))
    equal, replica = timed(lambda: look_by_position(control, probe, "T", Beside(0, reference)))
    path = kept(folder, labels, replica)
    seed += equal + timed(lambda: again(path, replica, given))[0]
    path = kept(folder, labels, found)
    verify = look + timed(lambda: again(path, found, given))[0]
    return {
        "memory": peak() - base,
        "disk": path.stat().st_size / 1e6,
        "look": look,
        "equal": equal,
        "verify": verify,
        "seed": seed + verify,
    }


def whole_table(model: nn.Module, inputs: torch.Tensor) -> np.ndarray[Any, Any]:
    """The table of all positions, as of a probe whose predict flattens them."""
    scores = torch.cat([model(inputs).flatten(0, 1)])
    return scores.to("cpu", torch.float64).softmax(dim=1).to(torch.float32).numpy()


@torch.no_grad()
def whole(rows: int, length: int, classes: int, folder: Path) -> dict[str, float]:
    """Look as it was done before, and keep the table."""
    control, branch, ids = make(rows, length, classes)
    labels = ids[:, 1:].flatten().numpy()
    own, given = timed(lambda: {"T": whole_table(control, ids[:, :-1])})
    base = peak()
    look, found = timed(lambda: {"T": whole_table(branch, ids[:, :-1])})
    path = kept(folder, labels, found)
    verify = look + timed(lambda: again(path, found, given))[0]
    memory = peak() - base
    path = kept(folder, labels, given)
    own += timed(lambda: again(path, given, None))[0]
    return {
        "memory": memory,
        "disk": path.stat().st_size / 1e6,
        "look": look,
        "equal": look,
        "verify": verify,
        "seed": own + 2 * verify,
    }


def measured(kind: str, rows: int, options: argparse.Namespace) -> dict[str, float]:
    """The numbers of one kind, from a process of its own."""
    shape = [str(rows), str(options.length), str(options.classes)]
    command = [sys.executable, __file__, "--kind", kind]
    command += ["--rows", shape[0], "--length", shape[1], "--classes", shape[2]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Parse, look, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--classes", type=int, default=50257)
    parser.add_argument("--share", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--kind", choices=["streamed", "whole"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.kind:
        look = streamed if options.kind == "streamed" else whole
        with tempfile.TemporaryDirectory() as folder:
            found = look(options.rows, options.length, options.classes, Path(folder))
        print(json.dumps(found))
        return
    rows = {"whole": max(options.rows // options.share, 1), "streamed": options.rows}
    turns = range(options.repeat)
    runs = [{kind: measured(kind, rows[kind], options) for kind in rows} for _ in turns]
    print(f"{options.rows} x {options.length} positions, {options.classes} classes, one look")
    for name in runs[0]["streamed"]:
        now, before = (median(run[kind][name] for run in runs) for kind in ("streamed", "whole"))
        before *= rows["streamed"] / rows["whole"]
        print(f"{name:7} {now:10.1f}   whole table {before:10.1f}   ratio {now / before:.4f}")


if __name__ == "__main__":
    main()
