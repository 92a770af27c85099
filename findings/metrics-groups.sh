#!/usr/bin/env bash
# torchmetrics: the first batch decides what a MetricCollection measures on all that follow.
#
# Metrics whose states are equal after the first batch are taken for one metric from then on: only
# one of them is updated, and the others compute from its state. Their arguments are not compared.
# So F1 at five thresholds is F1 at fewer of them wherever no score of the first batch lies
# between two, and the same predictions in other batches have other values. `reset()` does not
# ask again: one look at an untrained model, which scores all alike, settles it for every epoch;
# what is resumed in a new process asks again, and has other values than what went on.
#
# Hurt: whoever picks a threshold, or compares variants of one metric in a collection.
# What helps: `compute_groups=False`.
# Source: https://github.com/Lightning-AI/torchmetrics/issues/2596 (closed), of a metric written
#   by its user. The class's documentation has the groups, and not that a batch decides on them.
# Versions: torchmetrics 1.9.0, torch 2.13.0, numpy 2.4.6, Python 3.11, Linux, CPU.
# Seen:
#> F1 at threshold             0.20  0.35  0.50  0.65  0.80
#> each metric alone          0.410 0.494 0.507 0.485 0.397
#> batches of 8               0.410 0.494 0.494 0.494 0.494
#> batches of 16              0.410 0.494 0.507 0.507 0.397
#> batches of 96              0.410 0.494 0.507 0.485 0.397
#> 96, once used and reset    0.410 0.410 0.410 0.410 0.410
set -euo pipefail
claim="a collection gives one metric's values under another's name"

here=$(realpath "$0")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 torchmetrics==1.9.0

cat >groups.py <<'PYTHON'
import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryF1Score

THRESHOLDS = (0.20, 0.35, 0.50, 0.65, 0.80)
chance = torch.Generator().manual_seed(0)
LABELS = (torch.rand(960, generator=chance) < 0.1).long()
SCORES = torch.sigmoid(2 * torch.randn(960, generator=chance) + 3 * LABELS - 3)


def collection():
    return MetricCollection({f"{t:.2f}"[2:]: BinaryF1Score(threshold=t) for t in THRESHOLDS})


def measured(metric, size, scores=SCORES):
    for batch in zip(scores.split(size), LABELS.split(size), strict=True):
        metric.update(*batch)
    return metric.compute()


def line(name, values):
    print(f"{name:26}", *(f"{float(value):.3f}" for value in values))


print(f"{'F1 at threshold':26}", *(f"{threshold:5.2f}" for threshold in THRESHOLDS))
line("each metric alone", [measured(BinaryF1Score(threshold=t), 96) for t in THRESHOLDS])
for size in (8, 16, 96):
    line(f"batches of {size}", measured(collection(), size).values())
metrics = collection()
measured(metrics, 96, torch.full_like(SCORES, 0.1))
metrics.reset()
line("96, once used and reset", measured(metrics, 96).values())
PYTHON

venv/bin/python groups.py | tee seen.txt
sed -n 's/^#> //p' "$here" >expected.txt
if ! diff expected.txt seen.txt; then
  echo "NO LONGER SO: $claim"
  exit 1
fi
echo "still so: $claim"
