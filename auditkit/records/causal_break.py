"""The causal break: the memory is reset at the window's end, in the control and in every branch.

A study that names one has each branch twice (the replica excepted): as it is, and *broken*. Both
are the same up to the end of the window; there the break is applied to the broken one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from auditkit.errors import PlanError

#: What stands behind the name of a broken branch.
BROKEN = "~broken"

#: Resets all that an optimizer accumulates. One that accumulates nothing is reset already, so that
#: this alone may find nothing to change: that is the answer of a learner without memory.
VACUOUS = "optimizer-reset"


@dataclass(frozen=True)
class BreakRecord:
    """What was done to a broken branch at t0+W.

    Attributes:
        version: The break's declared version.
        digests: ``sha256/tensor-v1`` by component, after it.
        reset: What it changed in the optimizer's groups and plain attributes, by path.
    """

    version: int
    digests: dict[str, str]
    reset: tuple[str, ...] = ()


def broken(name: str) -> str:
    """The name of the broken counterpart of a branch."""
    return f"{name}{BROKEN}"


def unbroken(name: str) -> str:
    """The name of the branch that a broken one is the counterpart of; any other name as it is."""
    return name.removesuffix(BROKEN)


def check_break(has_break: bool, forks: Sequence[int], window_end: int, horizon: int) -> None:
    """Whether the steps of a study leave room for its causal break, if it has one.

    Raises:
        PlanError: When no step comes after it, or there are several forks.
    """
    if has_break and window_end == horizon:
        raise PlanError(
            f"causal_break: it is applied after step {window_end}, and no step comes after it",
            hint="raise --horizon: the steps behind the window are the second segment",
        )
    if has_break and len(forks) > 1:
        raise PlanError(
            "causal_break: a study with several forks has none",
            hint="make a study of each fork",
        )
