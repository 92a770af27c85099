"""albumentationsx whose four generators are registered: two are for further threads."""

import shared
from albumentationsx_bare import make_loader

import auditkit as ak


def generators(transform):
    transform.set_random_state(transform.random_generator, transform.py_random)
    return {
        "numpy": transform.random_generator,
        "python": transform.py_random,
        "numpy of threads": transform._concurrent_random_generator,
        "python of threads": transform._concurrent_py_random,
    }


def train(wrap, workers):
    loader, transform = make_loader(workers)
    return shared.train_on(loader, wrap, extras=generators(transform))


def make_program(seed, workers="0"):
    loader, transform = make_loader(int(workers))
    extras = {name: ak.PerSample(rng) for name, rng in generators(transform).items()}
    return shared.program_on(loader, extras=extras)


STUDY = shared.study("optimizer-reset", "order-shuffle")
