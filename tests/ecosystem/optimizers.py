"""Every optimizer of torch.optim and of some libraries through ``run`` and ``verify``: a table.

::

    PYTHONPATH=tests python -m ecosystem.optimizers [FOLDER] [--library MODULE ...]
        [--only NAME ...] [--limit SECONDS]

For each library a virtual environment of its own is made below FOLDER (a temporary one by
default), with auditkit, what it needs and the library, pinned. One process at a time; each
optimizer trains the tiny network of ``optimizer_study.py`` in a study of one seed, and is
*verified*, or refused with auditkit's own reason, or *not run* where the optimizer itself raised.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ecosystem.environments import call, make_environment, one_line

STUDY = Path(__file__).with_name("optimizer_study.py")

#: What is installed for the optimizers of a module: the library and its needs, pinned.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "torch.optim": (),
    "pytorch_optimizer": ("pytorch-optimizer==4.1.0", "einops==0.8.2"),
    "torchao.optim": ("torchao==0.18.0",),
    "bitsandbytes.optim": ("bitsandbytes==0.50.2", "packaging==25.0"),
    "heavyball": ("heavyball==3.2.1", "opt-einsum==3.4.0"),
}

#: Seconds that one command may take: what is compiled first takes long.
SLOW = {"torchao.optim": 900.0, "heavyball": 900.0}
QUICK = 180.0

#: Base classes, which are there to be derived from.
BASES = ("Optimizer", "BaseOptimizer", "Optimizer1State", "Optimizer2State", "Optimizer8bit")

#: What becomes of those that are not verified.
EXPECTED: dict[str, dict[str, str]] = {
    "torch.optim": {"SGD": "refused"},  # without momentum it keeps no state
    "pytorch_optimizer": {
        **dict.fromkeys(("SGD", "LOMO"), "refused"),  # keep no state
        **dict.fromkeys(("Conda", "ScalableShampoo"), "refused"),  # objects in the state
        **dict.fromkeys(("Magma", "SaRA"), "refused"),  # attributes keyed by parameters
        **dict.fromkeys(("DeMo", "DistributedMuon"), "not run"),  # want a process group
        "SafeFP16Optimizer": "not run",  # has no groups
    },
    "torchao.optim": {"CPUOffloadOptimizer": "not run"},  # CUDA only
    # raise by themselves on CPU
    "bitsandbytes.optim": dict.fromkeys(
        ("AdEMAMix32bit", "PagedAdEMAMix32bit", "PytorchLARS"), "not run"
    ),
    "heavyball": dict.fromkeys(
        ("ADOPT", "AdamW", "Muon", "NAdam", "RMSprop", "SFAdamW", "SGD"), "refused"
    ),
}

NAMES = """
import importlib, inspect, sys
import torch
module = importlib.import_module(sys.argv[1])
for name, kind in sorted(vars(module).items()):
    if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer):
        print(kind.__name__)
"""


def main() -> None:
    """Make the environments, run every optimizer, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--library", nargs="+", default=list(LIBRARIES), choices=list(LIBRARIES))
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--limit", type=float, default=7200.0, help="seconds for all of it")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (chosen.folder or Path(scratch)).resolve()
        found: Counter[str] = Counter()
        begun = time.monotonic()
        for module in chosen.library:
            for name, (word, reason) in table(folder, module, chosen.only):
                found[word] += 1
                print(f"| {module}.{name} | {word} | {reason} |", flush=True)
                if time.monotonic() - begun > chosen.limit:
                    sys.exit(f"the time is up after {module}.{name}")
    print(", ".join(f"{count} {word}" for word, count in sorted(found.items())))
    sys.exit(1 if found["failed"] else 0)


def table(
    folder: Path, module: str, only: list[str] | None = None
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each optimizer of a module and what became of it.

    Args:
        folder: Where environments and runs are made.
        module: Of :data:`LIBRARIES`.
        only: The optimizers that are looked at; all where empty.
    """
    library = module.partition(".")[0]
    place = folder / "optimizers" / library
    place.mkdir(parents=True, exist_ok=True)
    environment = folder / "environments" / ("base" if library == "torch" else library)
    python = make_environment(environment, without_needs=LIBRARIES[module])
    shutil.copy(STUDY, place / "study.py")
    done = subprocess.run([python, "-c", NAMES, module], check=True, capture_output=True, text=True)
    for name in dict.fromkeys(done.stdout.split()):
        if name not in BASES and (not only or name in only):
            yield name, examine(python, place, module, name)


def examine(python: Path, folder: Path, module: str, name: str) -> tuple[str, str]:
    """``run`` and ``verify`` of one optimizer: what became of it, and why."""
    out = folder / "runs" / name
    shutil.rmtree(out, ignore_errors=True)
    arguments = ["--arg", f"module={module}", "--arg", f"name={name}"]
    limit = SLOW.get(module, QUICK)
    code, said = run_auditkit(
        python, folder, limit, "run", "study.py", "--out", str(out), *arguments
    )
    if code == 0:
        code, said = run_auditkit(python, folder, limit, "verify", str(out / "manifest.json"))
        return ("verified", "") if code == 0 else ("failed", findings(said))
    if "Traceback" in said:
        return "failed", said[-300:].replace("|", "/")
    reason = re.sub(r"^.*?auditkit: |\(auditkit explain.*$", "", said).strip()
    theirs = re.search(r"\.py:\d+: (step \d+|the factory \w+) raised", reason)
    return ("not run" if theirs else "refused"), reason[:300].replace("|", "/")


def findings(report: str) -> str:
    """The first finding of a report."""
    found = re.search(r"check \d+ [\w ]+: .{0,200}", report)
    return found[0].replace("|", "/") if found else report[-200:]


def run_auditkit(python: Path, folder: Path, limit: float, *words: str) -> tuple[int, str]:
    """A command of auditkit's: its exit code and what it said."""
    done = call(python, folder, "-W", "ignore", "-m", "auditkit", *words, limit=limit)
    return done.returncode, one_line(done.stdout + done.stderr)


if __name__ == "__main__":
    main()
