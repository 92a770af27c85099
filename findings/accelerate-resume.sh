#!/usr/bin/env bash
# accelerate: a resume in the midst of an epoch trains on some samples twice and on others never.
#
# Save with `save_state`, start again, `load_state`, `skip_first_batches(loader, 3)`: the three
# batches that are skipped are not those that were trained on. `load_state` restores torch's
# generator as it stood in the midst of the epoch, and the sampler draws the epoch's permutation
# anew from it. No warning. Without `load_state` the rest of the epoch would have been right.
#
# Hurt: whoever compares a run that was interrupted with one that was not; an "epoch" is none.
# What helps: DataLoaderConfiguration(use_seedable_sampler=True) is right in the first epoch; or
# the state of the generator at the start of the epoch, kept and set again before the loader.
# Source: https://huggingface.co/docs/accelerate/usage_guides/checkpoint has these very calls;
#   https://github.com/huggingface/accelerate/pull/4233 and issues/2016 tell of it.
# Versions: accelerate 1.15.0, torch 2.13.0, numpy 2.4.6, Python 3.11, Linux, CPU.
# Seen:
#> uninterrupted, after batch 3: [18, 11, 2, 14] [22, 8, 20, 9] [5, 17, 1, 15]
#> skipped-only, after batch 3: [18, 11, 2, 14] [22, 8, 20, 9] [5, 17, 1, 15]
#> resumed, after batch 3: [2, 14, 4, 19] [20, 11, 0, 1] [10, 16, 21, 18]
#> trained on twice: [0, 4, 10, 16, 19, 21]
#> never trained on: [5, 8, 9, 15, 17, 22]
set -euo pipefail
claim="accelerate repeats and skips samples after a resume in the midst of an epoch"

here=$(realpath "$0")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 accelerate==1.15.0

cat >train.py <<'PYTHON'
import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, TensorDataset

set_seed(0)
accelerator = Accelerator(cpu=True)
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
loader = DataLoader(TensorDataset(torch.arange(24)), batch_size=4, shuffle=True)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)


def samples(batches):
    for (batch,) in batches:
        yield batch.tolist()


def line(batches):
    return " ".join(map(str, batches))


if sys.argv[1] == "uninterrupted":
    consumed = []
    for batch in samples(loader):
        consumed.append(batch)
        if len(consumed) == 3:
            accelerator.save_state("checkpoint")
    Path("consumed.json").write_text(json.dumps(consumed))
    print("uninterrupted, after batch 3:", line(consumed[3:]))
else:
    if sys.argv[1] == "resumed":
        accelerator.load_state("checkpoint")
    rest = list(samples(skip_first_batches(loader, 3)))
    consumed = json.loads(Path("consumed.json").read_text())
    before = {sample for batch in consumed[:3] for sample in batch}
    after = {sample for batch in rest for sample in batch}
    print(f"{sys.argv[1]}, after batch 3:", line(rest))
if sys.argv[1] == "resumed":
    print("trained on twice:", sorted(before & after))
    print("never trained on:", sorted(set(range(24)) - before - after))
PYTHON

for how in uninterrupted skipped-only resumed; do venv/bin/python train.py $how; done | tee seen.txt
sed -n 's/^#> //p' "$here" >expected.txt
if ! diff expected.txt seen.txt; then
  echo "NO LONGER SO: $claim"
  exit 1
fi
echo "still so: $claim"
