"""litdata's StreamingDataset and StreamingDataLoader, which count epochs by themselves."""

import litdata
import shared
import torch


def pair(index):
    x, y = shared.sample(index)
    return torch.as_tensor(x), int(y)


def prepare(folder):
    litdata.optimize(pair, list(range(64)), str(folder), chunk_size=16, num_workers=1)


def make_loader(workers, data):
    stream = litdata.StreamingDataset(data, shuffle=True, seed=0)
    return litdata.StreamingDataLoader(stream, batch_size=shared.BATCH, num_workers=workers)


def train(wrap, workers, data):
    return shared.train_on(make_loader(workers, data), wrap)


def make_program(seed, workers="0", data="data"):
    return shared.program_on(make_loader(int(workers), data))


STUDY = shared.study("optimizer-reset")
