"""What makes two seeds one, at its edges; the studies are among the attacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from record_examples import MANIFEST

from auditkit.records.manifest import SeedRecord
from auditkit.records.replication import equal_seeds, training_marks
from auditkit.verification.replication import _says_something, _was_learned

FIRST = MANIFEST.seeds[0]


def trained(seed: int, **end: str) -> SeedRecord:
    """A seed whose control began at t0 with other digests than it ended with."""
    control = FIRST.branches[0]
    digests = {"t0": dict.fromkeys(end, "1" * 64), "t0+W": {}, "T": end}
    return replace(FIRST, seed=seed, initial={}, branches=(replace(control, digests=digests),))


def test_what_moved_while_the_control_trained_tells_seeds_apart() -> None:
    still = trained(0, params="1" * 64)
    assert training_marks(still) == {}
    record = trained(0, **{"params": "2" * 64, "optimizer/exp_avg": "3" * 64})
    assert training_marks(record) == {"parameters": "2" * 64, "optimizer/exp_avg": "3" * 64}


def test_named_groups_of_weights_are_marks_too() -> None:
    record = trained(0, **{"params/student": "2" * 64, "params/teacher": "3" * 64})
    assert training_marks(record) == {
        "parameters/student": "2" * 64,
        "parameters/teacher": "3" * 64,
    }


@pytest.mark.parametrize(
    "name", ["optimizer/step", "optimizer/mu_product", "rng/torch", "norm/sum"]
)
def test_counters_schedules_and_other_components_are_no_marks(name: str) -> None:
    assert training_marks(trained(0, **{name: "2" * 64})) == {}


def test_seeds_that_are_one_are_named_with_what_is_the_same() -> None:
    slots = {"optimizer/momentum_buffer": "3" * 64}
    seeds = [trained(n, params=str(n) * 64, **slots) for n in (4, 5)]
    assert equal_seeds(seeds) == {(4, 5): ["optimizer/momentum_buffer"]}


def test_a_drawn_order_is_one_too_and_another_is_not() -> None:
    drawn = replace(FIRST.data, loader={"sampler": "RandomSampler"}, samples=64)
    own = replace(drawn, loader={"sampler": "SequentialSampler"})
    for data, found in ((drawn, {(0, 1): ["order"]}), (own, {})):
        seeds = [replace(trained(n), data=data) for n in (0, 1)]
        assert equal_seeds(seeds) == found


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ([[0.25, 0.75], [0.5, 0.5]], True),
        ([[0, 1], [1, 0]], False),
        ([[0.5, 0.5], [0.5, 0.5]], False),
        ([[np.nan, 1], [0.5, 0.5]], False),
    ],
)
def test_a_table_that_many_models_give_says_nothing(table: list[list[float]], says: bool) -> None:
    assert _says_something(np.array(table, dtype=np.float32)) == says


@pytest.mark.parametrize(
    ("end", "began", "says"),
    [
        ([[3.0], [5.0]], [[3.0], [4.0]], True),
        ([[3.0], [5.0]], [[3.0], [5.0]], False),  # a part of the model that is not trained
        ([[3.0], [5.0]], None, False),
        ([[3.0], [3.0]], [[2.0], [1.0]], False),
        ([[np.inf], [3.0]], [[2.0], [1.0]], False),
    ],
)
def test_real_numbers_say_something_where_they_were_learned(
    end: list[list[float]], began: list[list[float]] | None, says: bool
) -> None:
    first = None if began is None else np.array(began, dtype=np.float32)
    assert _was_learned(np.array(end, dtype=np.float32), first) == says
