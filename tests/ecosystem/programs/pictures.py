"""What the programs of augmentation libraries have in common: pictures, and a data set of them.

A picture is a sample of ``shared`` eight times below each other; what the transform makes of it
is averaged, so that the network of ``shared`` can train on it.
"""

import numpy as np
import shared
from torch.utils.data import DataLoader, Dataset


class Pictures(Dataset):
    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 64

    def __getitem__(self, index):
        x, y = shared.sample(index)
        picture = np.clip(np.tile(x * 0.1 + 0.5, (8, 1)), 0, 1).astype(np.float32)
        augmented = np.asarray(self.transform(picture), dtype=np.float32)
        return augmented.reshape(8, 8).mean(0), y


def loader_of(transform, workers):
    return DataLoader(
        Pictures(transform), batch_size=shared.BATCH, shuffle=True, num_workers=workers
    )
