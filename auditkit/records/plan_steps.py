"""The steps of a study plan: forks, the end of the window, further times, the horizon."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from auditkit.errors import PlanError
from auditkit.records.plan_values import shown


def check_steps(forks: Sequence[int], window: int, horizon: int, probe_at: Sequence[int]) -> None:
    """Whether the times of a study follow each other.

    Args:
        forks: Steps after which the state is forked.
        window: Steps from a fork to the end of its window.
        horizon: The last step.
        probe_at: Further steps after which branches are evaluated.

    Raises:
        PlanError: When a step stands in the wrong place.
    """
    for fork in forks:
        if fork + window > horizon:
            which = "the window" if len(forks) == 1 else f"the window of the fork at step {fork}"
            raise PlanError(
                f"{which} ends at step {fork + window}, beyond the horizon {horizon}",
                hint="lower --fork-at or --window, or raise --horizon",
            )
    for step in probe_at:
        if not forks[0] < step < horizon or step == forks[0] + window:
            raise PlanError(
                f"probe_at: step {shown(step)} is no further step",
                expected=f"steps after t0 = {forks[0]} and before T = {horizon}, "
                f"other than t0+W = {forks[0] + window}",
            )
    for step, following in pairwise(probe_at):
        if following <= step:
            raise PlanError(
                f"probe_at: step {following} stands after {step}",
                expected="ascending steps, each once",
            )


def check_several(forks: Sequence[int], probe_at: Sequence[int], evidence_every: int) -> None:
    """Whether a study with several forks asks for nothing that only one fork has.

    Args:
        forks: Steps after which the state is forked.
        probe_at: Further steps after which branches are evaluated.
        evidence_every: Steps between rows that hold the state.

    Raises:
        PlanError: When it does, or a fork stands in the wrong place.
    """
    for step, following in pairwise(forks):
        if following <= step:
            raise PlanError(
                f"fork_at: step {shown(following)} stands after {shown(step)}",
                expected="ascending steps, each once",
            )
    if len(forks) == 1:
        return
    if probe_at:
        raise PlanError(
            "probe_at: a study with several forks is measured at t0+W and T only",
            hint="leave probe_at out, or make a study of each fork",
        )
    if evidence_every != 1:
        raise PlanError(
            "evidence_every: a study with several forks has evidence of every step",
            hint="leave evidence_every out, or make a study of each fork",
        )
