"""kornia in a study that leaves the random streams of augmentation to the loader."""

from dataclasses import replace

import shared
from kornia_transforms import make_program, train  # noqa: F401

STUDY = replace(shared.study("optimizer-reset", "order-shuffle"), augmentation_rng="inherit")
