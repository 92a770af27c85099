"""monai with a seed, and nothing that tells auditkit of it."""

import numpy as np
import pictures
import shared
from monai.transforms import Compose, RandFlip, RandGaussianNoise


def make_loader(workers):
    transform = Compose([RandFlip(prob=0.5, spatial_axis=1), RandGaussianNoise(prob=1.0, std=0.1)])
    transform.set_random_state(seed=0)
    return pictures.loader_of(
        lambda picture: np.asarray(transform(picture[None])), workers
    ), transform


def train(wrap, workers):
    return shared.train_on(make_loader(workers)[0], wrap)


def make_program(seed, workers="0"):
    return shared.program_on(make_loader(int(workers))[0])


STUDY = shared.study("optimizer-reset", "order-shuffle")
