"""The steps of an environment whose generators and position are registered as one object."""

import shared
from gymnasium_steps import Steps
from torch.utils.data import DataLoader


class Position:
    """Of an environment of ``gymnasium_steps``: what it draws from, and where it stands."""

    def __init__(self, steps):
        self.steps = steps

    def state_dict(self):
        inner = self.steps.environment.unwrapped
        return {
            "seen": self.steps.seen,
            "state": inner.state,
            "over": inner.steps_beyond_terminated,
            "elapsed": self.steps.environment._elapsed_steps,
            "draws": inner.np_random.bit_generator.state,
            "actions": self.steps.environment.action_space.np_random.bit_generator.state,
        }

    def load_state_dict(self, state):
        inner = self.steps.environment.unwrapped
        self.steps.seen = state["seen"]
        inner.state, inner.steps_beyond_terminated = state["state"], state["over"]
        self.steps.environment._elapsed_steps = state["elapsed"]
        inner.np_random.bit_generator.state = state["draws"]
        self.steps.environment.action_space.np_random.bit_generator.state = state["actions"]


def make_loader(workers):
    steps = Steps()
    loader = DataLoader(steps, batch_size=shared.BATCH, num_workers=workers)
    return loader, {
        "position": Position(steps),
        "environment": steps.environment.unwrapped.np_random,
        "actions": steps.environment.action_space.np_random,
    }


def train(wrap, workers):
    loader, extras = make_loader(workers)
    return shared.train_on(loader, wrap, extras=extras)


def make_program(seed, workers="0"):
    loader, extras = make_loader(int(workers))
    return shared.program_on(loader, extras=extras)


STUDY = shared.study("optimizer-reset")
