"""A study by two workers of dask, and of ray, beside the same with ``--jobs 2``.

``python tests/benchmarks/bench_engines.py [--rounds 5] [--horizon 1000] [--engine dask]`` runs the
same study in turn by each, and prints, as ratios to ``--jobs 2`` in the same round, the medians of
the wall time and of the processor time of every process that was started, the engine's own
included. Files must be equal. Engines that are not installed are left out.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = Path(__file__).parents[1] / "programs" / "tiny_study.py"

#: Makes what a process leaves behind the child of this one, so that its processor time is told.
_PR_SET_CHILD_SUBREAPER = 36

_HERE = "--jobs 2"
_PACKAGES = {"dask": "distributed", "ray": "ray"}


def measured(folder: Path, horizon: int, options: tuple[str, ...]) -> tuple[float, float, str]:
    """Wall seconds, processor seconds, and a digest of the files of a study."""
    command = (
        *(sys.executable, "-m", "auditkit", "run", str(PROGRAM), "--out", str(folder)),
        *("--jobs", "2", "--seeds", "0-3", "--fork-at", "100", "--window", "5"),
        *("--horizon", str(horizon), "--perturb", "carry", *options),
    )
    before, started = _processor(), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.monotonic() - started
    if done.returncode:
        sys.exit(f"{' '.join(options) or _HERE}: {done.stderr}")
    while True:  # what the engine left behind, and what was left to us
        try:
            os.wait()
        except ChildProcessError:
            break
    return wall, _processor() - before, _digest(folder)


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--horizon", type=int, default=1000)
    parser.add_argument("--engine", action="append", choices=_PACKAGES)
    given = parser.parse_args()
    engines = given.engine or [n for n, p in _PACKAGES.items() if importlib.util.find_spec(p)]
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ways = {_HERE: (), **{name: ("--engine", name) for name in engines}}
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in ways if name != _HERE}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(given.rounds):
            found = {
                name: measured(
                    Path(scratch) / f"{number}-{name.strip('-')}", given.horizon, options
                )
                for name, options in ways.items()
            }
            wall, processor, digest = found[_HERE]
            for name, values in ratios.items():
                if found[name][2] != digest:
                    sys.exit(f"{name}: the files are not those of {_HERE}")
                values.append((found[name][0] / wall, found[name][1] / processor))
            print(json.dumps({name: found[name][:2] for name in found}), file=sys.stderr)
    for name, values in ratios.items():
        walls, processors = zip(*values, strict=True)
        print(
            f"{name}: {statistics.median(walls):.2f} x the wall time and "
            f"{statistics.median(processors):.2f} x the processor time of {_HERE}, equal files"
        )


if __name__ == "__main__":
    main()
