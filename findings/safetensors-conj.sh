#!/usr/bin/env bash
# safetensors: a conjugated tensor is saved without its conjugation, and nobody says so.
#
# `tensor.conj()` is lazy in torch: a bit on the tensor, the same memory. save_file writes the
# memory. What is loaded has the other sign in every imaginary part; torch.save keeps it right.
#
# Hurt: models with complex weights or buffers (Fourier and state-space layers, quantum, audio),
# and whoever compares states by their files: two different tensors have the same bytes.
# What helps: `resolve_conj()` (and `resolve_neg()`) before saving.
# Source: https://github.com/safetensors/safetensors/issues/831 (open)
# Versions: safetensors 0.8.0, torch 2.13.0, numpy 2.4.6, Python 3.11, Linux.
# Seen:
#> tensor                    [(1-2j), (3+4j)]
#> saved by torch            [(1-2j), (3+4j)]
#> saved by safetensors      [(1+2j), (3-4j)]
#> resolved, by safetensors  [(1-2j), (3+4j)]
#> file of a tensor and file of its conjugate: the same bytes
set -euo pipefail
claim="safetensors saves a conjugated tensor as if it were not"

here=$(realpath "$0")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 safetensors==0.8.0

cat >save.py <<'PYTHON'
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def through_safetensors(tensor, name):
    save_file({"weight": tensor}, name)
    return load_file(name)["weight"]


weight = torch.tensor([1 + 2j, 3 - 4j])
conjugate = weight.conj()
torch.save(conjugate, "torch.pt")
through_safetensors(weight, "weight.safetensors")
for name, tensor in {
    "tensor": conjugate,
    "saved by torch": torch.load("torch.pt"),
    "saved by safetensors": through_safetensors(conjugate, "conjugate.safetensors"),
    "resolved, by safetensors": through_safetensors(conjugate.resolve_conj(), "plain.safetensors"),
}.items():
    print(f"{name:25} {tensor.tolist()}")
first, second = (Path(f"{name}.safetensors").read_bytes() for name in ("weight", "conjugate"))
same = "the same bytes" if first == second else "other bytes"
print("file of a tensor and file of its conjugate:", same)
PYTHON

venv/bin/python save.py | tee seen.txt
sed -n 's/^#> //p' "$here" >expected.txt
if ! diff expected.txt seen.txt; then
  echo "NO LONGER SO: $claim"
  exit 1
fi
echo "still so: $claim"
