"""Look at a probe position by position, a few rows of it at a time.

Whatever is asked draws from a stream of its own, the same in every branch: a branch and the
control's weights beside it are asked alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from auditkit.errors import ProgramError
from auditkit.formats.outcome_names import RECALIBRATED, column_name, is_recalibrated
from auditkit.observe.rng.streams import seed_everything
from auditkit.program import position_blocks, position_scores
from auditkit.program.position_scores import Columns, Positions
from auditkit.program.probe import IGNORED, Probe
from auditkit.program.real_probabilities import require_probabilities
from auditkit.program.reference import Reference
from auditkit.records.observed import FIRST_POSITION_RECIPE, POSITION_RECIPE

#: What own and compared columns are computed by.
_RECIPES: Mapping[int, Any] = MappingProxyType(
    {FIRST_POSITION_RECIPE: position_scores, POSITION_RECIPE: position_blocks}
)


@dataclass(frozen=True)
class Beside:
    """What a look at a probe is to be compared with.

    Attributes:
        seed: The study seed.
        reference: The control: a complete one is compared with, and must give what it gave; any
            other is told both.
        recipe: How numbers a position are computed.
    """

    seed: int
    reference: Reference | None
    recipe: int = POSITION_RECIPE

    @property
    def control(self) -> Reference | None:
        """The control, where there is one to compare with."""
        return self.reference if self.reference is not None and self.reference.complete else None


def look_by_position(
    module: nn.Module, probe: Probe, table: str, beside: Beside
) -> dict[str, NDArray[Any]]:
    """The columns of a probe's table.

    Args:
        module: What the probe asks, as it is now.
        probe: A probe with scores by position.
        table: Name of the table, without its time.
        beside: What to compare it with.

    Raises:
        ProgramError: When the scores do not fit the labels.
        ProbeDisturbance: When the control's weights do not give what the control gave.
    """
    key = f"{probe.of or 'model'}{RECALIBRATED if is_recalibrated(table) else ''}"
    against, recipe = beside.control, _RECIPES[beside.recipe]
    is_control = against is not None and against.is_now(key, module)
    own: list[Columns] = []
    control: list[Columns] = []

    def look(number: int, rows: slice, inputs: Any) -> None:
        """At some rows, whose scores are given back before the next ones are asked for."""
        scores = _scores(module, probe, inputs, (beside.seed, number))
        positions = _positions(probe, rows, scores)
        if against is None:
            own.append(recipe.own_columns(scores, positions))
            return
        there = scores
        if not is_control:
            with against.asked(key, module):
                there = _scores(module, probe, inputs, (beside.seed, number))
        of_control, of_branch = recipe.compared_columns(there, scores, positions)
        own.append(of_branch)
        control.append(of_control)

    for number, (rows, inputs) in enumerate(probe.slices()):
        look(number, rows, inputs)
    found = _named(table, own)
    if against is not None:
        against.require_given(_named(table, control))
    elif beside.reference is not None:
        beside.reference.keep(key, module)
        beside.reference.given.update(found)
    return found


def _scores(module: nn.Module, probe: Probe, inputs: Any, part: tuple[int, int]) -> Tensor:
    seed, number = part
    seed_everything(seed, "probe", number)
    scores = probe.scores(module, inputs)
    if scores.ndim != 3 or scores.shape[2] < 2:
        raise ProgramError(
            "the probe must give one row of class scores a position",
            expected="(N, T, C) with C of at least 2",
            found=f"{tuple(scores.shape)}",
            hint="give Probe(predict=...) for models that return something else",
        )
    if probe.probabilities:
        require_probabilities(scores)
    return scores


def _positions(probe: Probe, rows: slice, scores: Tensor) -> Positions:
    """Where to look, of some rows."""
    if probe.labels is None:
        where = torch.ones(scores.shape[:2], dtype=torch.bool).nonzero()
        return Positions(where, torch.empty(0, dtype=torch.int64), probe.probabilities)
    labels = probe.labels[rows]
    if scores.shape[:2] != labels.shape:
        raise ProgramError(
            "the probe's scores are not of its labels' positions",
            expected=f"{(*labels.shape, 'C')}",
            found=f"{tuple(scores.shape)}",
            hint="a language model's labels are its inputs moved on by one: "
            "Probe(ids[:, :-1], ids[:, 1:])",
        )
    known = labels[labels != IGNORED]
    if len(known) and int(known.max()) >= scores.shape[2]:
        raise ProgramError(
            "a probe label is no class index",
            expected=f"0 .. {scores.shape[2] - 1}",
            found=int(known.max()),
        )
    return Positions((labels != IGNORED).nonzero(), known, probe.probabilities)


def _named(table: str, parts: list[Columns]) -> dict[str, NDArray[Any]]:
    names = {name for part in parts for name in part}  # a part may have no position
    return {
        column_name(table, name): np.concatenate(
            [part[name].numpy() for part in parts if name in part]
        )
        for name in sorted(names)
    }
