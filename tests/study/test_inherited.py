"""Studies whose augmentation draws as the loader does by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from studies import check_files, failures, study_in_process

from auditkit.errors import UncapturedState
from auditkit.records.plan import PerturbationSpec, StudyPlan
from auditkit.signing.keys import PrivateKey

PROGRAM = """
import time
import torch
from torch.utils.data import DataLoader, TensorDataset
import auditkit as ak

def make_program(seed, clock="no"):
    if clock == "yes":
        torch.manual_seed(time.time_ns())
    x = torch.arange(32.0).reshape(16, 2)
    model = torch.nn.Linear(2, 2)
    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
        loader=DataLoader(TensorDataset(x, x[:, 0].long() % 2), batch_size=4, shuffle=True),
        loss=lambda model, batch: torch.nn.functional.cross_entropy(model(batch[0]), batch[1]),
        probe=ak.Probe(x, x[:, 0].long() % 2),
    )
"""
PLAN = StudyPlan(
    3, 1, 6, [0], [PerturbationSpec("momentum-reset")], placebos=1, augmentation_rng="inherit"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "inherited_study.py").write_text(PROGRAM)
    return tmp_path


def test_an_order_from_the_global_stream_is_no_other_program(folder: Path, key: PrivateKey) -> None:
    target = "inherited_study.py:make_program"
    run = study_in_process(folder / "run", key, PLAN, target, folder / "program")
    assert failures(check_files(run)) == set()


def test_a_factory_that_looks_at_the_clock_still_is(folder: Path, key: PrivateKey) -> None:
    target, by_clock = "inherited_study.py:make_program", {"clock": "yes"}
    with pytest.raises(UncapturedState, match="does not make the same"):
        study_in_process(folder / "run", key, PLAN, target, folder / "program", by_clock)
