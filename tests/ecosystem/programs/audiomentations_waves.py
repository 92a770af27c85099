"""audiomentations, which draws from python's and numpy's streams."""

import pictures
import shared
from audiomentations import AddGaussianNoise, Compose, Gain


def make_loader(workers):
    transform = Compose([AddGaussianNoise(p=1.0), Gain(p=0.5)])

    def augment(picture):
        return transform(samples=picture.reshape(-1), sample_rate=8000)

    return pictures.loader_of(augment, workers)


def train(wrap, workers):
    return shared.train_on(make_loader(workers), wrap)


def make_program(seed, workers="0"):
    return shared.program_on(make_loader(int(workers)))


STUDY = shared.study("optimizer-reset", "order-shuffle")
