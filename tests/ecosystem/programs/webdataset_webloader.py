"""webdataset's own WebLoader, which is no DataLoader but holds one; batches are rebatched."""

import shared
import webdataset as wds
from webdataset_deterministic import make_loader as make_data_loader
from webdataset_deterministic import prepare  # noqa: F401


def make_loader(workers, data):
    inner = make_data_loader(workers, data)
    return wds.WebLoader(inner.dataset, batch_size=None, num_workers=workers).with_epoch(4)


def train(wrap, workers, data):
    return shared.train_on(make_loader(workers, data), wrap)


def make_program(seed, workers="0", data="data"):
    return shared.program_on(make_loader(int(workers), data))


STUDY = shared.study("optimizer-reset")
