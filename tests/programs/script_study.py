"""A training script of its own, with the Recorder's three lines: ``script_study.py SEED WORKERS``.

It trains 24 steps, or as many as the variable ``SCRIPT_STEPS`` says; ``SCRIPT_PROBE=none``
leaves the probe out; ``SCRIPT_GROUP`` is the pattern of a named group.
"""

from __future__ import annotations

import os
import random
import sys

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import auditkit as ak


class Noisy(Dataset[tuple[torch.Tensor, int]]):
    """Samples whose augmentation draws from every global stream."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        clean = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(index))
        noise = torch.randn(3, 4, 4) * 0.1 + random.random() + float(np.random.rand())
        return clean + noise, index % 4


seed, workers = int(sys.argv[1]), int(sys.argv[2])
random.seed(seed)
np.random.seed(seed)
torch.manual_seed(seed)
model = nn.Sequential(
    nn.Conv2d(3, 4, 3),
    nn.BatchNorm2d(4),
    nn.ReLU(),
    nn.Dropout(0.2),
    nn.Flatten(),
    nn.Linear(16, 4),
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
loader = DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=workers)
loss_of = nn.functional.cross_entropy
fixed = torch.Generator().manual_seed(5)
probe = ak.Probe(torch.randn(8, 3, 4, 4, generator=fixed), torch.arange(8) % 4)
group = os.environ.get("SCRIPT_GROUP", "")
n_left = int(os.environ.get("SCRIPT_STEPS", "24"))
with ak.Recorder("recorded", seed=seed) as rec:
    rec.wrap(
        *(model, optimizer, loader),
        scheduler=scheduler,
        probe=None if os.environ.get("SCRIPT_PROBE") == "none" else probe,
        groups={"head": group} if group else None,
        loss=lambda trained, batch: loss_of(trained(batch[0]), batch[1]),
    )
    for _epoch in range(3):
        for images, labels in loader:
            if not n_left:
                break
            n_left -= 1
            loss = loss_of(model(images), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rec.log(loss=loss)
        scheduler.step()
