"""A curriculum inside the window: by the difficulty that the program gives its samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import forging
import numpy as np
import pytest
from studies import (
    PROGRAMS,
    Run,
    check,
    check_files,
    failures,
    findings_text,
    study_in_process,
    tiny_session,
)

from auditkit.errors import (
    AuditError,
    NothingToPerturb,
    PlanError,
    ProbeDisturbance,
    RestoreMismatch,
)
from auditkit.files import store
from auditkit.formats.flat_order import FlatOrder
from auditkit.formats.ordering import delivered_order
from auditkit.formats.run_files import OrderFile, order_from_tensors
from auditkit.program.difficulty import difficulties
from auditkit.records.plan import PerturbationSpec, StudyPlan
from auditkit.signing.keys import PrivateKey
from auditkit.study.worker.job_files import follow_control

EASY, HARD, BATCHES = (
    "order-curriculum",
    "order-curriculum:first=hard",
    "order-curriculum:unit=batch,first=hard",
)
PLAN = StudyPlan(6, 3, 10, [0], [EASY, HARD, BATCHES], placebos=1)

PROGRAM = """
from dataclasses import replace

import tiny_study

def make_program(seed):
    return replace(tiny_study.make_program(seed), difficulty=lambda index: (index * 5) % 14)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    folder = tmp_path_factory.mktemp("curriculum")
    program = folder / "program"
    store.make_folder(program)
    store.copy_file(PROGRAMS / "tiny_study.py", program / "tiny_study.py")
    store.write_bytes(program / "graded.py", PROGRAM.encode())
    return study_in_process(folder / "run", key, PLAN, "graded.py:make_program", program)


@pytest.fixture
def forged(run: Run, copied: Callable[[Run], Run]) -> Run:
    return copied(run)


def order_file(run: Run) -> OrderFile:
    name = "seed-0000/order.safetensors"
    return order_from_tensors(store.read_tensors(run.folder / name, what=name)[0], what=name)


def test_a_curriculum_is_verified(run: Run) -> None:
    report = check(run)
    assert report.verdict == "verified", findings_text(report)


def test_the_window_comes_in_the_order_of_difficulty(run: Run) -> None:
    order = order_file(run)
    window = np.concatenate(order.batches[6:9])
    hard = ((window[:, 1] * 5) % 14).tolist()
    assert order.difficulty == tuple(hard)
    for typed, expected in ((EASY, sorted(hard)), (HARD, sorted(hard, reverse=True))):
        spec = resolved(run, typed)
        moved = delivered_order(order.batches[6:], spec, 3, 0, order.difficulty)
        assert ((np.concatenate(moved[:3])[:, 1] * 5) % 14).tolist() == expected
        assert [len(batch) for batch in moved] == [len(batch) for batch in order.batches[6:]]
    moved = delivered_order(order.batches[6:], resolved(run, BATCHES), 3, 0, order.difficulty)
    means = [float(((batch[:, 1] * 5) % 14).mean()) for batch in moved[:3]]
    assert means == sorted(means, reverse=True)
    assert {len(batch) for batch in moved[:3]} == {len(batch) for batch in order.batches[6:9]}


def resolved(run: Run, typed: str) -> PerturbationSpec:
    names = PerturbationSpec.parse(typed)
    (spec,) = [
        spec
        for spec in run.manifest.plan.perturbations
        if {"first": "easy", **names.parameters} == dict(spec.parameters)
    ]
    return spec


def test_samples_of_one_difficulty_keep_their_order() -> None:
    control = [np.array([[0, 3], [0, 1]]), np.array([[0, 2], [0, 0]])]
    spec = PerturbationSpec(EASY, {"first": "hard"})
    moved = delivered_order(control, spec, 2, 0, [1.0, 2.0, 1.0, 2.0])
    assert np.concatenate(moved)[:, 1].tolist() == [1, 0, 3, 2]


def test_an_order_file_without_difficulties_is_as_it_was(run: Run) -> None:
    assert "difficulty" in forging.read_arrays(run, "seed-0000/order.safetensors")[0]
    with tiny_session() as session:
        assert difficulties(session, []) is None


def edit_difficulty(run: Run, edit: Callable[[forging.Arrays], None]) -> None:
    forging.edit_tensors(run, "seed-0000/order.safetensors", edit)


def shorter(arrays: forging.Arrays) -> None:
    arrays["difficulty"] = arrays["difficulty"][1:]


def without(arrays: forging.Arrays) -> None:
    del arrays["difficulty"]


def endless(arrays: forging.Arrays) -> None:
    arrays["difficulty"][0] = np.inf


def swapped(arrays: forging.Arrays) -> None:
    arrays["difficulty"][:] = arrays["difficulty"][::-1]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (shorter, "the order file does not fit the window: 9 difficulties for 10 samples"),
        (without, "the order file lacks difficulties"),
        (endless, "difficulties are not (samples,) numbers"),
        (swapped, "order drift: not the declared permutation"),
    ],
)
def test_difficulties_that_are_not_the_branch_s_are_caught(
    forged: Run, edit: Callable[[forging.Arrays], None], says: str
) -> None:
    edit_difficulty(forged, edit)
    found = check_files(forged)
    assert failures(found) & {4, 6}
    assert says in findings_text(found)


def test_other_difficulties_of_one_order_are_caught_by_replay(forged: Run) -> None:
    def stretch(arrays: forging.Arrays) -> None:
        arrays["difficulty"] *= 2.0

    edit_difficulty(forged, stretch)
    assert check_files(forged).exit_code == 0
    found = check(forged)
    assert failures(found) == {8}
    assert "Program.difficulty does not give what it gave the control" in findings_text(found)


def test_difficulties_that_nothing_is_ordered_by_are_refused(
    tmp_path: Path, key: PrivateKey
) -> None:
    plan = PLAN.changed(perturbations=["order-reverse"])
    run = study_in_process(tmp_path / "run", key, plan)
    edit_difficulty(run, lambda arrays: arrays.update(difficulty=np.zeros(10)))
    assert "has, though nothing is ordered by them" in findings_text(check_files(run))


def test_a_program_that_says_nothing_of_difficulty_is_told_so_before_the_trunk(
    tmp_path: Path, key: PrivateKey
) -> None:
    with pytest.raises(PlanError, match="does not say how hard its samples are") as caught:
        study_in_process(tmp_path / "run", key, PLAN)
    assert "Program(difficulty=...)" in str(caught.value.hint)


def nothing_at_all(index: int) -> float:
    raise LookupError(f"no sample {index}")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (lambda index: float("nan"), "Program.difficulty of sample 3 is nan"),
        (lambda index: 1e300, "Program.difficulty of sample 3 is 1e"),
        (lambda index: "hard", "Program.difficulty of sample 3 raised ValueError"),
        (nothing_at_all, "Program.difficulty of sample 3 raised LookupError"),
        ([0.0, 1.0], "Program.difficulty of sample 3 raised IndexError"),
    ],
)
def test_a_difficulty_that_is_no_number_is_named(given: Any, says: str) -> None:
    with (
        tiny_session(lambda program: replace(program, difficulty=given)) as session,
        pytest.raises(AuditError, match=says),
    ):
        difficulties(session, [np.array([[0, 3]])])


def test_difficulties_may_be_numbers_by_index() -> None:
    graded = np.arange(14.0)[::-1]
    with tiny_session(lambda program: replace(program, difficulty=graded)) as session:
        assert difficulties(session, [np.array([[0, 3], [1, 0]])]) == [10.0, 13.0]


def test_a_window_that_is_in_that_order_already_is_nothing_to_perturb() -> None:
    same = OrderFile(
        FlatOrder.of([np.array([[0, step]]) for step in range(PLAN.horizon)]), None, (1.0,) * 3
    )
    with (
        tiny_session(lambda program: replace(program, difficulty=lambda _: 1.0)) as session,
        pytest.raises(NothingToPerturb, match="in their order still"),
    ):
        follow_control(session, PLAN, same, PerturbationSpec(EASY, {"first": "easy"}))


def test_a_control_that_left_too_few_difficulties_is_followed_by_nobody() -> None:
    short = OrderFile(
        FlatOrder.of([np.array([[0, step]]) for step in range(PLAN.horizon)]), None, (1.0,) * 2
    )
    with (
        tiny_session(lambda program: replace(program, difficulty=lambda _: 1.0)) as session,
        pytest.raises(RestoreMismatch, match="2 difficulties, not one for each"),
    ):
        follow_control(session, PLAN, short, PerturbationSpec(EASY, {"first": "easy"}))


#: What is done to a program at the number-th time that it is asked how hard a sample is.
MEDDLING = """
from dataclasses import replace

import tiny_study
import torch

def make_program(seed, number, what):
    program = tiny_study.make_program(seed)
    last, asked = program.model.last, []

    def forge(given):
        return torch.nn.functional.linear(given, last.weight) + torch.tensor([5.0, 0.0, 0.0])

    def hard(index):
        asked.append(index)
        if len(asked) == int(number):
            if what == "hook":
                last.register_forward_hook(lambda *a: a[2] + torch.tensor([5.0, 0.0, 0.0]))
            elif what == "forward":
                last.forward = forge
            elif what == "weights":
                last.weight.data.mul_(2.0)
        return len(asked) if what == "count" else index * 5 % 14

    def loss(model, batch):
        return program.loss(model, batch) * (2.0 if what == "loss" and asked else 1.0)

    return replace(program, loss=loss, difficulty=hard)
"""

DISTURBED = "Program.difficulty changed the training state"


def meddling(tmp_path: Path, key: PrivateKey, number: int, what: str) -> Run:
    program = tmp_path / "program"
    store.make_folder(program)
    store.copy_file(PROGRAMS / "tiny_study.py", program / "tiny_study.py")
    store.write_bytes(program / "meddling.py", MEDDLING.encode())
    plan = PLAN.changed(perturbations=[EASY])
    arguments = {"number": str(number), "what": what}
    target = "meddling.py:make_program"
    return study_in_process(tmp_path / "run", key, plan, target, program, arguments)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("hook", DISTURBED),
        ("forward", DISTURBED),
        ("weights", DISTURBED),
        ("count", "asked for again"),
    ],
)
def test_a_difficulty_that_meddles_is_refused_before_the_trunk(
    tmp_path: Path, key: PrivateKey, what: str, says: str
) -> None:
    with pytest.raises(PlanError, match=says):
        meddling(tmp_path, key, 1, what)


@pytest.mark.parametrize("what", ["hook", "forward"])
def test_a_difficulty_that_meddles_later_is_refused_in_the_run(
    tmp_path: Path, key: PrivateKey, what: str
) -> None:
    with pytest.raises(ProbeDisturbance, match=DISTURBED):
        meddling(tmp_path, key, 7, what)  # preflight asks for one batch of four, and one again


def test_what_no_fingerprint_holds_is_meddled_with_after_training_in_every_branch(
    tmp_path: Path, key: PrivateKey
) -> None:
    """A loss that knows whether it was asked would otherwise be another in one branch only."""
    honest = meddling(tmp_path / "honest", key, 0, "")
    other = meddling(tmp_path / "other", key, 0, "loss")
    here, there = (
        store.read_bytes(run.folder / branch.trace, what="trace")
        for run in (honest, other)
        for branch in run.manifest.seeds[0].branches
        if branch.role == "treatment"
    )
    assert here == there
