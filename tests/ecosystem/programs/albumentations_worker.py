"""albumentations made by each worker for itself, where no line of the program sees it."""

import pictures
import shared
from albumentations_bare import make_transform


class Late:
    """Makes its transform when it is first called."""

    made = None

    def __call__(self, picture):
        if self.made is None:
            self.made = make_transform()
        return self.made(image=picture)["image"]


def train(wrap, workers):
    return shared.train_on(pictures.loader_of(Late(), workers), wrap)


def make_program(seed, workers="0"):
    return shared.program_on(pictures.loader_of(Late(), int(workers)))


STUDY = shared.study("optimizer-reset", "order-shuffle")
