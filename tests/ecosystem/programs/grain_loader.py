"""grain's DataLoader: one pass over three epochs of its sampler."""

import shared
from grain.python import Batch, DataLoader, IndexSampler, ShardOptions


class Source:
    """A data source with a name that stays."""

    def __len__(self):
        return 64

    def __getitem__(self, index):
        return shared.sample(index)

    def __repr__(self):
        return "Source()"


def make_loader(workers):
    shards = ShardOptions(shard_index=0, shard_count=1)
    sampler = IndexSampler(64, shard_options=shards, shuffle=True, num_epochs=3, seed=0)
    return DataLoader(
        data_source=Source(),
        sampler=sampler,
        operations=[Batch(shared.BATCH)],
        worker_count=workers,
    )


def train(wrap, workers):
    return shared.train_on(make_loader(workers), wrap, epochs=1)


def make_program(seed, workers="0"):
    return shared.program_on(make_loader(int(workers)))


STUDY = shared.study("optimizer-reset")
