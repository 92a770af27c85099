"""Perturbations that are applied one after the other, through a study and its verification."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from forging import copy_branch, edit_predicate
from hypothesis import given
from hypothesis import strategies as st
from studies import Run, check, failures, findings_text, result_of, study_in_process

from auditkit.errors import PlanError, UnknownPerturbation
from auditkit.perturbations.registry import perturbation_of
from auditkit.records.composed_declarations import composed
from auditkit.records.composition import joined_version, versions_of
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import PerturbationSpec, StudyPlan, as_typed
from auditkit.signing.keys import PrivateKey
from auditkit.study.request import resolve

MEMORY = "memory_study.py:make_program"
BOTH = "momentum-reset+batchnorm-reset"
PLAN = StudyPlan(
    6,
    3,
    12,
    [0],
    [
        "momentum-reset",
        "batchnorm-reset",
        BOTH,
        "carry+momentum-reset",
        "momentum-reset+carry",
        "queue-shuffle:draw=2+momentum-scale:factor=0.5,params=*.bias+average-reset",
    ],
    placebos=1,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    return study_in_process(tmp_path_factory.mktemp("composed") / "run", key, PLAN, MEMORY)


def test_compositions_verify(run: Run) -> None:
    report = check(run)
    assert report.verdict == "verified", findings_text(report)
    branches = {branch.name: branch for branch in run.manifest.seeds[0].branches}
    long = "queue-shuffle--draw-2--name-queue+momentum-scale--factor-0.5--params-%2A.bias"
    assert branches[f"{long}+average-reset"].version == 1_001_001
    control, both = branches["control"].digests["t0"], branches[BOTH].digests["t0"]
    changed = {name for name in control if control[name] != both[name]}
    assert changed == {"optimizer/momentum_buffer", "batchnorm"}


@pytest.mark.parametrize("name", ["carry+momentum-reset", "momentum-reset+carry"])
def test_composed_with_carry_it_is_what_it_is_alone(run: Run, name: str) -> None:
    record = run.manifest.seeds[0]
    alone, with_carry = record.branch("momentum-reset"), record.branch(name)
    assert with_carry.digests == alone.digests
    assert run.folder.joinpath(with_carry.trace).read_bytes() == (
        run.folder.joinpath(alone.trace).read_bytes()
    )
    assert run.folder.joinpath(with_carry.outcome).read_bytes() == (
        run.folder.joinpath(alone.outcome).read_bytes()
    )


def test_a_branch_of_one_part_is_no_composition(run: Run, copied: Callable[[Run], Run]) -> None:
    forged = copied(run)
    copy_branch(forged, "momentum-reset", BOTH)
    report = check(forged, replay="none")
    assert result_of(report, 7).status == "failed"
    assert "batchnorm" in findings_text(report)


def test_a_branch_of_a_composition_is_no_part_of_it(run: Run, copied: Callable[[Run], Run]) -> None:
    forged = copied(run)
    copy_branch(forged, BOTH, "batchnorm-reset")
    assert 7 in failures(check(forged, replay="none"))


@pytest.mark.parametrize("name", ["momentum-reset+nothing", "momentum-reset+order-swap"])
def test_a_plan_of_what_does_not_compose_fails_check_4(
    run: Run, copied: Callable[[Run], Run], name: str
) -> None:
    forged = copied(run)
    edit_predicate(forged, lambda said: said["plan"]["perturbations"][2].update(name=name))
    report = check(forged, replay="none")
    assert failures(report) == {4}
    assert f"no perturbation {name!r} is known here" in findings_text(report)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("carry+carry", PlanError, "composed with itself"),
        ("carry+ulp+momentum-reset+adam-reset+batchnorm-reset", PlanError, "at most 4"),
        ("carry+nothing", UnknownPerturbation, "unknown perturbation 'nothing'"),
        ("carry+order-swap", UnknownPerturbation, "order-swap is of kind order"),
        ("momentum-reset+label-noise", UnknownPerturbation, "label-noise is of kind data"),
        ("adam-reset:step=x+carry", UnknownPerturbation, "adam-reset.step=x is not allowed"),
    ],
)
def test_what_does_not_compose_is_refused(text: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        resolve(StudyPlan(1, 1, 3, [0], [text]), DECLARATIONS)


def test_a_part_that_finds_nothing_is_said_before_the_trunk(
    tmp_path_factory: pytest.TempPathFactory, key: PrivateKey
) -> None:
    folder = tmp_path_factory.mktemp("nothing") / "run"
    plan = PLAN.changed(perturbations=["momentum-reset+adam-reset"])
    with pytest.raises(PlanError, match="SGD keeps no exp_avg"):
        study_in_process(folder, key, plan, MEMORY)


def test_versions_of_parts_are_known_together() -> None:
    declaration = composed("adam-reset+optimizer-reset", DECLARATIONS)
    assert declaration.version == 2002
    versions = {one.version for one in (declaration, *declaration.earlier)}
    assert versions == {2002, 2001, 1002, 1001}
    assert declaration.of_version(1002).touches(PerturbationSpec("adam-reset+optimizer-reset")) == (
        "optimizer/exp_avg",
        "optimizer/exp_avg_sq",
        "optimizer/step",
    )
    found = perturbation_of("adam-reset+optimizer-reset", 2001)
    assert found.declaration.version == 2001
    with pytest.raises(UnknownPerturbation, match="no version 3"):
        perturbation_of("adam-reset+optimizer-reset", 3002)


@given(st.lists(st.integers(1, 999), min_size=1, max_size=4))
def test_versions_are_digits(versions: list[int]) -> None:
    assert versions_of(joined_version(versions), len(versions)) == versions


PARTS = (
    *("carry", "adam-reset:moments=v,step=keep", "momentum-scale:factor=0.25"),
    *("queue-shuffle:dim=1,draw=3,name=bank", "optimizer-reset:params=*.weight", "my-own:a=b"),
)


@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=4, unique=True))
def test_a_composition_is_read_as_it_is_written(parts: list[str]) -> None:
    text = "+".join(parts)
    spec = PerturbationSpec.parse(text)
    assert spec.typed == text
    assert [part.typed for part in spec.parts] == parts
    assert as_typed(spec.branch_name) == text
