"""Where a program's data come from: a loader, or its own step; and who decides which they are."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from auditkit.errors import ProgramError

#: What ``Program(data_from=...)`` may be.
DATA_FROM = ("loader", "model")


class Sourced(Protocol):
    """What is looked at here of a program."""

    @property
    def loader(self) -> Any: ...  # noqa: D102
    @property
    def step(self) -> Any: ...  # noqa: D102
    @property
    def scheduler(self) -> Any: ...  # noqa: D102
    @property
    def scheduler_interval(self) -> str: ...  # noqa: D102
    @property
    def on_epoch_end(self) -> Any: ...  # noqa: D102
    @property
    def data_from(self) -> Literal["loader", "model"]: ...  # noqa: D102
    @property
    def augment(self) -> Any: ...  # noqa: D102
    @property
    def steps_per_epoch(self) -> int | None: ...  # noqa: D102


def data_source(program: Sourced) -> Literal["loader", "model", "step"]:
    """``step`` without a loader; else ``loader``, or ``model`` where that decides what it yields.

    Whatever is not ``loader`` may differ between branches: their own course makes it.
    """
    return "step" if program.loader is None else program.data_from


def check_data_source(program: Sourced) -> None:
    """Require what a program says of its data to make sense together.

    Raises:
        ProgramError: When it does not.
    """
    length = program.steps_per_epoch
    if program.loader is not None:
        if length is not None:
            raise ProgramError(
                "steps_per_epoch is for programs with loader=None",
                hint="a loader says itself when an epoch ends",
            )
        return
    if program.step is None:
        raise ProgramError(
            "Program(loader=None) needs step=: nothing else says what is trained on",
            hint="step(program, None, t) does one step, and says by auditkit.consume(indices, "
            "batch) what it consumes",
        )
    if program.augment is not None:
        raise ProgramError(
            "Program(augment=...) is for batches that a loader delivers",
            hint="without a loader the step augments what it consumes itself",
        )
    if length is not None and (type(length) is not int or length < 1):
        raise ProgramError(f"steps_per_epoch must be a whole number of at least 1, not {length!r}")
    has_epochs = program.on_epoch_end is not None or (
        program.scheduler is not None and program.scheduler_interval == "epoch"
    )
    if has_epochs and length is None:
        raise ProgramError(
            "without a loader no epoch ends by itself, and something is due at its end",
            expected="Program(steps_per_epoch=N)",
        )
