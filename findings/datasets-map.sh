#!/usr/bin/env bash
# datasets: `map` goes on giving the results of a function that was changed long ago.
#
# `Dataset.map` keeps its results under a fingerprint of the function. A function that is written
# in the script itself is hashed by what it does; one that is imported from a module of your own
# is hashed by its name. Change the module, run again, and the old results come from the cache:
# no warning, and the function called directly gives the new value.
#
# Hurt: whoever repairs or tunes preprocessing that lies in a module, and measures the effect:
# there is none. What helps: `load_from_cache_file=False`.
# Source: https://github.com/huggingface/datasets/issues/3297 (open since 2021), while
#   https://huggingface.co/docs/datasets/about_cache says that the transform is hashed.
# Versions: datasets 5.2.0, dill 0.4.1, Python 3.11, Linux.
# Seen:
#> module written: function gives 4, map gives 4
#> number in it changed: function gives 200, map gives 4
#> function rewritten: function gives 32, map gives 4
#> cache not read: function gives 32, map gives 32
set -euo pipefail
claim="map reuses results of a function that was changed"

here=$(realpath "$0")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
  datasets==5.2.0 dill==0.4.1

cat >prepare.py <<'PYTHON'
import sys

import datasets
import scaling

datasets.disable_progress_bars()
rows = datasets.load_dataset("json", data_files="rows.json", split="train", cache_dir="cache")
fresh = {"load_from_cache_file": False} if sys.argv[1] == "cache not read" else {}
mapped = rows.map(scaling.scale, **fresh)[0]["y"]
print(f"{sys.argv[1]}: function gives {scaling.scale({'x': 2})['y']}, map gives {mapped}")
PYTHON

export HF_HOME=$folder/home HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
echo '{"x": 2}' >rows.json
say() { venv/bin/python prepare.py "$1"; }
{
  printf 'FACTOR = 2\n\ndef scale(row):\n    return {"y": FACTOR * row["x"]}\n' >scaling.py
  say "module written"
  printf 'FACTOR = 100\n\ndef scale(row):\n    return {"y": FACTOR * row["x"]}\n' >scaling.py
  say "number in it changed"
  printf 'def scale(row):\n    return {"y": row["x"] ** 5}\n' >scaling.py
  say "function rewritten"
  say "cache not read"
} | tee seen.txt
sed -n 's/^#> //p' "$here" >expected.txt
if ! diff expected.txt seen.txt; then
  echo "NO LONGER SO: $claim"
  exit 1
fi
echo "still so: $claim"
