"""What a replay costs, next to the run that it repeats.

Run it from anywhere::

    python tests/benchmarks/bench_replay.py [--seeds 4] [--horizon 240] [--jobs 2]

``examples/digits.py`` is run by ``auditkit run``, then all of it is verified by ``auditkit verify
--replay all``, in turns; a line gives both times in seconds and their ratio.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.py"


def timed(home: Path, *arguments: str) -> float:
    """Seconds that a command of auditkit takes."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "auditkit", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_CONFIG_HOME": str(home)},
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return time.perf_counter() - start


def main() -> None:
    """Parse, run, verify, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--horizon", type=int, default=240, help="its quarter is the fork")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=2)
    options = parser.parse_args()
    quarter = str(options.horizon // 4)
    plan = ["--fork-at", quarter, "--window", quarter, "--horizon", str(options.horizon)]
    plan += ["--seeds", f"0-{options.seeds - 1}"]
    for turn in range(options.repeat):
        with tempfile.TemporaryDirectory() as folder:
            home, out = Path(folder, "home"), Path(folder, "run")
            jobs = ["--jobs", str(options.jobs)]
            run = timed(home, "run", str(EXAMPLE), "--out", str(out), *plan, *jobs)
            verify = timed(home, "verify", str(out / "manifest.json"), *jobs)
            print(f"turn {turn}: run {run:.1f}  verify {verify:.1f}  ratio {verify / run:.3f}")


if __name__ == "__main__":
    main()
