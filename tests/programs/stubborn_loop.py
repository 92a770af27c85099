"""A loop that catches its own end and goes on: ``stubborn_loop.py FOLDER LEARNING_RATE``."""

from __future__ import annotations

import contextlib
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak

torch.manual_seed(0)
torch.set_num_threads(1)
loader = DataLoader(TensorDataset(torch.randn(32, 8), torch.arange(32) % 3), batch_size=4)
model = nn.Linear(8, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=float(sys.argv[2]))
rec = ak.Recorder(sys.argv[1], seed=0)
rec.wrap(model, optimizer, loader)
once = sys.argv[2] == "0.1"
while True:
    with contextlib.suppress(BaseException):
        for x, y in loader:
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    if once:
        break
rec.close()
