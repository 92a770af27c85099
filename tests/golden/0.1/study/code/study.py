"""A small study: one hidden layer with BatchNorm on made-up points, in some seconds."""

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak


def make_program(seed: int) -> ak.Program:
    points = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
    labels = (points.sum(dim=1) > 0).long()
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
    )
    return ak.Program(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-2),
        loader=DataLoader(TensorDataset(points[:64], labels[:64]), batch_size=8, shuffle=True),
        loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        probe=ak.Probe(points[64:], labels[64:]),
    )


STUDY = ak.StudyPlan(
    fork_at=6,
    window=4,
    horizon=14,
    seeds=range(2),
    placebos=1,
    perturbations=["adam-reset", "batchnorm-reset", "order-reverse"],
)
