"""A pipeline of torchdata's nodes, ended by its Loader."""

import shared
import torch
from torch.utils.data import RandomSampler, default_collate
from torchdata import nodes


def make_loader(workers):
    order = torch.Generator().manual_seed(0)
    sampler = RandomSampler(range(64), generator=order)
    node = nodes.SamplerWrapper(sampler)
    node = nodes.ParallelMapper(node, shared.sample, num_workers=workers, method="process")
    node = nodes.Mapper(nodes.Batcher(node, shared.BATCH), default_collate)
    return nodes.Loader(node), order


def train(wrap, workers):
    loader, order = make_loader(workers)
    return shared.train_on(loader, wrap, extras={"order": order})


def make_program(seed, workers="0"):
    loader, order = make_loader(int(workers))
    return shared.program_on(loader, extras={"order": order})


STUDY = shared.study("optimizer-reset")
