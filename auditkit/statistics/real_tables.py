"""Tables of a study that hold no probabilities, and in which unit predictions are apart.

Two predictions of 3.1 and 3.2 are near or far by what is measured. The unit here is how far seeds
spread the predictions of their controls, each output by itself: 1 says that two branches differ by
as much as a prediction varies from seed to seed (one standard deviation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.errors import FormatError
from auditkit.records.output_kinds import EMBEDDING, REGRESSION
from auditkit.statistics.embeddings import DISTANCES_OF_EMBEDDINGS, is_collapsed
from auditkit.statistics.real_outputs import (
    CONSTANT_TARGETS,
    Reals,
    has_constant_output,
    own_spread,
    rmsd,
    root_mean_square,
    seed_spread,
    signed_of_reals,
)

#: A spread this small beside the predictions themselves is made by rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class RealTable:
    """A table of outputs that are no probabilities.

    Attributes:
        kind: ``regression`` or ``embedding``.
        values: float32 ``(N, D)``.
    """

    kind: str
    values: NDArray[Any]

    def __len__(self) -> int:
        """N."""
        return len(self.values)

    def signed(self, targets: NDArray[Any]) -> dict[str, float]:
        """Every signed metric that there is.

        Raises:
            FormatError: On targets of another shape, or what is not finite.
        """
        return signed_of_reals(self.values, targets) if self.kind == REGRESSION else {}

    def distances(self, branch: RealTable, scale: Reals | None) -> dict[str, float]:
        """Every distance of a branch's table from this one, the control's.

        Args:
            branch: Its table.
            scale: What ``scaled_rmsd`` is in units of; None where there is no such unit.

        Raises:
            FormatError: When they are no tables of one probe.
        """
        if self.kind != branch.kind:
            raise FormatError(f"a table of {branch.kind} stands beside one of {self.kind}")
        here, there = self.values, branch.values
        if self.kind == EMBEDDING:
            return {name: metric(here, there) for name, metric in DISTANCES_OF_EMBEDDINGS.items()}
        scaled = {} if scale is None else {"scaled_rmsd": rmsd(here, there, scale)}
        return {"rmsd": rmsd(here, there), **scaled}

    def growth(self, distances: Mapping[str, float], scale: Reals | None) -> float | None:
        """By how much of its own size a nudge has moved this table, the control's.

        Args:
            distances: Of the nudged branch from it.
            scale: As for :meth:`distances`.

        Returns:
            None where it cannot be said: it moved, and the table has no size of any kind.
        """
        if self.kind == EMBEDDING:
            return distances["relative_distance"]
        moved, (unit, _) = distances["rmsd"], self.size(scale)
        if not moved:
            return 0.0
        return moved / unit if unit else None

    def size(self, scale: Reals | None) -> tuple[float, str]:
        """What predictions are large or small beside, and what that is for people.

        Their own spread over the examples; of one example, or equal ones, it is nothing but
        rounding, and how far seeds are apart says more; without that, how large they are.
        """
        own, whole = own_spread(self.values), root_mean_square(self.values)
        if own and own >= _ROUNDING * whole:
            return own, "the predictions' own SD"
        if scale is not None:
            return float(np.sqrt(np.square(scale).mean())), "the seeds' SD of the predictions"
        return whole, "the predictions' own size"


def growth_named(controls: Sequence[Any], scale: Reals | None, usual: str) -> str:
    """What of a probe must have grown, for people.

    Args:
        controls: The table of each seed's control that stands.
        scale: As for :meth:`RealTable.distances`.
        usual: What it is for most tables of this kind.
    """
    real = [each for each in controls if isinstance(each, RealTable) and each.kind == REGRESSION]
    units = dict.fromkeys(each.size(scale)[1] for each in real)
    return f"an RMSD over {' or '.join(units)} of" if units else usual


def scale_of(controls: Sequence[Any], targets: Sequence[NDArray[Any]]) -> Reals | str:
    """The unit of ``scaled_rmsd`` for one table of a regression probe.

    Args:
        controls: The table of each seed's control that stands.
        targets: What is right, by seed.

    Returns:
        ``(D,)``, or why there is none.

    Raises:
        FormatError: On what is not finite.
    """
    if len(controls) < 2:
        return "fewer than two controls, so no spread between seeds"
    tables = [control.values for control in controls]
    is_one = all(table.shape == tables[0].shape for table in tables)
    if not is_one or not all(np.array_equal(targets[0], each) for each in targets):
        return "the probe differs between seeds"
    spread = seed_spread(tables)
    still = int((spread == 0).sum())
    if still:
        return (
            f"the controls of all seeds predict the same in {still} of {len(spread)} outputs: "
            "a spread of 0"
        )
    return spread


def why_no_r2(targets: Sequence[NDArray[Any]]) -> str | None:
    """Why ``r2`` does not exist; None where it does."""
    is_constant = any(each.size and has_constant_output(each) for each in targets)
    return CONSTANT_TARGETS if is_constant else None


def collapsed(tables: Sequence[Any]) -> int:
    """How many of some tables are embeddings that are all one point."""
    found = [table for table in tables if isinstance(table, RealTable) and table.kind == EMBEDDING]
    return sum(is_collapsed(table.values) for table in found)
