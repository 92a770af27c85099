"""What ends between a preflight's steps and the horizon is found by the preflight."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from studies import tiny_session
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau, SequentialLR, StepLR
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    TensorDataset,
)

from auditkit.errors import PlanError, ProgramError, ProgramFailed, UnsupportedLoader
from auditkit.program.program import Program
from auditkit.program.segments import Segments
from auditkit.program.session import Session
from auditkit.records.plan import StudyPlan
from auditkit.records.segments import SegmentPlan
from auditkit.study.stages.auditor import Auditor
from auditkit.study.stages.holder import hold
from auditkit.study.worker import ahead

#: 4 batches an epoch.
PLAN = StudyPlan(6, 3, 14, [0], ["carry"], placebos=1)

Scheduling = Callable[[torch.optim.Optimizer], Any]


def cycle(total: int) -> Scheduling:
    return lambda optimizer: OneCycleLR(optimizer, 0.1, total_steps=total)


def tried(scheduling: Scheduling, **changes: Any) -> tuple[str, ...]:
    """Train for two steps, then try the schedule."""

    def change(program: Program) -> Program:
        return replace(program, scheduler=scheduling(program.optimizer), **changes)

    with tiny_session(change, PLAN) as session:
        hold(session, 1, 2, Auditor(1), _Nothing())
        return ahead.try_schedule(session.program, PLAN, 2)


class _Nothing:
    def on_boundary(self, *_: Any) -> None: ...
    def on_batch(self, *_: Any) -> None: ...
    def on_step_end(self, *_: Any) -> None: ...


def test_a_schedule_that_ends_before_the_horizon_is_refused() -> None:
    with pytest.raises(PlanError) as refused:
        tried(cycle(10))
    text = str(refused.value)
    assert "OneCycleLR, at step 11 of 14, raised ValueError: Tried to step 11 times" in text
    assert "let the schedule last to T, for 14 steps of the scheduler" in text
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(("forks", "refused"), [((3,), False), ((4,), True), ((2, 6), True)])
def test_a_fork_beyond_the_first_epoch_of_lasting_workers_is_refused(
    forks: tuple[int, ...], refused: bool
) -> None:
    def change(program: Program) -> Program:
        loader = DataLoader(program.loader.dataset, 4, num_workers=1, persistent_workers=True)
        return replace(program, loader=loader)

    plan = StudyPlan(list(forks), 3, 14, [0], ["carry"], placebos=1, augmentation_rng="inherit")
    with tiny_session(change, plan) as session:
        expected = pytest.raises(UnsupportedLoader) if refused else contextlib.nullcontext()
        with expected:
            ahead.try_forks(session, plan)


def _table(optimizer: torch.optim.Optimizer) -> LambdaLR:
    rates = [1.0, 0.5, 0.25, 0.125]
    return LambdaLR(optimizer, lambda number: rates[number])


@pytest.mark.parametrize(
    ("scheduling", "changes", "step"),
    [
        (cycle(3), {"accumulate": 3}, 12),
        (cycle(2), {"scheduler_interval": "epoch"}, 13),
        (_table, {}, 4),
        (lambda o: SequentialLR(o, [StepLR(o, 2), cycle(5)(o)], [3]), {}, 9),
    ],
)
def test_the_step_is_the_one_at_which_training_raises(
    scheduling: Scheduling, changes: dict[str, Any], step: int
) -> None:
    with pytest.raises(PlanError, match=f"at step {step} of 14"):
        tried(scheduling, **changes)

    def change(program: Program) -> Program:
        return replace(program, scheduler=scheduling(program.optimizer), **changes)

    with tiny_session(change, PLAN) as session:
        hold(session, 1, step - 1, Auditor(1), _Nothing())
        with pytest.raises(ProgramFailed):
            hold(session, step, step, Auditor(step), _Nothing())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("scheduling", "changes"),
    [
        (cycle(14), {}),
        (cycle(4), {"accumulate": 3}),
        (cycle(3), {"scheduler_interval": "epoch"}),
        (lambda o: StepLR(o, 2), {}),
        (lambda _: None, {}),
    ],
)
def test_one_that_lasts_is_not(scheduling: Scheduling, changes: dict[str, Any]) -> None:
    assert tried(scheduling, **changes) == ()


class _Estimated(IterableDataset[Any]):
    """Says that it is shorter than it is."""

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[Any]:
        return iter(self.samples)

    def __len__(self) -> int:
        return 4


class _WithoutLength(Sampler[int]):
    """Indices in order."""

    def __init__(self, samples: list[Any]) -> None:
        self.n = len(samples)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.n))


@pytest.mark.parametrize(
    "options",
    [
        lambda samples: {"dataset": _Once(samples)},
        lambda samples: {"dataset": _Estimated(samples)},
        lambda samples: {"dataset": samples, "sampler": _WithoutLength(samples)},
    ],
    ids=["a stream", "a stream with an estimate", "a sampler"],
)
def test_where_epochs_have_no_length_nothing_is_said_of_a_schedule_by_epochs(
    options: Callable[[list[Any]], dict[str, Any]],
) -> None:
    def change(program: Program) -> Program:
        points: Any = program.loader.dataset
        samples = [points[index] for index in range(len(points))]
        return replace(
            program,
            loader=DataLoader(batch_size=4, **options(samples)),
            scheduler=cycle(4)(program.optimizer),
            scheduler_interval="epoch",
        )

    with tiny_session(change, PLAN) as session:
        assert ahead.try_schedule(session.program, PLAN, 0) == ()


def test_of_a_step_of_its_own_it_is_said_and_not_refused() -> None:
    def every(program: Program, batch: Any, t: int) -> None:
        program.optimizer.step()
        program.scheduler.step()  # type: ignore[union-attr]

    def twice(program: Program, batch: Any, t: int) -> None:
        for _ in range(2):
            every(program, batch, t)

    (line,) = tried(cycle(10), step=every)
    assert line.startswith("the scheduler torch.optim.lr_scheduler.OneCycleLR, at step 11 of 14, ")
    assert line.endswith("if the program's step goes on to step it for every batch")
    assert tried(cycle(10), step=twice) == ()
    assert tried(cycle(10), step=lambda *_: None) == ()
    assert tried(ReduceLROnPlateau, step=lambda *_: None) == ()


def test_a_slow_scheduler_is_tried_as_far_as_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_SECONDS", 0.02)

    def slow(number: int) -> float:
        time.sleep(0.01 * (number > 2))
        return 1.0

    (line,) = tried(lambda optimizer: LambdaLR(optimizer, slow))
    assert line.startswith("the scheduler was tried up to step ")


# Streams


class _Once(IterableDataset[Any]):
    """Gives a share of what is left of its samples."""

    def __init__(self, samples: list[Any], share: int = 1_000) -> None:
        self.samples, self.share = samples, share
        self.left = iter(samples)

    def __iter__(self) -> Iterator[Any]:
        for _, sample in zip(range(self.share), self.left, strict=False):
            yield sample


def stream(dataset: Callable[[list[Any]], Any], **changes: Any) -> Any:
    def change(program: Program) -> Program:
        points: Any = program.loader.dataset
        samples = [points[number] for number in range(len(points))]
        return replace(program, loader=DataLoader(dataset(samples), batch_size=4), **changes)

    return tiny_session(change, PLAN)


def _tried(opened: Any) -> None:
    session: Session
    with opened as session:
        ahead.try_stream(session, PLAN)


@pytest.mark.parametrize("share", [1_000, 9])
def test_a_stream_that_ends_for_good_is_refused(share: int) -> None:
    with pytest.raises(ProgramError) as refused:
        _tried(stream(lambda samples: _Once(samples, share)))
    text = str(refused.value)
    assert text.startswith(f"the data loader yields {4 if share > 9 else 5} batches and then none,")
    assert "14 batches, the plan's horizon" in text


def test_one_that_lasts_or_whose_program_may_begin_it_again_is_not() -> None:
    _tried(stream(lambda samples: _Once(samples * 4)))
    _tried(stream(list))
    _tried(stream(_Once, on_epoch_end=lambda program, epoch: None))
    _tried(stream(_Once, step=lambda program, batch, t: None))


def test_what_a_stream_raises_is_told_with_the_step() -> None:
    class Broken(_Once):
        def __iter__(self) -> Iterator[Any]:
            yield from self.samples[:9]
            raise KeyError("shard 3")

    with pytest.raises(ProgramFailed, match="loading the batch of step 3 raised KeyError"):
        _tried(stream(Broken))


# Segments


SEGMENTED = StudyPlan(
    3, 2, 7, [0], ["carry"], placebos=1, segments=SegmentPlan(overlap=0.5, same_classes=True)
)


class Fixed(Sampler[list[int]]):
    """Batches of whatever class, which are the same in every epoch."""

    def __init__(self, *batches: list[int]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def compared(
    sampler: Any, plan: StudyPlan = SEGMENTED, seconds: float = 60.0, **changes: Any
) -> tuple[str, ...]:
    """Compare the segments that a sampler draws with a plan."""
    data = TensorDataset(torch.randn(60, 4), torch.arange(60) % 3)

    def change(program: Program) -> Program:
        return replace(program, loader=DataLoader(data, batch_sampler=sampler), **changes)

    with pytest.MonkeyPatch.context() as patch, tiny_session(change, plan) as session:
        patch.setattr(ahead, "_SECONDS", seconds)
        return ahead.try_order(session, plan)


def drawn(overlap: float = 0.5, **changes: Any) -> Segments:
    given = {"same_classes": True, "fork_at": 3, "steps": 2, "batch_size": 8, "seed": 1, **changes}
    trunk = BatchSampler(RandomSampler(range(60)), 8, drop_last=True)
    return Segments(trunk, torch.arange(60) % 3, overlap=overlap, **given)


def _step(program: Program, batch: Any, t: int) -> float:
    raise AssertionError("nothing is trained")


@pytest.mark.parametrize("mode", ["per-sample", "inherit"])
@pytest.mark.parametrize("changes", [{}, {"step": _step}])
def test_segments_as_planned_are_found_without_training(mode: str, changes: dict[str, Any]) -> None:
    assert compared(drawn(), SEGMENTED.changed(augmentation_rng=mode), **changes) == ()


@pytest.mark.parametrize(
    ("sampler", "says"),
    [
        (lambda: drawn(0.25), "segment B has 2 of A's 8 indices, and the plan says 4"),
        (lambda: drawn(same_classes=False), "segment A has . samples of class ., and B "),
        (lambda: drawn(fork_at=2), "segment B has . of A's"),
        (lambda: Fixed([0, 1], [2, 3]), "segment B has 4 of A's 4 indices"),
        (lambda: Fixed(*([n, n + 1] for n in range(0, 14, 2))), "segment B has 0 of A's 4"),
    ],
)
def test_segments_that_are_others_are_refused_without_training(
    sampler: Callable[[], Any], says: str
) -> None:
    with pytest.raises(PlanError, match=f"segments: {says}") as refused:
        compared(sampler())
    assert "fork_at=3, steps=2" in str(refused.value.hint)


def test_what_only_training_decides_and_what_takes_long_is_said() -> None:
    (line,) = compared(Fixed([0, 1], [2, 3]), step=_step)
    assert "is seen when the trunk has come to T" in line
    (line,) = compared(drawn(0.25), seconds=-1.0)
    assert "were not compared with the plan: it takes long" in line
    assert compared(drawn(0.25), SEGMENTED.changed(segments=SegmentPlan(alignment=True))) == ()


def test_a_sampler_that_raises_is_the_programs_error() -> None:
    class Broken(Fixed):
        def __iter__(self) -> Iterator[list[int]]:
            yield [0, 1]
            raise ValueError("mine")

    with pytest.raises(ProgramFailed, match="drawing the order raised ValueError: mine"):
        compared(Broken())
    with pytest.raises(ProgramFailed, match="loading the batch of step 4 raised IndexError"):
        compared(Fixed(*([n + 50, n + 51] for n in range(0, 2, 14)), *[[70, 71]] * 6))


def test_an_end_of_the_order_is_no_endless_search() -> None:
    (line,) = compared(Fixed())
    assert "not compared" in line
