"""A study by two workers of dask, and of ray, beside the same with ``--jobs 2``.

``python tests/benchmarks/bench_engines.py [--rounds 5] [--horizon 1000] [--engine dask]`` runs the
same study in turn by each, and prints, as ratios to ``--jobs 2`` in the same round, the medians of
the wall time and of the processor time of every process that was started, the engine's own
included. Files must be equal. Engines that are not installed are left out.

``--head`` has ray's node started before, as it is on a cluster, and left running between rounds;
its processor time is not told apart from that of others. A line of every round goes to stderr: wall
seconds, processor seconds, and those of the whole machine meanwhile, which say whether it was idle.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib.util
import json
import os
import resource
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

PROGRAM = Path(__file__).parents[1] / "programs" / "tiny_study.py"

#: Makes what a process leaves behind the child of this one, so that its processor time is told.
_PR_SET_CHILD_SUBREAPER = 36

_HERE = "--jobs 2"
_PACKAGES = {"dask": "distributed", "ray": "ray"}

#: Ray's node that was there before.
_HEAD, _ADDRESS = "ray:ADDRESS", ("127.0.0.1", 6398)


def measured(
    folder: Path, horizon: int, options: tuple[str, ...]
) -> tuple[float, float, float, str]:
    """Wall seconds, processor seconds, those of the machine, and a digest of a study's files."""
    command = (
        *(sys.executable, "-m", "auditkit", "run", str(PROGRAM), "--out", str(folder)),
        *("--jobs", "2", "--seeds", "0-3", "--fork-at", "100", "--window", "5"),
        *("--horizon", str(horizon), "--perturb", "carry", *options),
    )
    before, started, machine = _processor(), time.monotonic(), _machine()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, machine = time.monotonic() - started, _machine() - machine
    if done.returncode:
        sys.exit(f"{' '.join(options) or _HERE}: {done.stderr}")
    while True:  # what the engine left behind, and what was left to us
        try:
            os.wait()
        except ChildProcessError:
            break
    return wall, _processor() - before, machine, _digest(folder)


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _machine() -> float:
    """Processor seconds that every process of the machine has taken: user, nice, system."""
    ticks = Path("/proc/stat").read_text(encoding="utf-8").split()[1:4]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def head(scratch: str) -> Iterator[None]:
    """A node of ray that others than we wait for, so that no round counts it as its own."""
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    host, port = _ADDRESS
    command = (
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *(f"--port={port}", "--num-cpus=2", "--include-dashboard=false"),
        *(f"--temp-dir={scratch}/ray", "--disable-usage-stats"),
    )
    line = ("sh", "-c", '"$@" > "$0" 2>&1 & echo $!', f"{scratch}/head.log", *command)
    pid = int(subprocess.check_output(line, text=True))
    try:
        end = time.monotonic() + 60
        while not _is_open(host, port):
            if time.monotonic() > end:
                sys.exit(Path(scratch, "head.log").read_text(encoding="utf-8"))
            time.sleep(0.5)
        time.sleep(5)  # its other processes start
        yield
    finally:
        os.kill(pid, signal.SIGTERM)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.1)


def _is_open(host: str, port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex((host, port)) == 0


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
    parser.add_argument("--head", action="store_true")
    given = parser.parse_args()
    engines = given.engine or [n for n, p in _PACKAGES.items() if importlib.util.find_spec(p)]
    ways = {_HERE: (), **{name: ("--engine", name) for name in engines}}
    if given.head:
        ways[_HEAD] = ("--engine", "ray:{}:{}".format(*_ADDRESS))
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in ways if name != _HERE}
    with (
        tempfile.TemporaryDirectory() as scratch,
        head(scratch) if given.head else nullcontext(),
    ):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for number in range(given.rounds):
            found = {
                name: measured(
                    Path(scratch) / f"{number}-{name.strip('-')}", given.horizon, options
                )
                for name, options in ways.items()
            }
            wall, processor, _, digest = found[_HERE]
            for name, values in ratios.items():
                if found[name][-1] != digest:
                    sys.exit(f"{name}: the files are not those of {_HERE}")
                values.append((found[name][0] / wall, found[name][1] / processor))
            told = {name: [round(each, 1) for each in found[name][:3]] for name in found}
            print(json.dumps(told), file=sys.stderr)
    for name, values in ratios.items():
        walls, processors = zip(*values, strict=True)
        used = f" and {statistics.median(processors):.2f} x the processor time"
        print(
            f"{name}: {statistics.median(walls):.2f} x the wall time"
            f"{'' if name == _HEAD else used} of {_HERE}, equal files"
        )


if __name__ == "__main__":
    main()
