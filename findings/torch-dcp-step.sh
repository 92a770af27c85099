#!/usr/bin/env bash
# torch: a distributed checkpoint before the first step changes the training after it.
#
# `get_state_dict` and `get_optimizer_state_dict` of torch.distributed.checkpoint give an optimizer
# that has no state yet one: they let it step with gradients of zero. What counts steps has then
# counted one. Adam's first update, otherwise lr times the sign of the gradient, is corrected as
# a second step's and a quarter smaller. The run that was saved goes on so, and so does what is
# resumed from the file; a run under the same seed that was not saved at step 0 does not.
#
# Hurt: comparisons of runs of which one keeps its initial state; branches that begin at step 0.
# What helps: not asking before the first step: until then model and optimizer as they are built
# are the whole state.
# Source: https://github.com/pytorch/pytorch/issues/164929 (open);
#   https://github.com/pytorch/torchtitan/pull/4382 mended torchtitan's own version of it.
# Versions: torch 2.13.0 (gloo, CPU), numpy 2.4.6, Python 3.11, Linux.
# Seen:
#> Adam's first update at lr 0.05: 0.0500; saved before it: 0.0372; resumed: 0.0372
#> after 100 steps, saved before step 1, or after it, against never saved:
#>   SGD with momentum: equal, equal
#>   RMSprop: equal, equal
#>   Adam: other weights, equal
#>   AdamW: other weights, equal
#>   NAdam: other weights, equal
#>   RAdam: other weights, equal
#>   Adamax: other weights, equal
#>   Adafactor: other weights, equal
#>   Rprop: other weights, equal
set -euo pipefail
claim="asking for an optimizer's state before the first step counts a step"

here=$(realpath "$0")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6

cat >first.py <<'PYTHON'
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

torch.set_num_threads(1)
store = Path("store").resolve()
dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)


class Run:
    def __init__(self, kind, options):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(8, 1)
        self.optimizer = getattr(torch.optim, kind)(self.model.parameters(), lr=0.05, **options)

    def train(self, first, last):
        for step in range(first, last):
            inputs = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
            targets = inputs.sin().sum(1, keepdim=True)
            self.optimizer.zero_grad()
            torch.nn.functional.mse_loss(self.model(inputs), targets).backward()
            self.optimizer.step()

    def state(self):
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}

    def save(self, name):
        dcp.save(self.state(), checkpoint_id=name)

    def load(self, name):
        state = self.state()
        dcp.load(state, checkpoint_id=name)
        parts = {"model_state_dict": state["model"], "optim_state_dict": state["optimizer"]}
        set_state_dict(self.model, self.optimizer, **parts)

    def weights(self):
        return self.model.weight.detach().clone()

    def update(self):
        """By how much the first step moves a weight."""
        before = self.weights()
        self.train(0, 1)
        return f"{float((self.weights() - before).abs().max()):.4f}"


def trained(kind, options, saved_at=None, steps=100):
    run = Run(kind, options)
    run.train(0, saved_at or 0)
    if saved_at is not None:
        run.save(f"{kind}-{saved_at}")
    run.train(saved_at or 0, steps)
    return run.weights()


never, asked, resumed = (Run("Adam", {}) for _ in range(3))
asked.save("first")
resumed.load("first")
print(
    f"Adam's first update at lr 0.05: {never.update()}; "
    f"saved before it: {asked.update()}; resumed: {resumed.update()}"
)
print("after 100 steps, saved before step 1, or after it, against never saved:")
kinds = ("RMSprop", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adafactor", "Rprop")
for kind in ("SGD", *kinds):
    options = {"momentum": 0.9} if kind == "SGD" else {}
    plain = trained(kind, options)
    same = [torch.equal(plain, trained(kind, options, saved_at)) for saved_at in (0, 1)]
    name = "SGD with momentum" if options else kind
    print(f"  {name}: {', '.join('equal' if is_same else 'other weights' for is_same in same)}")
dist.destroy_process_group()
PYTHON

venv/bin/python first.py | tee seen.txt
sed -n 's/^#> //p' "$here" >expected.txt
if ! diff expected.txt seen.txt; then
  echo "NO LONGER SO: $claim"
  exit 1
fi
echo "still so: $claim"
