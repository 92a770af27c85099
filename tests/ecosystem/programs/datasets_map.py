"""A map-style data set of Hugging Face's datasets."""

import shared
from datasets import Dataset
from torch.utils.data import DataLoader


def make_loader(workers):
    x, y = shared.samples()
    data = Dataset.from_dict({"x": x[:64].numpy(), "y": y[:64].numpy()}).with_format("torch")
    return DataLoader(data, batch_size=shared.BATCH, shuffle=True, num_workers=workers)


def train(wrap, workers):
    return shared.train_on(make_loader(workers), wrap)


def make_program(seed, workers="0"):
    return shared.program_on(make_loader(int(workers)))


STUDY = shared.study("optimizer-reset", "order-shuffle")
