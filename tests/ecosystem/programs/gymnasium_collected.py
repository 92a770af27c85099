"""Steps of a gymnasium environment, collected before training."""

import gymnasium
import numpy as np
import shared
import torch
from torch.utils.data import DataLoader, TensorDataset


def make_loader(workers):
    environment = gymnasium.make("CartPole-v1")
    environment.action_space.seed(0)
    seen, _ = environment.reset(seed=0)
    steps, actions = [], []
    for _ in range(64):
        actions.append(int(environment.action_space.sample()))
        before = seen
        seen, _, over, cut, _ = environment.step(actions[-1])
        steps.append(np.concatenate([before, seen]).astype(np.float32))
        if over or cut:
            seen, _ = environment.reset()
    data = TensorDataset(torch.tensor(np.stack(steps)), torch.tensor(actions))
    return DataLoader(data, batch_size=shared.BATCH, shuffle=True, num_workers=workers)


def train(wrap, workers):
    return shared.train_on(make_loader(workers), wrap)


def make_program(seed, workers="0"):
    return shared.program_on(make_loader(int(workers)))


STUDY = shared.study("optimizer-reset", "order-shuffle")
