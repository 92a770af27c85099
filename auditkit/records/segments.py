"""What a plan says of two segments: A, the window t0+1 to t0+W, and B, what follows up to T."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

from auditkit.errors import PlanError
from auditkit.records.plan_values import shown


@dataclass(frozen=True)
class SegmentPlan:
    """What is held, and measured, of segments A and B; nothing where all of it is left out.

    Attributes:
        overlap: Share of A's indices that B has, too, rounded down to whole indices; None where
            nothing is said of it.
        same_classes: Whether B has as many different samples of each class as A.
        hold_batchnorm: Whether BatchNorm's running statistics are held from t0 on: its layers are
            in evaluation mode in every step, use them, and leave them.
        alignment: Whether the cosine of momentum and gradient is measured at B's first optimizer
            step.

    Raises:
        PlanError: When one is of another kind.
    """

    overlap: float | None = None
    same_classes: bool = False
    hold_batchnorm: bool = False
    alignment: bool = False

    def __post_init__(self) -> None:
        overlap = self.overlap
        is_number = isinstance(overlap, (int, float)) and not isinstance(overlap, bool)
        if overlap is not None and not (is_number and 0 <= overlap <= 1):
            raise PlanError(f"segments: overlap is 0 to 1, not {shown(overlap)}")
        if overlap is not None:
            object.__setattr__(self, "overlap", float(overlap))
        for name in ("same_classes", "hold_batchnorm", "alignment"):
            if not isinstance(getattr(self, name), bool):
                raise PlanError(f"segments: {name} is True or False")

    @property
    def told(self) -> str:
        """All that it asks for, for people."""
        parts = [
            "" if self.overlap is None else f"B has a share of {self.overlap:g} of A's indices",
            "B has A's classes" if self.same_classes else "",
            "BatchNorm's statistics are held from t0 on" if self.hold_batchnorm else "",
            "momentum against gradient is measured" if self.alignment else "",
        ]
        return "; ".join(filter(None, parts))

    def shared(self, n_indices: int) -> int | None:
        """How many of A's so many indices B must have; None where nothing is said of it."""
        return None if self.overlap is None else int(self.overlap * n_indices)


def overlap_fault(
    segments: SegmentPlan, first: Collection[int], second: Collection[int]
) -> str | None:
    """What is wrong with the share that B has of A's indices; None where it is as planned."""
    wanted, found = segments.shared(len(set(first))), len(set(first) & set(second))
    if wanted is None or wanted == found:
        return None
    return f"segment B has {found} of A's {len(set(first))} indices, and the plan says {wanted}"


def check_segments(segments: object, forks: Sequence[int], window_end: int, horizon: int) -> None:
    """Whether the steps of a study leave room for its segments, if it says something of them.

    Raises:
        PlanError: When no step comes after the window, there are several forks, or they are of
            another kind.
    """
    if segments is None:
        return
    if not isinstance(segments, SegmentPlan):
        raise PlanError("segments: not a SegmentPlan", expected="auditkit.SegmentPlan(...)")
    if all(getattr(segments, item.name) == item.default for item in fields(segments)):
        raise PlanError("segments: nothing is said of them", hint="leave segments out")
    if window_end == horizon:
        raise PlanError(
            f"segments: B begins after step {window_end}, and no step comes after it",
            hint="raise --horizon: the steps behind the window are segment B",
        )
    if len(forks) > 1:
        raise PlanError(
            "segments: a study with several forks has none", hint="make a study of each fork"
        )
