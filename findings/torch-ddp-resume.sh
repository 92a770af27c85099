#!/usr/bin/env bash
# torch: with three processes a complete checkpoint does not resume to the same bits.
#
# Parameters, momentum and batches are all as they were, and yet the first step after a restart
# gives other parameters. DistributedDataParallel sums the gradients of its first step in other
# buckets than those of all later ones; which process adds first depends on where a gradient
# lies in its bucket. A restart has a first step, an uninterrupted run had it long ago. Two
# processes hide it (a + b = b + a), so that a test on two says that all is well.
#
# Hurt: who resumes, or checks a run by repeating a part of it, bit for bit.
# What helps: one forward and backward pass, with its gradients thrown away, before the
# checkpoint is loaded; or find_unused_parameters=True in both runs.
# Source: measured; https://docs.pytorch.org/docs/stable/notes/ddp.html has the buckets, and
#   https://github.com/pytorch/pytorch/pull/197890 the same effect in a test of torch's own.
# Versions: torch 2.13.0 (gloo, CPU), numpy 2.4.6, Python 3.11, Linux.
# Seen:
#> 2 processes: run again: equal; resumed: equal; resumed after a thrown-away pass: equal
#> 3 processes: run again: equal; resumed: other bits; resumed after a thrown-away pass: equal
set -euo pipefail
claim="a resume under three processes ends in other bits"

here=$(realpath "$0")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6

cat >resume.py <<'PYTHON'
import copy
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

STEPS, SAVED = 12, 6


class Run:
    """Model, wrapper and optimizer as every start of a script makes them."""

    def __init__(self):
        torch.manual_seed(0)
        sizes = [20, 50, 30, 10]
        layers = [part for n in zip(sizes, sizes[1:]) for part in (nn.Linear(*n), nn.Tanh())]
        self.model = nn.Sequential(*layers[:-1])
        self.wrapped = DistributedDataParallel(self.model)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)

    def backward(self, step):
        chance = torch.Generator().manual_seed(1000 * step + dist.get_rank())
        inputs = torch.randn(8, 20, generator=chance)
        labels = torch.randint(10, (8,), generator=chance)
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.wrapped(inputs), labels).backward()

    def train(self, first, last):
        for step in range(first, last):
            self.backward(step)
            self.optimizer.step()

    def state(self):
        return copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict()))

    def load(self, state):
        model, optimizer = copy.deepcopy(state)
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)

    def weights(self):
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])


def resumed(checkpoint, thrown_away):
    run = Run()
    if thrown_away:
        run.backward(0)
    run.load(checkpoint)
    run.train(SAVED, STEPS)
    return run.weights()


def process(rank, world):
    torch.set_num_threads(1)
    store = Path(f"store-{world}").resolve()
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    whole, again = Run(), Run()
    whole.train(0, SAVED)
    checkpoint = whole.state()
    whole.train(SAVED, STEPS)
    again.train(0, STEPS)
    ends = {
        "run again": again.weights(),
        "resumed": resumed(checkpoint, thrown_away=False),
        "resumed after a thrown-away pass": resumed(checkpoint, thrown_away=True),
    }
    if rank == 0:
        same = {True: "equal", False: "other bits"}
        said = [f"{name}: {same[torch.equal(end, whole.weights())]}" for name, end in ends.items()]
        print(f"{world} processes:", "; ".join(said), flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    for world in (2, 3):
        mp.start_processes(process, (world,), nprocs=world, start_method="fork")
PYTHON

venv/bin/python resume.py | tee seen.txt
sed -n 's/^#> //p' "$here" >expected.txt
if ! diff expected.txt seen.txt; then
  echo "NO LONGER SO: $claim"
  exit 1
fi
echo "still so: $claim"
