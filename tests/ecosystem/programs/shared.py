"""What the programs of loaders have in common: data, a network, a loop and a study.

64 samples in batches of 16, so 4 steps an epoch. Every program file has ``train(wrap, workers)``
and ``make_program(seed, workers)``; where it has ``prepare(folder)``, that writes its data, and the
other two are given the folder as ``data``.
"""

import numpy as np
import torch
from torch.nn import functional as F

import auditkit as ak

BATCH = 16


def samples():
    """64 inputs and labels, and 32 more for the probe."""
    x = torch.randn(96, 8, generator=torch.Generator().manual_seed(0))
    return x, (x.sum(1) > 0).long()


def sample(index):
    """One of them, with numpy noise: the same whenever it is asked for."""
    x, y = samples()
    return x[index].numpy(), np.int64(y[index])


def network():
    """With dropout, so that training draws from torch's stream."""
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 2))
    return model, torch.optim.Adam(model.parameters(), lr=1e-2)


def loss(model, batch):
    """Of a batch in torch or numpy, a pair or a dict of x and y."""
    x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
    return F.cross_entropy(model(torch.as_tensor(x)), torch.as_tensor(y))


def train_on(loader, wrap, *, epochs=3, before_epoch=None, **named):
    """The recorded loop."""
    model, optimizer = network()
    model, optimizer, loader = wrap(model, optimizer, loader, **named)
    for epoch in range(epochs):
        if before_epoch is not None:
            before_epoch(epoch)
        for batch in loader:
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
    return model


def program_on(loader, **named):
    """The program of the study."""
    model, optimizer = network()
    x, y = samples()
    probe = ak.Probe(x[64:], y[64:])
    return ak.Program(
        model=model, optimizer=optimizer, loader=loader, loss=loss, probe=probe, **named
    )


def study(*perturbations):
    """Forked in the midst of the second epoch, compared there and in the third."""
    return ak.StudyPlan(
        fork_at=6, window=1, horizon=10, seeds=[0], placebos=1, perturbations=perturbations
    )
