"""albumentations whose transforms share two generators, which are registered."""

import shared
from albumentations_bare import make_loader

import auditkit as ak


def train(wrap, workers):
    loader, transform = make_loader(workers)
    transform.set_random_state(transform.random_generator, transform.py_random)  # in all transforms
    extras = {"numpy": transform.random_generator, "python": transform.py_random}
    return shared.train_on(loader, wrap, extras=extras)


def make_program(seed, workers="0"):
    loader, transform = make_loader(int(workers))
    transform.set_random_state(transform.random_generator, transform.py_random)
    extras = {
        "numpy": ak.PerSample(transform.random_generator),
        "python": ak.PerSample(transform.py_random),
    }
    return shared.program_on(loader, extras=extras)


STUDY = shared.study("optimizer-reset", "order-shuffle")
