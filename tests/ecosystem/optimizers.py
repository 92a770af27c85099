"""Every optimizer of torch.optim and of pytorch-optimizer through ``run`` and ``verify``: a table.

::

    PYTHONPATH=tests python -m ecosystem.optimizers [FOLDER] [--only NAME ...] [--torch]
        [--limit SECONDS]

auditkit, what it needs and the library are installed, pinned, into a virtual environment of their
own below FOLDER (a temporary one by default). One process at a time; each optimizer trains a tiny
network in a study of one seed, and is *verified*, or refused with auditkit's own reason.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ecosystem.environments import call, make_environment, one_line

LIBRARY = "pytorch-optimizer==4.1.0"

#: Needs of its own: what the constructor asks for besides parameters, and options of LBFGS's kind.
PROGRAM = """
import importlib
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
import auditkit as ak


def make_program(seed, module="torch.optim", name="SGD"):
    x = torch.randn(96, 8, generator=torch.Generator().manual_seed(0))
    y = (x.sum(1) > 0).long()
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    kind = getattr(importlib.import_module(module), name)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    made = None
    for parameters, options in (
        (list(model.parameters()), {}), (list(model.parameters()), {"lr": 1e-3}),
        (list(model.parameters()), {"num_iterations": 10}), (matrices, {}), (model, {}),
        ([{"params": matrices, "use_muon": True}], {}),
        (torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9), {}),
    ):
        try:
            made = kind(parameters, **options)
            break
        except Exception as error:
            problem = problem if "problem" in dir() else error
    if made is None:
        raise problem

    def step(program, batch, t):
        def closure():
            made.zero_grad()
            loss = F.cross_entropy(model(batch[0]), batch[1])
            loss.backward(create_graph=name in ("AdaHessian", "SophiaH"))
            return loss
        if name in ("LBFGS", "SAM", "GSAM", "WSAM", "BSAM", "LookSAM", "FriendlySAM", "AliG"):
            closure()
            return made.step(closure)
        loss = closure()
        made.step()
        return loss

    return ak.Program(
        model=model, optimizer=made, step=step,
        loader=DataLoader(TensorDataset(x[:64], y[:64]), batch_size=16, shuffle=True),
        probe=ak.Probe(x[64:], y[64:]))


STUDY = ak.StudyPlan(fork_at=3, window=1, horizon=6, seeds=[0], placebos=1,
                     perturbations=["optimizer-reset"])
"""


def main() -> None:
    """Make the environment, run every optimizer, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--torch", action="store_true", help="torch.optim only")
    parser.add_argument("--limit", type=float, default=7200.0, help="seconds for all of it")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (chosen.folder or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        python = make_environment(
            folder / "environments" / ("base" if chosen.torch else "optimizers"),
            without_needs=() if chosen.torch else (LIBRARY,),
        )
        (folder / "study.py").write_text(PROGRAM)
        begun, found = time.monotonic(), Counter[str]()
        for module, name in optimizers(python, torch_only=chosen.torch):
            if chosen.only and name not in chosen.only:
                continue
            if time.monotonic() - begun > chosen.limit:
                print(f"the time is up before {module}.{name}")
                break
            word, reason = examine(python, folder, module, name)
            found[word] += 1
            print(f"| {module}.{name} | {word} | {reason} |", flush=True)
    print(", ".join(f"{count} {word}" for word, count in sorted(found.items())))
    sys.exit(1 if found["failed"] else 0)


def optimizers(python: Path, *, torch_only: bool) -> Iterator[tuple[str, str]]:
    """Module and name of every optimizer."""
    script = (
        "import torch.optim, inspect\n"
        "def of(module, names):\n"
        "    for n in names:\n"
        "        k = getattr(module, n)\n"
        "        if inspect.isclass(k) and k is not torch.optim.Optimizer:\n"
        "            if issubclass(k, torch.optim.Optimizer): print(module.__name__, k.__name__)\n"
        "of(torch.optim, sorted(dir(torch.optim)))\n"
    )
    if not torch_only:
        script += (
            "import pytorch_optimizer as po\n"
            "of(po, sorted(n for n in dir(po) if n not in ('BaseOptimizer',)))\n"
        )
    done = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True)
    seen: dict[tuple[str, str], None] = {}
    for line in done.stdout.splitlines():
        module, name = line.split()
        seen[module, name] = None
    yield from seen


def examine(python: Path, folder: Path, module: str, name: str) -> tuple[str, str]:
    """``run`` and ``verify`` of one optimizer: what became of it, and why."""
    out = folder / "runs" / f"{module}.{name}"
    arguments = ["--arg", f"module={module}", "--arg", f"name={name}"]
    code, said = run_auditkit(python, folder, "run", "study.py", "--out", str(out), *arguments)
    if code == 0:
        code, said = run_auditkit(python, folder, "verify", str(out / "manifest.json"))
        return ("verified", "") if code == 0 else ("failed", findings(said))
    reason = re.sub(r"^.*?auditkit: |\(auditkit explain.*$", "", said).strip()
    theirs = "raised" in reason and "Error" in reason and "study.py" in reason
    return ("not run" if theirs else "refused"), reason[:300].replace("|", "/")


def findings(report: str) -> str:
    """The first finding of a report."""
    found = re.search(r"check \d+ [\w ]+: .{0,200}", report)
    return found[0].replace("|", "/") if found else report[-200:]


def run_auditkit(python: Path, folder: Path, *words: str) -> tuple[int, str]:
    """A command of auditkit's: its exit code and what it said."""
    done = call(python, folder, "-W", "ignore", "-m", "auditkit", *words, limit=180.0)
    return done.returncode, one_line(done.stdout + done.stderr)


if __name__ == "__main__":
    main()
