"""torchio, which draws from torch's stream."""

import pictures
import shared
import torch
import torchio as tio


def make_loader(workers):
    transform = tio.Compose([tio.RandomFlip(axes=2), tio.RandomNoise(std=0.1)])

    def augment(picture):
        return transform(torch.as_tensor(picture)[None, None]).numpy()

    return pictures.loader_of(augment, workers)


def train(wrap, workers):
    return shared.train_on(make_loader(workers), wrap)


def make_program(seed, workers="0"):
    return shared.program_on(make_loader(int(workers)))


STUDY = shared.study("optimizer-reset", "order-shuffle")
