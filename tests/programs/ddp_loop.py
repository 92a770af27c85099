"""Data-parallel training on the CPU that is recorded; options make it die or break.

Run it with ``python -m torch.distributed.run --nproc-per-node 2 ddp_loop.py``, or start every
process by itself with RANK and WORLD_SIZE set and ``--meet`` naming a file that does not exist.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import auditkit as ak

N_SAMPLES = 48


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Points whose augmentation draws from the global stream."""

    def __len__(self) -> int:
        return N_SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        clean = torch.linspace(-1, 1, 6) * (1 + index % 7)
        return clean + 0.1 * torch.randn(6), torch.tensor(index % 3)


def make_model() -> nn.Module:
    """Layers enough for several buckets, with buffers and with draws of random numbers."""
    return nn.Sequential(
        *(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2)),
        *(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3)),
    )


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True, help="the recording")
    parser.add_argument("--result", type=Path, help="folder for what each process ends with")
    parser.add_argument("--meet", type=Path, help="file over which the processes meet")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--every", type=int, default=0, help="steps between checkpoints")
    parser.add_argument("--keep", type=int)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--patience", type=float, default=30.0)
    parser.add_argument("--only", type=int, help="the one process that wraps")
    parser.add_argument(
        "--sharded",
        choices=["fsdp", "fsdp-whole", "fsdp-columns", "fsdp-replicas", "fsdp1", "zero"],
    )
    parser.add_argument("--elsewhere", type=int, help="the process that records elsewhere")
    parser.add_argument("--nokey", type=int, help="the process that finds no key")
    for name in ("plain", "resume", "rounds", "evaluate", "accumulate", "destroy"):
        parser.add_argument(f"--{name}", action="store_true")
    for name in ("kill", "exit", "raise", "drift", "full"):
        parser.add_argument(f"--{name}", default="", help="RANK:STEP,... where that happens")
    return parser.parse_args()


def happens(where: str, step: int) -> bool:
    """Whether a thing happens in this process at this step."""
    return f"{dist.get_rank()}:{step}" in where.split(",")


def trouble(chosen: argparse.Namespace, model: nn.Module, step: int) -> None:
    """What goes wrong before a step."""
    if happens(chosen.kill, step):
        os.kill(os.getpid(), signal.SIGKILL)
    if happens(chosen.exit, step):
        os._exit(3)
    if happens(getattr(chosen, "raise"), step):
        raise ValueError("the user's own mistake")
    if happens(chosen.drift, step):
        with torch.no_grad():
            next(model.parameters()).add_(0.25)
    if happens(chosen.full, step):
        (chosen.out / f"rank-{dist.get_rank():04d}" / "trace").touch()  # no folder can be made


def make_recorder(chosen: argparse.Namespace) -> ak.Recorder | None:
    """What the loop is recorded with, if it is."""
    rank = dist.get_rank()
    if chosen.plain or chosen.only not in (None, rank):
        return None
    make = ak.Recorder.resume if chosen.resume else ak.Recorder
    key = chosen.out / "missing" if rank == chosen.nokey else None
    settings = {"checkpoint_every": chosen.every, "keep_checkpoints": chosen.keep}
    out = chosen.out / "elsewhere" if rank == chosen.elsewhere else chosen.out
    return make(out, 7, patience=chosen.patience, key=key, **settings)


def forward_backward(model: Any, batch: list[Tensor], *, apart: bool) -> Tensor:
    """One forward and backward pass; ``apart`` leaves the gradients unshared."""
    if hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(not apart)
    with model.no_sync() if apart and hasattr(model, "no_sync") else nullcontext():
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
    return loss


def evaluate(model: nn.Module) -> None:
    """A pass without gradients, after which the next one shares no buffers."""
    model.eval()
    with torch.no_grad():
        model(torch.ones(2, 6))
    model.train()


def train(chosen: argparse.Namespace) -> None:
    """The whole script of a user, but for its troubles."""
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(7)
    model, optimizer = make_trained(chosen.sharded)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(100 + rank)
    data = Samples()
    sampler: DistributedSampler[Any] = DistributedSampler(data, size, rank, seed=3)
    loader = DataLoader(data, 4, sampler=sampler, num_workers=chosen.workers)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)
    recorder = make_recorder(chosen)
    with recorder or nullcontext():
        if recorder:
            recorder.wrap(model, optimizer, loader, scheduler=scheduler)
        rounds = range(chosen.epochs)
        for epoch in recorder.epochs(rounds) if recorder and chosen.rounds else rounds:
            sampler.set_epoch(epoch)
            for number, batch in recorder.enumerate(loader) if recorder else enumerate(loader):
                trouble(chosen, model, recorder.step + 1 if recorder else 0)
                apart = chosen.accumulate and number % 2 == 0
                loss = forward_backward(model, batch, apart=apart)
                if recorder:
                    recorder.log(loss=loss)
                if not apart:
                    optimizer.step()
                    optimizer.zero_grad()
            scheduler.step()
            if chosen.evaluate:
                evaluate(model)
        trouble(chosen, model, recorder.step + 1 if recorder else 0)
        if chosen.destroy:
            dist.destroy_process_group()
    if chosen.result:
        leave(chosen.result / f"{rank}.pt", model)


def make_trained(sharded: str | None) -> tuple[Any, torch.optim.Optimizer]:
    """A model that all processes train and its optimizer, which may be sharded."""
    plain = make_model()
    if sharded and sharded.startswith("fsdp") and sharded != "fsdp1":
        from torch.distributed.device_mesh import init_device_mesh  # takes a second
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import Shard

        size = dist.get_world_size()
        shape = (2, size // 2) if sharded == "fsdp-replicas" else (size,)
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicas", "rows")[-len(shape) :])
        by_columns = (lambda one: Shard(one.ndim - 1)) if sharded == "fsdp-columns" else None
        for name in ("4", "6") if sharded != "fsdp-whole" else ():
            layer = plain.get_submodule(name)
            fully_shard(layer, mesh=mesh, shard_placement_fn=by_columns)
        fully_shard(plain, mesh=mesh)
        return plain, torch.optim.AdamW(plain.parameters(), lr=0.01)
    if sharded == "fsdp1":
        from torch.distributed.fsdp import FullyShardedDataParallel

        whole = FullyShardedDataParallel(plain, device_id=torch.device("cpu"))
        return whole, torch.optim.AdamW(whole.parameters(), lr=0.01)
    model = DistributedDataParallel(plain, bucket_cap_mb=0.005)
    if sharded == "zero":
        from torch.distributed.optim import ZeroRedundancyOptimizer

        return model, ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=0.01)
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def leave(path: Path, model: nn.Module) -> None:
    """Keep what this process ends with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = {
        name: getattr(value, "to_local", lambda value=value: value)().tolist()
        for name, value in model.state_dict().items()
    }
    streams = (random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist())
    path.write_text(repr((held, streams)))


def main() -> None:
    """Meet the others, train."""
    torch.set_num_threads(1)
    chosen = options()
    if chosen.meet:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        dist.init_process_group("gloo", f"file://{chosen.meet}", rank=rank, world_size=size)
    else:
        dist.init_process_group("gloo")
    train(chosen)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
