#!/usr/bin/env bash
# in-toto-attestation: a seed that was signed is not the seed that was used.
#
# `Statement` takes any predicate, keeps it as a protobuf Struct, where every number is a double,
# and `validate()` is content. A 64-bit seed such as `torch.seed()` gives, or a count beyond
# 2**53, is rounded to another number before anything is signed, and 5 is written 5.0. In
# plain JSON, which DSSE signs as it stands, the numbers would have been exact. So one predicate
# has two payloads, according to who wrote it, and one of them names another run.
#
# Hurt: who repeats a run from its attestation, or compares digests of a predicate.
# What helps: seeds and large counts as decimal strings.
# Source: measured. protobuf documents that the numbers of a Struct are doubles; that a predicate
#   goes through one stands in statement.proto of the specification.
# Versions: in-toto-attestation 0.9.3, protobuf 7.36.2, Python 3.11, Linux.
# Seen:
#> seed given   13679457532755275413
#> seed stated  13679457532755275776
#> steps given  9007199254740993
#> steps stated 9007199254740992
#> epochs given 5, stated 5.0
#> as strings: exact
set -euo pipefail
claim="large integers of a predicate are rounded"

here=$(realpath "$0")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
  in-toto-attestation==0.9.3 protobuf==7.36.2

cat >state.py <<'PYTHON'
import json

from google.protobuf import json_format
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement


def stated(predicate):
    """The predicate as it stands in the JSON of a valid Statement."""
    model = ResourceDescriptor(name="model.safetensors", digest={"sha256": "0" * 64})
    statement = Statement([model.pb], "https://example.org/training/v1", predicate)
    statement.validate()
    return json.loads(json_format.MessageToJson(statement.pb))["predicate"]


given = {"seed": 13679457532755275413, "steps": 2**53 + 1, "epochs": 5}
found = stated(given)
for name in ("seed", "steps"):
    print(f"{name} given".ljust(12), given[name])
    print(f"{name} stated".ljust(12), json.dumps(int(found[name])))
print(f"epochs given {given['epochs']}, stated {found['epochs']}")
strings = {name: str(value) for name, value in given.items()}
print("as strings:", "exact" if stated(strings) == strings else "changed")
PYTHON

venv/bin/python state.py | tee seen.txt
sed -n 's/^#> //p' "$here" >expected.txt
if ! diff expected.txt seen.txt; then
  echo "NO LONGER SO: $claim"
  exit 1
fi
echo "still so: $claim"
