"""What tells by the manifest alone that two seeds of a study are one.

What a seed decides is drawn: an initialisation, an order, dropout. Two seeds whose controls went
through the same training decided nothing, however many labels they carry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from auditkit.records.manifest import SeedRecord

#: Samplers of torch whose order is drawn at random; every other order is the program's own, and
#: may well be the same for all seeds.
DRAWING_SAMPLERS = frozenset(
    ["RandomSampler", "SubsetRandomSampler", "WeightedRandomSampler", "DistributedSampler"]
)

#: Slots of optimizers that add up gradients. They exist for parameters that had a gradient, and
#: for no others; counters and schedules, which are the same for all seeds, are not among them.
_MOMENTS = frozenset(
    [
        *("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "sum"),
        *("square_avg", "grad_avg", "acc_delta", "row_var", "col_var", "variance", "prev", "ax"),
    ]
)


def is_drawn(loader: Mapping[str, str]) -> bool:
    """Whether the order of a loader, as a manifest describes it, is drawn at random."""
    return loader.get("sampler") in DRAWING_SAMPLERS


def training_marks(record: SeedRecord) -> dict[str, str]:
    """What was trained, by name, as digests that no other seed has.

    The weights as a whole, and what the optimizer added up of the gradients: the latter are the
    same for two runs that differ in nothing but weights which no gradient ever reached. What did
    not move while the control trained says nothing and is left out.
    """
    digests = record.branches[0].digests
    at_fork, at_end = digests.get("t0", {}), digests.get("T", {})
    marks = {}
    for name in (name for name in at_end if name == "params" or name.startswith("params/")):
        if at_end[name] not in ("", record.initial.get(name), at_fork.get(name)):
            marks[name.replace("params", "parameters", 1)] = at_end[name]
    for name, digest in at_end.items():
        section, _, slot = name.rpartition("/")
        is_moment = section.partition("/")[0] == "optimizer" and slot in _MOMENTS
        if is_moment and digest != at_fork.get(name):
            marks[name] = digest
    return marks


def equal_seeds(seeds: Iterable[SeedRecord]) -> dict[tuple[int, int], list[str]]:
    """Pairs of seeds that trained alike, by the manifest alone, and in what."""
    first: dict[tuple[str, str], int] = {}
    found: dict[tuple[int, int], list[str]] = {}
    for record in seeds:
        marks = training_marks(record)
        if is_drawn(record.data.loader) and (record.data.samples or 0) >= 64:
            marks["order"] = record.order_sha256
        for name, mark in marks.items():
            seed = first.setdefault((name, mark), record.seed)
            if seed != record.seed:
                found.setdefault((seed, record.seed), []).append(name)
    return found
