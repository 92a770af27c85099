"""What ``auditkit report`` costs beside its verification: CPU seconds, memory, size of the page.

Run it from anywhere::

    python tests/benchmarks/bench_report.py [--seeds 20] [--steps 10000]

The study is made by hand, eight branches a seed. It is verified without replay, since it has no
program; the estimates are computed of its own outcome tables, as after a replay. A line says what
all took in a fresh process, and what of that was spent beyond the verification. Linux only.
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

# Runs in a fresh process: the real command, whose verification is given the estimates.
_MEASURED = r"""
import dataclasses, json, re, sys, time
from pathlib import Path
from auditkit.cli import report as command
from auditkit.cli.group import main
from auditkit.evidence.reader import RunEvidence
from auditkit.formats.statements import manifest_from_statement
from auditkit.signing.envelopes import open_envelope
from auditkit.statistics.estimands import estimate
from auditkit.verification.branch_tables import branch_tables

verify = command.verify_path
spent = 0.0

def verified(path, request):
    global spent
    report = verify(path, request)
    payload = open_envelope(path.read_bytes()).payload
    run = RunEvidence(path.parent, manifest_from_statement(payload, what="made"))
    estimates = estimate(branch_tables(run, {}), run.manifest.plan)
    spent = time.process_time()
    return dataclasses.replace(report, verdict="verified", estimates=estimates)

command.verify_path = verified
code = main(sys.argv[1:], standalone_mode=False)
status = Path("/proc/self/status").read_text()
print(json.dumps({
    "exit_code": code or 0,
    "seconds": time.process_time(),
    "beyond": time.process_time() - spent,
    "peak_mib": int(re.search(r"VmHWM:\s+([0-9]+)", status)[1]) / 1024,
}))
"""


@dataclass(frozen=True)
class Cost:
    """What one report cost.

    Attributes:
        exit_code: Of the command.
        seconds: CPU seconds of the whole command, imports included.
        beyond: Those of them that were spent after the verification.
        peak_mib: Largest resident memory of the process.
    """

    exit_code: int
    seconds: float
    beyond: float
    peak_mib: float


def report(manifest: Path, page: Path) -> Cost:
    """Make the page of a manifest in a process of its own."""
    key = str(manifest.with_name(SIGNER_NAME))
    arguments = ["report", str(manifest), "--key", key, "--out", str(page), "--replay", "none"]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Parse, make the study, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--probe", type=int, default=1000, help="examples, of 10 classes")
    options = parser.parse_args()
    size = Size(options.seeds, options.steps, batch=32, probe=(options.probe, 10))
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_study(Path(folder, "study"), generate_key(), size)
        page = Path(folder, "report.html")
        cost = report(manifest, page)
        n_bytes = page.stat().st_size
    print(f"{size.seeds} seeds x 8 branches x {size.steps:,} steps")
    print(
        f"{cost.seconds:.1f} CPU s, {cost.beyond:.1f} of them beyond the verification  "
        f"{cost.peak_mib:.0f} MiB  {n_bytes:,} bytes"
    )


if __name__ == "__main__":
    main()
