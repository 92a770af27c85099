"""monai whose generators, one of each transform, are registered."""

import shared
from monai_bare import make_loader

import auditkit as ak


def generators(transform):
    parts = (transform, *transform.transforms)
    return {type(part).__name__: part.R for part in parts}


def train(wrap, workers):
    loader, transform = make_loader(workers)
    return shared.train_on(loader, wrap, extras=generators(transform))


def make_program(seed, workers="0"):
    loader, transform = make_loader(int(workers))
    extras = {name: ak.PerSample(rng) for name, rng in generators(transform).items()}
    return shared.program_on(loader, extras=extras)


STUDY = shared.study("optimizer-reset", "order-shuffle")
