#!/usr/bin/env bash
# pytorch-optimizer: the choice of optimizer changes the order of the data and the dropout masks.
#
# Some optimizers draw random numbers in `step`, from torch's global generator, which shuffling
# and dropout draw from as well. Compared under one seed with an optimizer that draws nothing,
# they see another order from the second epoch on and other masks from the second step on: the
# pairing by seed, and the smaller variance that it is for, is gone.
#
# Hurt: benchmarks of optimizers "with the same seeds".
# What helps: DataLoader(generator=torch.Generator().manual_seed(seed)) keeps the order; for the
# masks the stream must be put back around `step`.
# Source: measured; SGD, AdamW and Lion are there for comparison.
# Versions: pytorch-optimizer 4.1.0, torch 2.13.0, numpy 2.4.6, einops 0.8.2, Python 3.11, CPU.
# Seen:
#> AdamW: epoch 1 the same order, epoch 2 the same order, masks at step 2 the same
#> Lion: epoch 1 the same order, epoch 2 the same order, masks at step 2 the same
#> AdaHessian: epoch 1 the same order, epoch 2 another order, masks at step 2 others
#> Gravity: epoch 1 the same order, epoch 2 another order, masks at step 2 others
#> Kron: epoch 1 the same order, epoch 2 another order, masks at step 2 others
#> Magma: epoch 1 the same order, epoch 2 another order, masks at step 2 others
#> Kron, own generator: epoch 1 the same order, epoch 2 the same order, masks at step 2 others
set -euo pipefail
claim="optimizers draw from the stream that shuffles the data"

here=$(realpath "$0")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 einops==0.8.2 pytorch-optimizer==4.1.0

cat >order.py <<'PYTHON'
import pytorch_optimizer
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
inputs = torch.randn(24, 8, generator=torch.Generator().manual_seed(1))
data = TensorDataset(torch.arange(24), inputs)


def run(kind, own=False):
    """Orders of two epochs, and the masks of the second step, under seed 0."""
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 8)
    optimizer = kind(model.parameters(), lr=1e-3)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0) if own else None
    loader = DataLoader(data, batch_size=4, shuffle=True, generator=generator)
    orders, masks = [], []
    for _ in range(2):
        orders.append([])
        for numbers, batch in loader:
            orders[-1] += numbers.tolist()
            hidden = functional.dropout(model(batch), 0.5)
            masks.append(hidden == 0)
            optimizer.zero_grad()
            hidden.square().mean().backward(create_graph=kind.__name__ == "AdaHessian")
            optimizer.step()
    return *orders, masks[1]


def line(name, found, expected):
    first, second = ("the same" if found[n] == expected[n] else "another" for n in range(2))
    masks = "the same" if torch.equal(found[2], expected[2]) else "others"
    print(f"{name}: epoch 1 {first} order, epoch 2 {second} order, masks at step 2 {masks}")


plain = run(torch.optim.SGD)
for name in ("AdamW", "Lion", "AdaHessian", "Gravity", "Kron", "Magma"):
    line(name, run(getattr(pytorch_optimizer, name)), plain)
own = run(torch.optim.SGD, own=True)
line("Kron, own generator", run(pytorch_optimizer.Kron, own=True), own)
PYTHON

venv/bin/python order.py | tee seen.txt
sed -n 's/^#> //p' "$here" >expected.txt
if ! diff expected.txt seen.txt; then
  echo "NO LONGER SO: $claim"
  exit 1
fi
echo "still so: $claim"
