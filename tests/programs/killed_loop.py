"""A loop that can be killed at any moment and started again: ``killed_loop.py FOLDER``."""

from __future__ import annotations

import hashlib
import sys
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak

torch.manual_seed(0)
torch.set_num_threads(1)
data = TensorDataset(torch.randn(64, 8), torch.arange(64) % 3)
loader = DataLoader(data, batch_size=4, shuffle=True)
model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 3))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
with ak.Recorder.resume(sys.argv[1], seed=0, checkpoint_every=5) as rec:
    rec.wrap(model, optimizer, loader)
    for _epoch in rec.epochs(range(10)):
        for x, y in loader:
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            time.sleep(0.01)
bits = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
print(hashlib.sha256(bits).hexdigest())
