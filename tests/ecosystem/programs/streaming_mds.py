"""mosaicml-streaming's StreamingDataset and its loader, which count epochs by themselves."""

import shared
import torch

# The library imports torchvision, whose wheel looks for operators that this torch does not have.
vision = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    vision.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from streaming import MDSWriter, StreamingDataLoader, StreamingDataset


class Stream(StreamingDataset):
    """Its epoch lies in shared memory, where only it can set it."""

    def set_epoch(self, epoch):
        self.next_epoch = epoch


def prepare(folder):
    columns = {"x": "ndarray:float32", "y": "int"}
    with MDSWriter(out=str(folder), columns=columns) as writer:
        for index in range(64):
            x, y = shared.sample(index)
            writer.write({"x": x, "y": int(y)})


def make_loader(workers, data):
    stream = Stream(local=data, shuffle=True, batch_size=shared.BATCH, num_canonical_nodes=1)
    return StreamingDataLoader(stream, batch_size=shared.BATCH, num_workers=workers)


def train(wrap, workers, data):
    return shared.train_on(make_loader(workers, data), wrap)


def make_program(seed, workers="0", data="data"):
    return shared.program_on(make_loader(int(workers), data))


STUDY = shared.study("optimizer-reset")
