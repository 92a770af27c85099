"""What ``auditkit verify --replay none`` costs: time and memory.

Run it from anywhere::

    python tests/benchmarks/bench_verify.py [--seeds 20] [--steps 10000] [--big GIB]

The study is made by hand, eight branches a seed, and verified in a fresh process. With ``--big``
the study is small, but one fork in it has that many GiB. A line says how much processor time the
whole command took, the largest resident memory of its process, and whether torch was loaded.
Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from synthetic_studies import Size, write_study

from auditkit.records.manifest import SIGNER_NAME
from auditkit.signing.keys import generate_key

# Runs in the fresh process; the module is executed as ``python -m auditkit`` would. The peak that
# getrusage knows is no use: it begins before exec, as that of the process that made the study.
_MEASURED = r"""
import json, re, runpy, sys, time
from pathlib import Path
code = 0
try:
    runpy.run_module("auditkit", run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code or 0
seconds, status = time.process_time(), Path("/proc/self/status").read_text()
print(json.dumps({
    "exit_code": code,
    "seconds": seconds,
    "peak_mib": int(re.search(r"VmHWM:\s+([0-9]+)", status)[1]) / 1024,
    "torch": "torch" in sys.modules,
}))
"""


@dataclass(frozen=True)
class Cost:
    """What one verification cost.

    Attributes:
        exit_code: Of the command.
        seconds: Processor time of the command, imports included.
        peak_mib: Largest resident memory of the process.
        torch: Whether torch was loaded.
    """

    exit_code: int
    seconds: float
    peak_mib: float
    torch: bool


def verify(manifest: Path, *options: str) -> Cost:
    """Verify a manifest without replay, in a process of its own."""
    key = str(manifest.with_name(SIGNER_NAME))
    arguments = ["verify", str(manifest), "--key", key, "--replay", "none", *options]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *arguments], capture_output=True, text=True, check=False
    )
    if not done.stdout:
        raise RuntimeError(done.stderr)
    report, _, line = done.stdout.rstrip().rpartition("\n")
    cost = Cost(**json.loads(line))
    if cost.exit_code:
        raise RuntimeError(report)
    return cost


def main() -> None:
    """Parse, make the study, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--big", type=float, help="GiB of one fork, in a small study")
    parser.add_argument("--repeat", type=int, default=3, help="times that it is verified")
    options = parser.parse_args()
    size = Size(options.seeds, options.steps, batch=32, probe=(1000, 10), padding=10**6)
    if options.big is not None:
        size = Size(seeds=1, padding=int(options.big * 2**30))
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_study(Path(folder, "study"), generate_key(), size)
        files = [file for file in manifest.parent.rglob("*") if file.is_file()]
        n_bytes = sum(file.stat().st_size for file in files)
        print(f"{size.seeds} seeds x 8 branches x {size.steps:,} steps: {n_bytes:,} bytes")
        for _ in range(options.repeat):
            cost = verify(manifest)
            loaded = "torch loaded" if cost.torch else "no torch"
            print(f"{cost.seconds:.2f} s  {cost.peak_mib:.0f} MiB  {loaded}")


if __name__ == "__main__":
    main()
