#!/usr/bin/env bash
# torch: a distributed checkpoint mixes the BatchNorm statistics of several processes.
#
# Every process has running statistics of its own batches: under fully_shard always, under
# DistributedDataParallel from each forward pass to the next. torch.distributed.checkpoint takes
# what has one name for one tensor and keeps it once, from whichever process has least to write.
# With three processes a layer's mean is then one process's and its variance another's: after
# loading, every process has statistics that none ever had. Nothing is said.
#
# Hurt: who evaluates or goes on from such a checkpoint; a resume under DistributedDataParallel
# begins with the mixture, where the run that went on had rank 0's.
# What helps: DefaultSavePlanner(dedup_save_to_lowest_rank=True), which keeps rank 0's; or
# SyncBatchNorm, which has the same statistics everywhere.
# Source: measured; https://github.com/pytorch/pytorch/issues/120356 has what is kept once, and
#   https://github.com/pytorch/pytorch/pull/116469 by whom.
# Versions: torch 2.13.0 (gloo, CPU), numpy 2.4.6, Python 3.11, Linux.
# Seen:
#> DDP: mean and variance of two ranks: 3 of 3 layers; as rank 0 had them: 0
#> DDP, lowest rank: mean and variance of two ranks: 0 of 3 layers; as rank 0 had them: 3
#> FSDP2: mean and variance of two ranks: 3 of 3 layers; as rank 0 had them: 0
#> FSDP2, lowest rank: mean and variance of two ranks: 0 of 3 layers; as rank 0 had them: 3
set -euo pipefail
claim="a distributed checkpoint has a layer's mean of one process and its variance of another"

here=$(realpath "$0")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6

cat >mixture.py <<'PYTHON'
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.checkpoint import DefaultSavePlanner
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

WORLD = 3
WRAPPERS = {"DDP": DistributedDataParallel, "FSDP2": fully_shard}


def network(wrap):
    torch.manual_seed(0)
    layers = []
    for before, after in ((8, 8), (8, 12), (12, 16)):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return wrap(nn.Sequential(*layers))


def layers(model):
    found = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    return [(layer.running_mean.clone(), layer.running_var.clone()) for layer in found]


def train(model, rank):
    chance = torch.Generator().manual_seed(rank)
    for _ in range(5):
        model(torch.randn(16, 8, generator=chance) + rank).sum().backward()


def report(name, before, after):
    """Of which ranks a layer's mean and variance are after loading."""
    ranks = [[], []]
    for number, layer in enumerate(after):
        for which, value in enumerate(layer):
            (rank,) = [r for r in range(WORLD) if torch.equal(value, before[r][number][which])]
            ranks[which].append(rank)
    mixed = sum(mean != variance for mean, variance in zip(*ranks))
    first = sum(mean == variance == 0 for mean, variance in zip(*ranks))
    said = f"mean and variance of two ranks: {mixed} of {len(after)} layers"
    print(f"{name}: {said}; as rank 0 had them: {first}", flush=True)


def process(rank, world):
    torch.set_num_threads(1)
    store = Path("store").resolve()
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    for name, wrap in WRAPPERS.items():
        model = network(wrap)
        train(model, rank)
        before = [None] * world
        dist.all_gather_object(before, layers(model))
        for lowest in (False, True):
            told = f"{name}, lowest rank" if lowest else name
            planner = DefaultSavePlanner(dedup_save_to_lowest_rank=lowest)
            dcp.save(get_model_state_dict(model), checkpoint_id=told, planner=planner)
            again = network(wrap)
            state = get_model_state_dict(again)
            dcp.load(state, checkpoint_id=told)
            set_model_state_dict(again, state)
            if rank == 0:
                report(told, before, layers(again))
            dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.start_processes(process, (WORLD,), nprocs=WORLD, start_method="spawn")
PYTHON

venv/bin/python mixture.py | tee seen.txt
sed -n 's/^#> //p' "$here" >expected.txt
if ! diff expected.txt seen.txt; then
  echo "NO LONGER SO: $claim"
  exit 1
fi
echo "still so: $claim"
