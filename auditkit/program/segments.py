"""Batches of a back-flow study: a trunk's, then those of two segments whose indices are drawn.

Segment A is t0+1 to t0+W, segment B what comes after it. Each is a set of indices, gone through
again at every pass; B has a stated share of A's indices, and where that is asked A's classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, repeat
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from auditkit.errors import ProgramError
from auditkit.formats.quote import class_of
from auditkit.formats.seeds import derive_seed
from auditkit.records.plan_values import shown


class Segments(Sampler[list[int]]):
    """A ``batch_sampler``: the trunk's batches, then A and B, each ``steps`` batches.

    All of it is one epoch, and follows from the arguments alone.

    Args:
        trunk: Batches of indices, such as a ``BatchSampler``; iterated again as often as it takes.
        labels: The class of every sample, a number each.
        fork_at: Batches of the trunk.
        steps: Batches of a segment.
        batch_size: Indices of a batch of the segments.
        batches: How many different batches a segment has; a pass goes through them in their order.
        overlap: Share of A's indices that B has, too; rounded down to whole indices.
        same_classes: Whether B has as many indices of each class as A.
        seed: What is drawn follows from it.

    Attributes:
        first: The indices of A.
        second: The indices of B.

    Raises:
        ProgramError: When there are too few samples, or a number is none that fits.
    """

    def __init__(  # noqa: PLR0913 # one argument a choice
        self,
        trunk: Iterable[Sequence[int]],
        labels: Any,
        *,
        fork_at: int,
        steps: int,
        batch_size: int,
        seed: int,
        batches: int = 1,
        overlap: float = 0.0,
        same_classes: bool = False,
    ) -> None:
        counts = {"fork_at": fork_at, "steps": steps, "batch_size": batch_size, "batches": batches}
        _check_numbers(counts, seed, overlap)
        if batches > steps:
            raise ProgramError(
                f"Segments: batches is {batches}, and a segment of {steps} steps has no more"
            )
        classes = _classes(labels)
        size = batch_size * batches
        if size > len(classes):
            raise ProgramError(
                f"Segments: a segment has {size} indices, and there are {len(classes)} samples"
            )
        self.trunk, self.fork_at, self.steps, self.batch_size = trunk, fork_at, steps, batch_size
        generator = torch.Generator().manual_seed(derive_seed(seed, "segments") % 2**63)
        order = torch.randperm(len(classes), generator=generator)
        first, others = order[:size], order[size:]
        kept = first[torch.randperm(size, generator=generator)[: int(overlap * size)]]
        others = others[torch.randperm(len(others), generator=generator)]
        if same_classes:
            drawn = _of_classes(others, classes, _lacking(first, kept, classes))
        else:
            drawn = others[: size - len(kept)]
            if len(drawn) < size - len(kept):
                raise _too_few(size - len(kept), len(drawn), "")
        second = torch.cat([kept, drawn])
        second = second[torch.randperm(size, generator=generator)]
        self.first: list[int] = first.tolist()
        self.second: list[int] = second.tolist()

    def __iter__(self) -> Iterator[list[int]]:
        """The batches."""
        trunk = chain.from_iterable(map(_batches, repeat(self.trunk)))
        yield from islice(trunk, self.fork_at)
        for indices in (self.first, self.second):
            cut = [
                indices[start : start + self.batch_size]
                for start in range(0, len(indices), self.batch_size)
            ]
            for step in range(self.steps):
                yield list(cut[step % len(cut)])

    def __len__(self) -> int:
        """How many there are."""
        return self.fork_at + 2 * self.steps


def _batches(trunk: Iterable[Sequence[int]]) -> Iterator[list[int]]:
    """One pass through the trunk.

    Raises:
        ProgramError: When it has no batch, so that there would be no end.
    """
    found = False
    for batch in trunk:
        found = True
        yield list(batch)
    if not found:
        raise ProgramError("Segments: the trunk has no batch (left)", hint="give a BatchSampler")


def _check_numbers(counts: Mapping[str, Any], seed: Any, overlap: Any) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ProgramError(f"Segments: {name} is {shown(value)}, not 1 or more")
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise ProgramError(f"Segments: seed is {shown(seed)}, not a whole number")
    if not isinstance(overlap, (int, float)) or not 0 <= overlap <= 1:
        raise ProgramError(f"Segments: overlap is {shown(overlap)}, not 0 to 1")


def _classes(labels: Any) -> Tensor:
    try:
        found = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ProgramError(
            "Segments: labels are no numbers", found=class_of(labels), hint="one class a sample"
        ) from error
    if found.ndim != 1 or found.is_floating_point() or found.is_complex():
        raise ProgramError(
            "Segments: labels are one whole number a sample",
            found=f"{found.dtype} of shape {tuple(found.shape)}",
        )
    return found.long().cpu()


def _lacking(first: Tensor, kept: Tensor, classes: Tensor) -> dict[int, int]:
    """How many indices of each class of A are not kept."""
    every = torch.unique(classes[first], return_counts=True)
    wanted = dict(zip(*(part.tolist() for part in every), strict=True))
    for label in classes[kept].tolist():
        wanted[label] -= 1
    return wanted


def _of_classes(others: Tensor, classes: Tensor, wanted: dict[int, int]) -> Tensor:
    drawn = []
    for label, count in wanted.items():
        found = others[classes[others] == label][:count]
        if len(found) < count:
            raise _too_few(count, len(found), f" of class {label}")
        drawn.append(found)
    return torch.cat(drawn)


def _too_few(wanted: int, found: int, which: str) -> ProgramError:
    return ProgramError(
        f"Segments: B needs {wanted} samples{which} that A does not have, and there are {found}",
        hint="a smaller batch_size, fewer batches, or a larger overlap",
    )
