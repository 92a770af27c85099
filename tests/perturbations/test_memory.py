"""Averages, teachers, queues, schedules and streams: what becomes of them, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import PROGRAMS, trained
from torch import Tensor, nn

from auditkit.errors import NothingToPerturb
from auditkit.observe.state.components import TrainingObjects, as_built
from auditkit.observe.state.named_groups import group_patterns
from auditkit.observe.values.digests import digest_leaves
from auditkit.perturbations.registry import perturbation_of
from auditkit.program.program import load_factory
from auditkit.program.session import Session, open_session
from auditkit.records.declaration import DECLARATIONS, matches
from auditkit.records.digest import EVIDENCE_RECIPE
from auditkit.records.plan import PerturbationSpec, StudyPlan
from auditkit.study.stages.perturber import perturb

PLAN = StudyPlan(6, 3, 12, [0], ["carry"])


@contextmanager
def memory(steps: int = 6, **arguments: str) -> Iterator[Session]:
    """``memory_study.py`` after some steps."""
    sys.modules.pop("memory_study", None)
    factory = load_factory("memory_study.py", Path(PROGRAMS))
    session = open_session(factory, arguments, PLAN, 0)
    try:
        trained(session, 1, steps)
        yield session
    finally:
        session.close()


def digests(session: Session) -> dict[str, bytes]:
    state = session.state()
    return {name: digest_leaves(EVIDENCE_RECIPE, leaves) for name, leaves in state.items()}


def changed(session: Session, text: str, batches: Any = ()) -> set[str]:
    """Applies a perturbation; what changed is what it declares."""
    spec = PerturbationSpec.parse(text)
    spec = DECLARATIONS[spec.name].resolve(spec)
    before = digests(session)
    perturb(session, spec, recalibration=batches)
    after = digests(session)
    found = {name for name in before | after if before.get(name) != after.get(name)}
    assert all(matches(name, DECLARATIONS[spec.name].may_touch(spec)) for name in found), found
    return found


def refused(session: Session, text: str, words: str) -> NothingToPerturb:
    with pytest.raises(NothingToPerturb, match=words) as error:
        changed(session, text)
    return error.value


def model_of(session: Session) -> Any:
    return session.program.model


def ema_of(session: Session) -> Any:
    return session.program.averaged["ema"]


# -- averages ----------------------------------------------------------------------------------


def test_an_average_becomes_the_model_and_its_count_stays() -> None:
    with memory() as session:
        assert changed(session, "average-reset") == {"averaged/ema"}
        pairs = zip(
            ema_of(session).module.parameters(), model_of(session).parameters(), strict=True
        )
        assert all(torch.equal(here, there) for here, there in pairs)
        assert torch.equal(ema_of(session).module.queue, model_of(session).queue)
        assert int(ema_of(session).n_averaged) == 6
        refused(session, "average-reset:name=ema", "holds the model's weights already")


def test_an_average_that_is_restarted_takes_the_next_weights_whole() -> None:
    with memory() as session:
        assert changed(session, "average-restart:name=ema") == {"averaged/ema"}
        refused(session, "average-restart", "n_averaged is 0 already")
        ema_of(session).update_parameters(model_of(session))
        pairs = zip(
            ema_of(session).module.parameters(), model_of(session).parameters(), strict=True
        )
        assert all(torch.equal(here, there) for here, there in pairs)


def test_averages_that_do_not_fit_are_refused() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters())

    def of(**averaged: nn.Module) -> TrainingObjects:
        return TrainingObjects(model, optimizer, averaged=averaged)

    def apply(name: str, objects: TrainingObjects, /, **parameters: Any) -> None:
        perturbation_of(name).apply(objects, parameters, 0)

    for name in ("average-reset", "average-restart"):
        with pytest.raises(NothingToPerturb, match="no averaged copy") as error:
            apply(name, of())
        assert "Program(averaged=" in str(error.value.hint)
        with pytest.raises(NothingToPerturb, match="several averaged copies: a, b"):
            apply(name, of(a=nn.Linear(2, 2), b=nn.Linear(2, 2)))
        with pytest.raises(NothingToPerturb, match="no averaged copy 'c'"):
            apply(name, of(a=nn.Linear(2, 2)), name="c")
    with pytest.raises(NothingToPerturb, match="other names or shapes"):
        apply("average-reset", of(a=nn.Linear(3, 2)))
    with pytest.raises(NothingToPerturb, match="keeps no count"):
        apply("average-restart", of(a=nn.Linear(2, 2)))
    plain = nn.Linear(2, 2)
    apply("average-reset", of(a=plain))
    assert torch.equal(plain.weight, model.weight)


# -- teachers ----------------------------------------------------------------------------------


def test_a_teacher_becomes_its_student() -> None:
    with memory() as session:
        model = model_of(session)
        statistics = model.teacher[1].running_mean.clone()
        assert changed(session, "teacher-reset") == {"params/teacher"}
        pairs = zip(model.teacher.parameters(), model.student.parameters(), strict=True)
        assert all(torch.equal(here, there) for here, there in pairs)
        assert torch.equal(model.teacher[1].running_mean, statistics)
        refused(
            session, "teacher-reset:student=student", "its student's weights already; another t0"
        )


def test_a_teacher_becomes_what_it_was_built_as() -> None:
    with memory(steps=1) as fresh, memory() as session:
        model = model_of(session)
        fresh_objects = fresh.rebuild() if fresh.rebuild else fresh.objects
        assert changed(session, "teacher-reset:to=built") == {"params/teacher"}
        weights: Any = fresh_objects.model.teacher
        assert torch.equal(model.teacher[0].weight, weights[0].weight)
        refused(session, "teacher-reset:to=built", "what it was built with")


def test_an_average_is_a_teacher_too() -> None:
    with memory() as session:
        count = int(ema_of(session).n_averaged)
        assert changed(session, "teacher-reset:name=ema") == {"averaged/ema"}
        assert int(ema_of(session).n_averaged) == count
        assert changed(session, "teacher-reset:name=ema,to=built") == {"averaged/ema"}
        assert int(ema_of(session).n_averaged) == 0


def test_a_teacher_among_the_extras() -> None:
    model: Any = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    target: Any = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters()), extras={"target": target})
    perturbation_of("teacher-reset").apply(objects, {"name": "target"}, 0)
    assert torch.equal(
        dict(target.named_parameters())["1.weight"], dict(model.named_parameters())["1.weight"]
    )


def test_a_teacher_that_is_not_found_is_refused() -> None:
    with memory() as session:
        error = refused(session, "teacher-reset:name=tutor", "no teacher is called 'tutor'")
        assert "groups, averages and modules among extras: ema, queue, teacher" in str(error.hint)
        refused(session, "teacher-reset:name=bank", "no teacher is called 'bank'")
        refused(session, "teacher-reset:student=head", "which part of the model is its student")
        refused(session, "teacher-reset:student=heart", "the model has no part 'heart'")
    with memory(groups="none") as session:
        error = refused(session, "teacher-reset", "no teacher is called")
        assert "Program(groups=" in str(error.hint)


def test_two_students_are_one_too_many() -> None:
    model = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("teacher", "one", "two")})
    objects = TrainingObjects(
        model,
        torch.optim.SGD(model.parameters()),
        groups=group_patterns(model, {"teacher": "teacher.*"}),
    )
    reset = perturbation_of("teacher-reset")
    with pytest.raises(NothingToPerturb, match="shapes: one, two"):
        reset.apply(objects, {"name": "teacher"}, 0)
    reset.apply(objects, {"name": "teacher", "student": "two"}, 0)
    parts: Any = dict(model)
    assert torch.equal(parts["teacher"].weight, parts["two"].weight)
    with pytest.raises(NothingToPerturb, match="needs a factory"):
        reset.apply(objects, {"name": "teacher", "to": "built"}, 0)


# -- queues ------------------------------------------------------------------------------------


def queued(n_rows: int, pointer: int, dim: int = 0) -> tuple[TrainingObjects, Any]:
    """A queue whose rows are numbered, with labels that are their numbers."""
    model: Any = nn.Linear(1, 1)
    rows = torch.arange(n_rows, dtype=torch.float32)
    model.register_buffer("queue", rows[:, None].repeat(1, 3) if dim == 0 else rows.repeat(3, 1))
    model.register_buffer("queue_labels", rows.clone() if dim == 0 else rows.repeat(1, 1))
    model.register_buffer("queue_pointer", torch.tensor([pointer]))
    groups = group_patterns(model, {"queue": "queue*"})
    return TrainingObjects(model, torch.optim.SGD(model.parameters()), groups=groups), model


def run(name: str, objects: TrainingObjects, **parameters: Any) -> None:
    perturbation_of(name).apply(objects, {"name": "queue", **parameters}, 5)


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(0, 20), st.integers(0, 1))
def test_a_stale_queue_holds_its_older_half_twice(n_rows: int, pointer: int, dim: int) -> None:
    objects, model = queued(n_rows, pointer, dim)
    run("queue-stale", objects, dim=dim)
    # Age 0 was written last, and lies before the pointer.
    age = {(pointer - 1 - back) % n_rows: back for back in range(n_rows)}
    labels = [int(label) for label in model.queue_labels.reshape(-1)]
    half = n_rows // 2
    for place, row in enumerate(labels):
        assert row == place if age[place] >= half else age[row] >= n_rows - half
    assert len(set(labels)) == n_rows - half
    rows = model.queue if dim == 0 else model.queue.T
    assert torch.equal(rows[:, 0], model.queue_labels.reshape(-1))
    assert model.queue_pointer.tolist() == [pointer]


def test_a_stale_queue_without_its_pointer_is_told_which_there_are() -> None:
    objects, model = queued(4, 3)
    model.register_buffer("seen", torch.tensor(7))
    groups = group_patterns(model, {"queue": "queue"})
    with pytest.raises(NothingToPerturb, match="no pointer of one whole number") as caught:
        run("queue-stale", replace(objects, groups=groups))
    assert "pointer=NAME" in str(caught.value.hint)
    assert str(caught.value.hint).endswith("one of queue_pointer, seen")
    del model.queue_pointer, model.seen
    with pytest.raises(NothingToPerturb) as caught:
        run("queue-stale", replace(objects, groups=groups))
    assert str(caught.value.hint).endswith("of which there is none")


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(0, 3), st.integers(0, 1))
def test_a_shuffled_queue_holds_the_same_rows(n_rows: int, draw: int, dim: int) -> None:
    objects, model = queued(n_rows, 1, dim)
    try:
        run("queue-shuffle", objects, draw=draw, dim=dim)
    except NothingToPerturb:
        return  # the drawn order is the one that there is
    labels = model.queue_labels.reshape(-1)
    assert sorted(labels.tolist()) == list(range(n_rows))
    rows = model.queue if dim == 0 else model.queue.T
    assert torch.equal(rows[:, 2], labels)
    assert model.queue_pointer.tolist() == [1]


def test_a_cleared_queue_is_zero_and_so_is_its_pointer() -> None:
    objects, model = queued(4, 3)
    run("queue-clear", objects)
    assert not any(
        bool(value.count_nonzero())
        for value in (model.queue, model.queue_labels, model.queue_pointer)
    )
    with pytest.raises(NothingToPerturb, match="already what it would become"):
        run("queue-clear", objects)


@pytest.mark.parametrize("name", ["queue", "bank"])
@pytest.mark.parametrize("what", ["queue-clear", "queue-shuffle", "queue-stale"])
def test_a_group_and_an_object_of_the_programs_own_are_queues(name: str, what: str) -> None:
    component = "buffers/queue" if name == "queue" else "extras/bank"
    with memory() as session:
        assert changed(session, f"{what}:name={name}") == {component}


def test_queues_that_do_not_fit_are_refused() -> None:
    with memory(groups="none") as session:
        lacking = refused(session, "queue-clear", "no queue is called 'queue'")
        assert "groups and extras: bank" in str(lacking.hint)
    objects, model = queued(4, 1)
    with pytest.raises(NothingToPerturb, match="no rows along dimension 1"):
        run("queue-shuffle", objects, draw=0, dim=1)
    model.register_buffer("count", torch.tensor(3))
    only = group_patterns(model, {"queue": "queue", "rest": ("count", "queue_p*", "queue_l*")})
    bare = TrainingObjects(model, objects.optimizer, groups=only)
    with pytest.raises(NothingToPerturb, match="no pointer") as error:
        run("queue-stale", bare)
    assert str(error.value.hint).endswith("one of count, queue_pointer")
    run("queue-stale", bare, pointer="queue_pointer")
    assert model.queue[:, 0].tolist() == [1, 1, 2, 2] or len(set(model.queue[:, 0].tolist())) == 2
    both = TrainingObjects(
        model, objects.optimizer, groups=group_patterns(model, {"queue": ("queue*", "count")})
    )
    with pytest.raises(NothingToPerturb, match="several pointers"):
        run("queue-stale", both)


# -- schedule, streams, statistics -------------------------------------------------------------


def test_a_schedule_begins_anew_with_the_rate_that_it_had() -> None:
    with memory() as session:
        optimizer = session.program.optimizer
        assert optimizer.param_groups[0]["lr"] == 0.05 / 8
        assert changed(session, "scheduler-reset") == {"scheduler", "param_groups"}
        assert optimizer.param_groups[0]["lr"] == 0.05
        scheduler: Any = session.program.scheduler
        assert scheduler.last_epoch == 0
        refused(session, "scheduler-reset", "as newly built")


SCHEDULES: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
    "cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.3, total_steps=30),
    "warm-up": lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=6),
    "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 0.9**t),
    "sequence": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [
            torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=3),
            torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
        ],
        [3],
    ),
}


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("tensor", [False, True])
def test_every_schedule_goes_through_its_rates_again(kind: str, tensor: bool) -> None:
    weight = nn.Linear(1, 1)
    lr: Any = torch.tensor(0.2) if tensor else 0.2
    optimizer = torch.optim.Adam(weight.parameters(), lr=lr)
    scheduler = SCHEDULES[kind](optimizer)
    objects = as_built(TrainingObjects(weight, optimizer, scheduler))

    def rates(n_steps: int) -> list[tuple[float, float]]:
        found = []
        for _ in range(n_steps):
            group = optimizer.param_groups[0]
            found.append((float(group["lr"]), float(group["betas"][0])))
            optimizer.step()
            scheduler.step()
        return found

    first = rates(5)
    perturbation_of("scheduler-reset").apply(objects, {}, 0)
    assert rates(5) == first


def test_a_program_without_a_schedule_has_none_to_reset() -> None:
    model = nn.Linear(1, 1)
    objects = as_built(TrainingObjects(model, torch.optim.SGD(model.parameters())))
    with pytest.raises(NothingToPerturb, match="has no scheduler"):
        perturbation_of("scheduler-reset").apply(objects, {}, 0)


def test_streams_are_seeded_anew_by_seed_and_draw() -> None:
    found: list[Tensor] = []
    for draw in (0, 1, 0):
        with memory() as session:
            assert changed(session, f"rng-reseed:draw={draw}") == {
                "rng/python",
                "rng/numpy",
                "rng/torch",
            }
            found.append(torch.rand(3))
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_statistics_become_the_average_over_the_batches() -> None:
    with memory() as session:
        model = model_of(session)
        flags = [layer.training for layer in model.modules()]
        batches = [(torch.randn(4, 4), None) for _ in range(3)]
        assert changed(session, "batchnorm-recalibrate", batches) == {"batchnorm"}
        outputs = [model.student[0](inputs) for inputs, _ in batches]
        means = torch.stack([output.mean(0) for output in outputs]).mean(0)
        assert torch.allclose(model.student[1].running_mean, means, atol=1e-6)
        assert int(model.student[1].num_batches_tracked) == 3
        assert [layer.training for layer in model.modules()] == flags
        assert model.student[1].momentum == 0.1
        refused(session, "batchnorm-recalibrate", "no batches to recalibrate")
