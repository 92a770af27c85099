"""An iterable data set of Hugging Face's datasets with a shuffle buffer."""

import shared
from datasets import Dataset
from torch.utils.data import DataLoader


def make_loader(workers):
    x, y = shared.samples()
    data = Dataset.from_dict({"x": x[:64].numpy(), "y": y[:64].numpy()}).with_format("torch")
    data = data.to_iterable_dataset(num_shards=4).shuffle(seed=0, buffer_size=32)
    return DataLoader(data, batch_size=shared.BATCH, num_workers=workers)


def train(wrap, workers):
    loader = make_loader(workers)
    extras = {"shuffle": loader.dataset._ex_iterable.generator}
    return shared.train_on(loader, wrap, before_epoch=loader.dataset.set_epoch, extras=extras)


def make_program(seed, workers="0"):
    loader = make_loader(int(workers))
    return shared.program_on(loader, extras={"shuffle": loader.dataset._ex_iterable.generator})


STUDY = shared.study("optimizer-reset")
