"""kornia in the data set, which draws from torch's stream."""

import kornia.augmentation as K  # as its documentation does
import pictures
import shared
import torch


def make_loader(workers):
    transform = K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5), K.RandomGaussianNoise(std=0.1, p=1.0)
    )

    def augment(picture):
        return transform(torch.as_tensor(picture)[None, None]).numpy()

    return pictures.loader_of(augment, workers)


def train(wrap, workers):
    return shared.train_on(make_loader(workers), wrap)


def make_program(seed, workers="0"):
    return shared.program_on(make_loader(int(workers)))


STUDY = shared.study("optimizer-reset", "order-shuffle")
