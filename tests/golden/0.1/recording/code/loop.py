"""A small recorded loop with one checkpoint."""

import random

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak

torch.manual_seed(0)
random.seed(0)
np.random.seed(0)
torch.set_num_threads(1)
points = torch.randn(64, 6)
labels = (points.sum(dim=1) > 0).long()
model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
loader = DataLoader(TensorDataset(points, labels), batch_size=8, shuffle=True)
with ak.Recorder("recording", seed=0, checkpoint_every=10) as rec:
    model, optimizer, loader = rec.wrap(model, optimizer, loader)
    for _ in rec.epochs(range(2)):
        for x, y in loader:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rec.log(loss=loss)
