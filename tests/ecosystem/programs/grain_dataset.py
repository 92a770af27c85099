"""grain's MapDataset as an iterable one, with worker processes that fetch ahead."""

import grain
import shared


def make_loader(workers):
    data = grain.MapDataset.source(range(64)).seed(0).shuffle().map(shared.sample)
    stream = data.batch(shared.BATCH).to_iter_dataset()
    if workers:
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return stream


def train(wrap, workers):
    return shared.train_on(make_loader(workers), wrap)


def make_program(seed, workers="0"):
    return shared.program_on(make_loader(int(workers)))


STUDY = shared.study("optimizer-reset")
