#!/usr/bin/env bash
# torchdata: with StatefulDataLoader the number of workers decides in which order samples come.
#
# It is given as a drop-in replacement of torch's DataLoader. There, one seed gives one order,
# whatever num_workers is; here, a loader with workers begins with what the loader without them
# has as its second epoch, be it under the global seed or with a `generator=`, and under the
# global seed neither is the order of a DataLoader. So a run that is repeated on a machine with
# other cores, or ported from DataLoader, trains on other batches under one seed.
#
# Hurt: comparisons "with the same seed" across loaders or machines; replays with num_workers=0.
# What helps: always workers, or never; or a RandomSampler that has the generator itself.
# Source: measured. The README of torchdata.stateful_dataloader (v0.11.0) promises the drop-in;
#   https://github.com/meta-pytorch/data/issues/1440 is near it, and closed.
# Versions: torchdata 0.11.0, torch 2.13.0, numpy 2.4.6, Python 3.11, Linux, CPU.
# Seen:
#> DataLoader, seeded
#>   0 workers: [6, 7, 1, 4, 2, 0, 9, 8, 3, 5] then [2, 4, 7, 0, 8, 9, 5, 3, 6, 1]
#>   2 workers: [6, 7, 1, 4, 2, 0, 9, 8, 3, 5] then [2, 4, 7, 0, 8, 9, 5, 3, 6, 1]
#> StatefulDataLoader, seeded
#>   0 workers: [6, 9, 0, 7, 3, 5, 4, 2, 1, 8] then [1, 8, 5, 4, 9, 2, 0, 7, 3, 6]
#>   2 workers: [1, 8, 5, 4, 9, 2, 0, 7, 3, 6] then [7, 9, 2, 8, 1, 4, 6, 0, 3, 5]
#> StatefulDataLoader, its generator
#>   0 workers: [1, 4, 9, 6, 3, 5, 0, 2, 8, 7] then [0, 9, 2, 6, 4, 8, 3, 1, 7, 5]
#>   2 workers: [0, 9, 2, 6, 4, 8, 3, 1, 7, 5] then [4, 9, 0, 5, 7, 2, 8, 1, 3, 6]
#> StatefulDataLoader, the sampler's generator
#>   0 workers: [1, 4, 9, 6, 3, 5, 0, 2, 8, 7] then [7, 5, 0, 4, 3, 9, 6, 8, 1, 2]
#>   2 workers: [1, 4, 9, 6, 3, 5, 0, 2, 8, 7] then [7, 5, 0, 4, 3, 9, 6, 8, 1, 2]
set -euo pipefail
claim="the number of workers changes the order of a StatefulDataLoader"

here=$(realpath "$0")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 torchdata==0.11.0

cat >order.py <<'PYTHON'
import torch
from torch.utils.data import DataLoader, RandomSampler
from torchdata.stateful_dataloader import StatefulDataLoader

DATA = range(10)


def seeded():
    return {"shuffle": True}


def its_generator():
    return {"shuffle": True, "generator": torch.Generator().manual_seed(5)}


def the_samplers_generator():
    return {"sampler": RandomSampler(DATA, generator=torch.Generator().manual_seed(5))}


for name, kind, options in (
    ("DataLoader, seeded", DataLoader, seeded),
    ("StatefulDataLoader, seeded", StatefulDataLoader, seeded),
    ("StatefulDataLoader, its generator", StatefulDataLoader, its_generator),
    ("StatefulDataLoader, the sampler's generator", StatefulDataLoader, the_samplers_generator),
):
    print(name)
    for workers in (0, 2):
        torch.manual_seed(0)
        loader = kind(DATA, batch_size=1, num_workers=workers, **options())
        first, second = ([int(batch) for batch in loader] for _ in range(2))
        print(f"  {workers} workers: {first} then {second}")
PYTHON

venv/bin/python order.py | tee seen.txt
sed -n 's/^#> //p' "$here" >expected.txt
if ! diff expected.txt seen.txt; then
  echo "NO LONGER SO: $claim"
  exit 1
fi
echo "still so: $claim"
