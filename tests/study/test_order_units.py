"""Order perturbations of samples and of whole batches, through a study and its verification."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from forging import copy_branch
from studies import Run, check, findings_text, result_of, study_in_process, tiny_session

from auditkit.errors import NothingToPerturb
from auditkit.formats.flat_order import FlatOrder
from auditkit.formats.run_files import OrderFile
from auditkit.records.plan import StudyPlan
from auditkit.signing.keys import PrivateKey
from auditkit.study.worker.job_files import follow_control

#: Steps 7 to 9 have batches of 4, 2 and 4 samples.
PLAN = StudyPlan(
    6,
    3,
    10,
    [0],
    [
        "order-swap",
        "order-swap:unit=batch",
        "order-reverse:unit=batch",
        "order-shuffle:unit=batch,draw=1",
        "order-with-replacement",
        "order-with-replacement:unit=batch",
    ],
    placebos=1,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    return study_in_process(tmp_path_factory.mktemp("units") / "run", key, PLAN)


def test_every_unit_is_verified(run: Run) -> None:
    report = check(run)
    assert report.verdict == "verified", findings_text(report)


def test_an_order_of_samples_that_is_the_controls_is_nothing_to_perturb() -> None:
    single = OrderFile(FlatOrder.of([np.array([[0, step]]) for step in range(PLAN.horizon)]), None)
    plan = PLAN.changed(window=1, perturbations=["order-reverse"])
    (spec,) = plan.perturbations
    with tiny_session() as session, pytest.raises(NothingToPerturb, match="in their order still"):
        follow_control(session, plan, single, spec)


def test_a_branch_that_moved_samples_is_none_that_moved_batches(
    run: Run, copied: Callable[[Run], Run]
) -> None:
    forged = copied(run)
    copy_branch(forged, "order-swap", "order-swap--unit-batch")
    assert result_of(check(forged, replay="none"), 6).status == "failed"
