from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from studies import CallbackSpy, tiny_session
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from auditkit.errors import ProgramError, ProgramFailed
from auditkit.program.program import Program
from auditkit.study.stages.auditor import Auditor
from auditkit.study.stages.holder import hold

Change = Callable[[Program], Program]


class Nothing(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(())


class Broken(Dataset[Tensor]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        raise OSError("disk on fire")


def held(change: Change, last: int = 6) -> CallbackSpy:
    looker = CallbackSpy()
    with tiny_session(change) as session:
        hold(session, 1, last, Auditor(1), looker)
    return looker


def raising(what: str) -> Callable[..., Any]:
    def call(*_: Any) -> Any:
        raise KeyError(what)

    return call


def test_every_step_is_cut_consumed_and_taken_in_turn() -> None:
    looker = held(lambda program: program, last=6)
    # Once more where an epoch turns out to be over: before the first, and after batch 4.
    assert looker.boundaries == [1, 1, 2, 3, 4, 5, 5, 6]
    assert [delivery.epoch for delivery in looker.deliveries] == [0, 0, 0, 0, 1, 1]
    assert [len(delivery.batch[0]) for delivery in looker.deliveries] == [4, 4, 4, 2, 4, 4]
    assert all(isinstance(loss, float) for loss in looker.losses)


def test_every_epoch_ends_once() -> None:
    ended: list[int] = []
    held(lambda p: replace(p, on_epoch_end=lambda _, epoch: ended.append(epoch)), last=9)
    assert ended == [0, 1]


def test_a_step_of_ones_own_is_told_its_number_and_may_give_no_loss() -> None:
    numbers: list[int] = []
    looker = held(lambda p: replace(p, step=lambda _, batch, t: numbers.append(t)), last=5)
    assert numbers == [1, 2, 3, 4, 5]
    assert looker.losses == [None] * 5


@pytest.mark.parametrize(
    "loader",
    [
        lambda: DataLoader(Nothing()),
        lambda: DataLoader([torch.zeros(2)], batch_size=4, drop_last=True),  # type: ignore[arg-type]
    ],
    ids=["iterable", "drop_last"],
)
def test_a_loader_that_yields_no_batch_is_an_error(loader: Callable[[], Any]) -> None:
    with pytest.raises(ProgramError, match="the data loader yields no batch") as caught:
        held(lambda program: replace(program, loader=loader()))
    assert caught.value.step == 1


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda p: replace(p, loss=raising("gone")), "step 1 raised KeyError: 'gone'"),
        (lambda p: replace(p, step=raising("gone")), "step 1 raised KeyError: 'gone'"),
        (
            lambda p: replace(p, on_epoch_end=raising("gone")),
            "the end of epoch 0 raised KeyError: 'gone'",
        ),
        (
            lambda p: replace(p, loader=DataLoader(Broken(), batch_size=4)),
            "loading the batch of step 1 raised OSError: disk on fire",
        ),
    ],
    ids=["loss", "step", "epoch", "dataset"],
)
def test_a_program_that_raises_is_told_in_one_line_with_its_place(
    change: Change, what: str
) -> None:
    with pytest.raises(ProgramFailed) as caught:
        held(change)
    assert what in caught.value.message
    file, _, line = (caught.value.where or "").partition(":")
    assert file == "test_holder.py"
    assert line.isdecimal()


def test_a_program_that_raises_in_a_loader_worker_is_told_too() -> None:
    def change(program: Program) -> Program:
        return replace(program, loader=DataLoader(Broken(), batch_size=4, num_workers=1))

    with pytest.raises(ProgramFailed, match="OSError"):
        held(change)
