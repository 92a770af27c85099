"""The steps of a gymnasium environment as a stream: each epoch goes on where the last one ended."""

import gymnasium
import numpy as np
import shared
from torch.utils.data import DataLoader, IterableDataset


class Steps(IterableDataset):
    def __init__(self):
        self.environment = gymnasium.make("CartPole-v1")
        self.seen, _ = self.environment.reset(seed=0)
        self.environment.action_space.seed(0)

    def __iter__(self):
        for _ in range(64):
            action = self.environment.action_space.sample()
            before = self.seen
            self.seen, _, over, cut, _ = self.environment.step(action)
            if over or cut:
                self.seen, _ = self.environment.reset()
            yield np.concatenate([before, self.seen]).astype(np.float32), np.int64(action)


def make_loader(workers):
    return DataLoader(Steps(), batch_size=shared.BATCH, num_workers=workers)


def train(wrap, workers):
    return shared.train_on(make_loader(workers), wrap)


def make_program(seed, workers="0"):
    return shared.program_on(make_loader(int(workers)))


STUDY = shared.study("optimizer-reset")
