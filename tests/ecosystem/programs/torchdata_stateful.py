"""torchdata's StatefulDataLoader in the place of torch's DataLoader."""

import shared
from torch.utils.data import TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader


def make_loader(workers):
    x, y = shared.samples()
    data = TensorDataset(x[:64], y[:64])
    return StatefulDataLoader(data, batch_size=shared.BATCH, shuffle=True, num_workers=workers)


def train(wrap, workers):
    return shared.train_on(make_loader(workers), wrap)


def make_program(seed, workers="0"):
    return shared.program_on(make_loader(int(workers)))


STUDY = shared.study("optimizer-reset", "order-shuffle")
