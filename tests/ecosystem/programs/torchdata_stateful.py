"""torchdata's StatefulDataLoader in the place of torch's DataLoader."""

import torch
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

import auditkit as ak


def parts(workers):
    x = torch.randn(96, 8, generator=torch.Generator().manual_seed(0))
    y = (x.sum(1) > 0).long()
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    data = TensorDataset(x[:64], y[:64])
    loader = StatefulDataLoader(data, batch_size=16, shuffle=True, num_workers=workers)
    return model, optimizer, loader, ak.Probe(x[64:], y[64:])


def train(wrap, workers):
    model, optimizer, loader, _ = parts(workers)
    model, optimizer, loader = wrap(model, optimizer, loader)
    for _epoch in range(3):
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model


def make_program(seed, workers="0"):
    model, optimizer, loader, probe = parts(int(workers))
    return ak.Program(
        model=model,
        optimizer=optimizer,
        loader=loader,
        loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        probe=probe,
    )


STUDY = ak.StudyPlan(
    fork_at=3,
    window=2,
    horizon=7,
    seeds=[0],
    placebos=1,
    perturbations=["optimizer-reset", "order-shuffle"],
)
