"""What training was to move and did not is told at a study's end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from checklist_example import example_manifest
from hypothesis import given
from hypothesis import strategies as st
from studies import InProcessWorkers

from auditkit.records.declaration import DECLARATIONS
from auditkit.records.job import ProgramSource
from auditkit.records.manifest import SeedRecord
from auditkit.records.plan import StudyPlan
from auditkit.signing.keys import PrivateKey, fingerprint
from auditkit.signing.trust import SigningKey
from auditkit.study.request import StudyRequest, resolve
from auditkit.study.runner import run_study
from auditkit.study.unmoved import unmoved_notes

PROGRAM = """
import torch
import auditkit as ak

def step(program, batch, t):
    return program.model(batch).square().mean()

def make_program(seed):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return ak.Program(
        model=model,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 1),
        loader=torch.utils.data.DataLoader(torch.randn(12, 3), batch_size=2, shuffle=True),
        step=step,
        probe=ak.Probe(torch.ones(4, 3), torch.tensor([0, 1, 0, 1])),
    )
"""

NAMES = ("params/a", "params/b", "param_groups", "scheduler", "averaged/ema", "buffers")


def seed_with(moved: set[str]) -> SeedRecord:
    """A seed in whose control these components moved."""
    start = dict.fromkeys(NAMES, "0" * 64)
    end = {name: ("1" if name in moved else "0") * 64 for name in NAMES}
    record = example_manifest().seeds[0]
    branches = tuple(
        replace(b, digests={**b.digests, "T": end if b.role == "control" else start})
        for b in record.branches
    )
    return replace(record, initial=start, branches=branches)


def told(*moved: set[str]) -> list[str]:
    return [note.partition(":")[0] for note in unmoved_notes([seed_with(m) for m in moved], 60)]


def test_what_never_moved_is_named_with_the_reason() -> None:
    weights, schedule, average = unmoved_notes([seed_with(set())], 60)
    assert weights.startswith("params/a, params/b: at step 60 as at the start, in every seed; no ")
    assert "step= of the program's own steps it itself" in schedule
    assert average.startswith("averaged/ema: ")


def test_a_part_that_is_frozen_and_what_moved_in_one_seed_are_not_told() -> None:
    assert told({"params/b"}) == ["scheduler", "averaged/ema"]
    assert told({"params/a", "scheduler"}, {"params/a", "averaged/ema"}) == []


def test_a_schedule_without_state_moves_the_groups() -> None:
    assert told({"params/a", "averaged/ema", "param_groups"}) == []


@given(st.lists(st.sets(st.sampled_from(NAMES)), min_size=1, max_size=3))
def test_nothing_is_told_that_moved_in_any_seed(moved: list[set[str]]) -> None:
    named = {name for note in told(*moved) for name in note.split(", ")}
    assert all(named.isdisjoint(each) for each in moved)


def test_a_run_says_that_its_step_trains_nothing(
    tmp_path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "still_study.py").write_text(PROGRAM)
    source = ProgramSource("still_study.py:make_program", str(tmp_path), {})
    plan = resolve(StudyPlan(3, 2, 6, [0, 1], ["carry"], placebos=1), DECLARATIONS)
    said: list[str] = []
    signer = SigningKey(key, fingerprint(key), "test")
    request = StudyRequest(source, plan, tmp_path / "out")
    monkeypatch.setattr("auditkit.study.seed_runs.Workers", InProcessWorkers)
    run_study(request, signer, warn=said.append)
    assert [line.partition(":")[0] for line in said] == ["params", "scheduler"]
