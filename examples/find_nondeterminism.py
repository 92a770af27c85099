"""A loop with a fault to be found: the order of a set decides in which order floats are added.

auditkit doctor -- python examples/find_nondeterminism.py
"""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak

#: Python shuffles the hashes of strings anew in every process, and with them this set.
TASKS = {f"task {number}" for number in range(12)}

random.seed(0)
np.random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)

inputs = torch.randn(320, 20)
targets = {name: torch.randn(320) for name in sorted(TASKS)}
model = nn.ModuleDict({name.replace(" ", ""): nn.Linear(20, 1) for name in sorted(TASKS)})
trunk = nn.Linear(20, 20)
model["trunk"] = trunk
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
loader = DataLoader(TensorDataset(inputs, torch.arange(320)), batch_size=16, shuffle=True)

with ak.Recorder("runs/find", seed=0) as rec:
    model, optimizer, loader = rec.wrap(model, optimizer, loader)
    for _ in range(2):
        for x, index in loader:
            hidden = torch.tanh(trunk(x))
            loss = torch.zeros(())
            for name in TASKS:  # the fault: sorted(TASKS) would repair it
                output = model[name.replace(" ", "")](hidden).squeeze(1)
                loss = loss + (output - targets[name][index]).square().mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
