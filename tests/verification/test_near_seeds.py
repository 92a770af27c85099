"""Seeds that differ by a rounding have no equal bits: what verify says of them."""

from __future__ import annotations

from pathlib import Path

from studies import PROGRAMS, check, findings_text, study_in_process

from auditkit.files import store
from auditkit.records.plan import StudyPlan
from auditkit.signing.keys import PrivateKey

PLAN = StudyPlan(4, 2, 8, range(3), ["momentum-reset"], placebos=1)

#: One initialisation and order for all seeds; a seed moves one bias by a millionth.
PROGRAM = """
import tiny_study
import torch
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak

def make_program(seed):
    points = tiny_study.make_points()
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    with torch.no_grad():
        model.bias[0].add_(seed * 1e-6)
    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        loader=DataLoader(TensorDataset(points.inputs, points.labels), batch_size=4),
        loss=tiny_study.cross_entropy,
        probe=ak.Probe(points.inputs[:8].clone(), points.labels[:8]),
    )
"""


def test_seeds_that_differ_by_a_rounding_are_warned_of(tmp_path: Path, key: PrivateKey) -> None:
    program = tmp_path / "program"
    store.make_folder(program)
    store.copy_file(PROGRAMS / "tiny_study.py", program / "tiny_study.py")
    store.write_bytes(program / "near.py", PROGRAM.encode())
    run = study_in_process(tmp_path / "run", key, PLAN, "near.py:make_program", program)
    report = check(run)
    assert report.verdict == "verified", findings_text(report)
    (warning,) = report.checks[9].warnings
    assert warning.startswith("the controls of different seeds hardly differ at T: tv ")
    assert report.estimates is not None
    assert warning in report.estimates.notes
