"""webdataset, shuffled by a seed and a number that its stage counts."""

from pathlib import Path

import shared
import webdataset as wds
from torch.utils.data import DataLoader


def prepare(folder):
    with wds.ShardWriter(f"{folder}/%d.tar", maxcount=16, verbose=0) as writer:
        for index in range(64):
            x, y = shared.sample(index)
            writer.write({"__key__": f"{index:03}", "x.npy": x, "y.cls": int(y)})


def make_loader(workers, data):
    shards = sorted(str(file) for file in Path(data).glob("*.tar"))
    stream = wds.WebDataset(shards, shardshuffle=4, detshuffle=True, seed=0)
    stream = stream.compose(wds.detshuffle(32)).decode().to_tuple("x.npy", "y.cls")
    return DataLoader(stream.batched(shared.BATCH, partial=False), None, num_workers=workers)


def train(wrap, workers, data):
    return shared.train_on(make_loader(workers, data), wrap)


def make_program(seed, workers="0", data="data"):
    return shared.program_on(make_loader(int(workers), data))


STUDY = shared.study("optimizer-reset")
