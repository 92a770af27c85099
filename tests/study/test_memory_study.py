"""Every perturbation of memory goes through a study and its verification."""

from __future__ import annotations

import pytest
from studies import check, findings_text, study_in_process

from auditkit.errors import PlanError
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import StudyPlan
from auditkit.signing.keys import PrivateKey
from auditkit.study.request import resolve

MEMORY = "memory_study.py:make_program"
NAMES = (
    *("average-reset", "average-restart:name=ema", "teacher-reset", "teacher-reset:to=built"),
    *("queue-clear", "queue-shuffle:draw=1", "queue-stale", "queue-stale:name=bank"),
    *("scheduler-reset", "rng-reseed", "batchnorm-recalibrate"),
    *("momentum-scale:factor=0.25", "momentum-scale:factor=0.5", "momentum-scale:factor=2"),
    "momentum-reset:params=student.*",
)
ADAM = ("second-moment-scale:factor=0.1", "adam-reset:params=*.bias", "optimizer-reset:params=s*")


def plan(*names: str) -> StudyPlan:
    return StudyPlan(6, 3, 12, [0], names, placebos=1)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "names"), [("sgd", NAMES), ("adamw", ADAM)])
def test_all_of_them_verify(
    tmp_path_factory: pytest.TempPathFactory,
    key: PrivateKey,
    optimizer: str,
    names: tuple[str, ...],
) -> None:
    folder = tmp_path_factory.mktemp("memory") / "run"
    run = study_in_process(folder, key, plan(*names), MEMORY, arguments={"optimizer": optimizer})
    assert len(run.manifest.plan.treatment_names) == len(names)
    report = check(run)
    assert report.verdict == "verified", findings_text(report)


def test_what_the_program_lacks_is_said_before_the_trunk(
    tmp_path_factory: pytest.TempPathFactory, key: PrivateKey
) -> None:
    folder = tmp_path_factory.mktemp("lacks") / "run"
    lacking = plan("teacher-reset", "queue-clear", "average-reset", "scheduler-reset", "rng-reseed")
    with pytest.raises(PlanError) as error:
        study_in_process(folder, key, lacking)
    for name in ("teacher-reset:name=teacher", "queue-clear:name=queue", "average-reset"):
        assert f"{name}: " in error.value.message
    assert "the program has no scheduler" in error.value.message
    assert "rng-reseed" not in error.value.message
    assert not list(folder.glob("seed-*"))


def test_streams_that_data_are_drawn_from_are_not_seeded_anew() -> None:
    inherited = plan("carry+rng-reseed").changed(augmentation_rng="inherit")
    with pytest.raises(PlanError, match="data order and augmentation draw from the global streams"):
        resolve(inherited, DECLARATIONS)


def test_what_has_not_moved_yet_is_asked_again_and_not_refused(
    tmp_path_factory: pytest.TempPathFactory, key: PrivateKey
) -> None:
    # Stepped after each epoch of four batches: after two it is as newly built.
    arguments = {"scheduler": "epoch"}
    folder = tmp_path_factory.mktemp("later")
    run = study_in_process(folder / "run", key, plan("scheduler-reset"), arguments=arguments)
    assert run.manifest.plan.treatment_names == ("scheduler-reset",)
    early = StudyPlan(2, 1, 4, [0], ["scheduler-reset"], placebos=1)
    with pytest.raises(PlanError, match="the scheduler is as newly built"):
        study_in_process(folder / "early", key, early, arguments=arguments)
