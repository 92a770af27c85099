"""What a run says itself, before anybody verifies it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import PLAN, PROGRAMS, Run, study_in_process

from auditkit.errors import PlanError, ReplicaMismatch
from auditkit.formats.outcome_names import outcome_differences
from auditkit.records.declaration import DECLARATIONS, Declaration
from auditkit.records.plan import StudyPlan
from auditkit.study.replicas import refuse_parted_branches
from auditkit.study.request import resolve


def test_a_replica_with_another_outcome_of_the_same_states_is_told(
    small: Run, copied: Callable[[Run], Run]
) -> None:
    run = copied(small)
    refuse_parted_branches(run.folder, run.manifest)
    seed = run.manifest.seeds[0]
    there = seed.branches[-1].outcome
    (run.folder / seed.branch("replica").outcome).write_bytes((run.folder / there).read_bytes())
    with pytest.raises(ReplicaMismatch, match="replica is not what the control is") as caught:
        refuse_parted_branches(run.folder, run.manifest)
    assert "outcome T" in str(caught.value.component)
    with pytest.raises(ReplicaMismatch, match=r"trained these changed: own.SEEN, Cls.calls\)"):
        refuse_parted_branches(run.folder, run.manifest, ("own.SEEN", "Cls.calls"))
    with pytest.raises(ReplicaMismatch, match=r"holds; data/a\.txt changed while the study ran"):
        refuse_parted_branches(run.folder, run.manifest, changed=lambda: ["data/a.txt"])


FORGETFUL = """
import numpy
from dataclasses import replace
from pathlib import Path
import tiny_study

SEEN = Path(__file__).with_name("seen.npy")

class Bank:
    __slots__ = ("n",)

def make(seed):
    made, bank = tiny_study.make_program(seed), Bank()
    bank.n = 0
    numpy.save(SEEN, numpy.zeros(1))

    def at_end(program, epoch):  # long after the preflight's steps
        bank.n += 1
        numpy.save(SEEN, numpy.load(SEEN) + 1)

    def loss(model, batch):
        return made.loss(model, batch) / (1 + bank.n)

    return replace(made, loss=loss, on_epoch_end=at_end)
"""


def test_what_training_changed_where_no_snapshot_looks_is_named(tmp_path: Path, key: Any) -> None:
    program, told = tmp_path / "program", list[str]()
    program.mkdir()
    for name in ("tiny_study.py", "position.py"):
        (program / name).write_bytes((PROGRAMS / name).read_bytes())
    (program / "own.py").write_text(FORGETFUL)
    plan = replace(PLAN, seeds=PLAN.seeds[:1], perturbations=PLAN.perturbations[:1])
    study_in_process(tmp_path / "run", key, plan, "own.py:make", program=program, warn=told.append)
    said = next(text for text in told if "replica is not what the control is" in text)
    assert "these changed: loss's bank.n, " in said
    assert "the file seen.npy)" in said


def test_distances_from_the_control_are_no_difference_beside_it() -> None:
    one, other = np.zeros(2), np.ones(2)
    control = {"T:predicted": one, "T=score": one}
    assert outcome_differences(control, {**control, "T:tv": other}) == []
    assert outcome_differences(control, {"T:predicted": one, "T=score": other}) == ["T=score"]
    assert outcome_differences(control, {"T=score": one}) == ["T:predicted"]
    assert outcome_differences({"T:tv": one}, {"T:tv": other}) == ["T:tv"]


def test_only_carry_may_declare_that_it_changes_nothing() -> None:
    idle = Declaration("idle", 1, "none", "nothing", "nowhere")
    plan = StudyPlan(fork_at=1, window=1, horizon=3, seeds=[0], perturbations=["idle"])
    with pytest.raises(PlanError, match="idle declares that it changes nothing"):
        resolve(plan, {**DECLARATIONS, "idle": idle})
