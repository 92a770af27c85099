"""A plain PyTorch loop on scikit-learn's digits, and the three lines that record it.

python examples/plain_loop.py [FOLDER]    records; started again after a kill, it goes on
auditkit replay FOLDER/manifest.json -- python examples/plain_loop.py [FOLDER]
"""

from __future__ import annotations

import random
import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak  # for the Recorder

OUT = sys.argv[1] if len(sys.argv) > 1 else "runs/plain"

random.seed(0)
np.random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)

digits = load_digits()
images = torch.from_numpy(digits.images).float().div(16).unsqueeze(1)
labels = torch.from_numpy(digits.target)
loader = DataLoader(TensorDataset(images[:1500], labels[:1500]), batch_size=50, shuffle=True)
model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1),
    nn.BatchNorm2d(16),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Dropout(0.2),
    nn.Linear(16 * 4 * 4, 10),
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

rec = ak.Recorder.resume(OUT, seed=0, checkpoint_every=60)  # Recorder, line 1
model, optimizer, loader = rec.wrap(model, optimizer, loader)  # Recorder, line 2
for _ in range(5):
    model.train()
    for x, y in loader:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
rec.close()  # Recorder, line 3

model.eval()
with torch.no_grad():
    accuracy = (model(images[1500:]).argmax(1) == labels[1500:]).float().mean()
print(f"accuracy {accuracy:.3f}")
