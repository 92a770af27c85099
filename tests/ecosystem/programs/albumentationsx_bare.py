"""albumentationsx with a seed, and nothing that tells auditkit of it."""

import albumentations as A  # as its documentation does
import pictures
import shared


def make_transform():
    return A.Compose([A.HorizontalFlip(), A.GaussNoise(p=1.0)], seed=0)


def make_loader(workers):
    transform = make_transform()
    return pictures.loader_of(lambda picture: transform(image=picture)["image"], workers), transform


def train(wrap, workers):
    return shared.train_on(make_loader(workers)[0], wrap)


def make_program(seed, workers="0"):
    return shared.program_on(make_loader(int(workers))[0])


STUDY = shared.study("optimizer-reset", "order-shuffle")
