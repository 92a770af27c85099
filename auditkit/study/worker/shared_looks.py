"""One look at a probe for all that look at one state: of several forks, the trunk's end is one.

A probe is a function of the state: what it leaves behind is compared with what it found
(:mod:`auditkit.study.stages.evaluator`), and every fork's replica, which looks for itself in a
process of its own, must give the control's tables bit for bit (check 9). So a state whose
commitments are those of the last look need not be looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from auditkit.program.reference import Reference

Look = tuple[dict[str, NDArray[Any]], Reference | None]


@dataclass
class SharedLooks:
    """The last look, and what was looked at.

    Attributes:
        several: Whether there is anyone else to look: else nothing is kept, which may be large.
        commitments: SHA-256 of every component, and of probe and recalibration batches.
    """

    several: bool = False
    commitments: tuple[Mapping[str, str], ...] = ()
    _found: Look = field(default=({}, None), repr=False)

    def at(
        self,
        commitments: tuple[Mapping[str, str], ...],
        reference: Reference | None,
        look: Callable[[Reference | None], dict[str, NDArray[Any]]],
    ) -> Look:
        """The tables of a state, and what others are compared with.

        Args:
            commitments: To the state, probe and recalibration batches.
            reference: To be told the control, where that is asked for.
            look: Looks at the live program.
        """
        if not self.several:
            return look(reference), reference
        tables, told = self._found
        if self.commitments != commitments or (told is None and reference is not None):
            tables, told = self._found = look(reference), reference
            self.commitments = commitments
        return dict(tables), told
