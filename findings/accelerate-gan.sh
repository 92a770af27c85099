#!/usr/bin/env bash
# accelerate: under gradient accumulation one of two models is hardly trained.
#
# The guide has one forward and backward pass in each `accumulate`, so a GAN, or any two models
# with losses of their own, has two: `accumulate(discriminator)`, then `accumulate(generator)`.
# Each entry counts as one batch, whichever model it names. If the number of steps is even, only
# the second model is ever there when the count is full: the first one's `optimizer.step()` does
# nothing until the loader ends, and the second is updated twice as often as asked for. If it is
# odd, they come to their steps in different batches. Nothing is said.
#
# Hurt: whoever gets a GAN's larger batch by accumulation, or compares batch sizes that way.
# What helps: one `accumulate(discriminator, generator)` around both passes, with the
# discriminator's gradients off while the generator is trained.
# Source: asked in https://github.com/huggingface/accelerate/issues/1870 (closed); of contexts one
#   in the other, https://github.com/huggingface/accelerate/pull/1708. The guide has one model.
# Versions: accelerate 1.15.0, torch 2.13.0, numpy 2.4.6, Python 3.11, Linux, CPU.
# Seen:
#> 1 step: 24 updates each are due; discriminator 24, generator 24
#> 2 steps: 12 updates each are due; discriminator 1, generator 24
#> 3 steps: 8 updates each are due; discriminator 9, generator 8
#> 4 steps: 6 updates each are due; discriminator 1, generator 12
#> 4 steps, one context: 6 updates each are due; discriminator 6, generator 6
set -euo pipefail
claim="accelerate counts a batch for every model, and leaves one of them out"

here=$(realpath "$0")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 accelerate==1.15.0

cat >updates.py <<'PYTHON'
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch.nn.functional import softplus
from torch.utils.data import DataLoader

BATCHES = 24


class Gan:
    """Two models, and how often the weights of each have changed."""

    def __init__(self, steps):
        torch.manual_seed(0)
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=steps)
        loader = DataLoader(3 + torch.randn(4 * BATCHES, 2), batch_size=4)
        models = {"discriminator": torch.nn.Linear(2, 1), "generator": torch.nn.Linear(2, 2)}
        self.loader = self.accelerator.prepare(loader)
        self.models, self.optimizers = {}, {}
        for name, model in models.items():
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            self.models[name], self.optimizers[name] = self.accelerator.prepare(model, optimizer)
        self.updates = dict.fromkeys(models, 0)

    def loss(self, name, real):
        fake = self.models["generator"](torch.randn(4, 2))
        if name == "generator":
            return softplus(-self.models["discriminator"](fake)).mean()
        true, false = (self.models[name](values) for values in (real, fake.detach()))
        return (softplus(-true) + softplus(false)).mean()

    def train(self, name, real):
        weight = self.models[name].weight
        before = weight.detach().clone()
        self.accelerator.backward(self.loss(name, real))
        self.optimizers[name].step()
        self.optimizers[name].zero_grad()
        self.updates[name] += not torch.equal(before, weight)


@contextmanager
def held(model):
    model.requires_grad_(False)
    yield
    model.requires_grad_(True)


def two_contexts(gan):
    for real in gan.loader:
        for name, model in gan.models.items():
            with gan.accelerator.accumulate(model):
                gan.train(name, real)


def one_context(gan):
    for real in gan.loader:
        with gan.accelerator.accumulate(*gan.models.values()):
            gan.train("discriminator", real)
            with held(gan.models["discriminator"]):
                gan.train("generator", real)


def line(told, steps, epoch):
    gan = Gan(steps)
    epoch(gan)
    found = ", ".join(f"{name} {count}" for name, count in gan.updates.items())
    print(f"{told}: {BATCHES // steps} updates each are due; {found}")


for steps in (1, 2, 3, 4):
    line(f"{steps} step{'s' * (steps > 1)}", steps, two_contexts)
line("4 steps, one context", 4, one_context)
PYTHON

venv/bin/python updates.py | tee seen.txt
sed -n 's/^#> //p' "$here" >expected.txt
if ! diff expected.txt seen.txt; then
  echo "NO LONGER SO: $claim"
  exit 1
fi
echo "still so: $claim"
