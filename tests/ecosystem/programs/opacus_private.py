"""opacus: DP-SGD, with Poisson sampling."""

import opacus
import shared
import torch
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak


def make_parts(workers):
    x, y = shared.samples()
    data = TensorDataset(x[:64], y[:64])
    model, optimizer = shared.network()
    return opacus.PrivacyEngine().make_private(
        module=model,
        optimizer=optimizer,
        data_loader=DataLoader(data, batch_size=shared.BATCH, num_workers=workers),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
    )


def train(wrap, workers):
    model, optimizer, loader = wrap(*make_parts(workers))
    for _epoch in range(3):
        for batch in loader:
            optimizer.zero_grad()
            shared.loss(model, batch).backward()
            optimizer.step()
    return model


def make_program(seed, workers="0"):
    model, optimizer, loader = make_parts(int(workers))
    x, y = shared.samples()

    def step(program, batch, t):
        optimizer.zero_grad()
        loss = shared.loss(model, batch)
        loss.backward()
        optimizer.step()
        return loss

    return ak.Program(
        model=model,
        optimizer=optimizer,
        loader=loader,
        step=step,
        probe=ak.Probe(torch.as_tensor(x[64:]), y[64:]),
    )


STUDY = shared.study("optimizer-reset")
