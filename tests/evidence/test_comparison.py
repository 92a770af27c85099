from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from auditkit.evidence.comparison import (
    Mismatch,
    compare_commitments,
    compare_inputs,
    compare_outcomes,
    compare_records,
    compare_traces,
    first_differing_module,
)
from auditkit.formats.run_files import Outcome
from auditkit.records.evidence import Trace
from auditkit.records.manifest import BranchRecord

STEPS = {"t0": 6, "t0+W": 9, "T": 14}


def make_trace(rows: int = 4, first: int = 7) -> Trace:
    columns = {
        name: b"".join(f"{name:>12}{row:04d}".encode() for row in range(rows))
        for name in ("order", "batch", "params", "rng/torch")
    }
    return Trace(first, bytes(range(8)) * rows, columns)


def with_cell(trace: Trace, step: int, *names: str) -> Trace:
    start = (step - trace.first_step) * 16
    changed = {
        name: trace.columns[name][:start] + b"x" * 16 + trace.columns[name][start + 16 :]
        for name in names
    }
    return replace(trace, columns={**trace.columns, **changed})


def make_outcome(**changes: float) -> Outcome:
    tables = {name: np.full((2, 2), 0.5, np.float32) for name in STEPS}
    for name, value in changes.items():
        tables[name] = np.array([[0.5 + value, 0.5 - value], [0.5, 0.5]], np.float32)
    return Outcome(np.array([0, 1]), tables)


RECORD = BranchRecord(
    name="carry",
    role="treatment",
    perturbation=None,
    version=1,
    trace="carry.trace",
    outcome="carry.outcome",
    order_sha256="0" * 64,
    digests={time: {"params": "1", "batchnorm": "2"} for time in STEPS},
)


def test_equal_traces_do_not_part() -> None:
    assert compare_traces("carry", make_trace(), make_trace()) is None


@pytest.mark.parametrize(
    ("names", "kind", "component"),
    [
        (("order", "batch", "params"), "order drift", "order"),
        (("batch", "params"), "data drift", "batch"),
        (("rng/torch", "params"), "RNG drift", "rng/torch"),
        # A row holds the streams from which its order and its batch were then drawn.
        (("order", "batch", "rng/torch"), "RNG drift", "rng/torch"),
    ],
)
def test_the_first_difference_is_classed_by_what_can_have_caused_what(
    names: tuple[str, ...], kind: str, component: str
) -> None:
    other = with_cell(with_cell(make_trace(), 9, *names), 10, "order")
    mismatch = compare_traces("carry", make_trace(), other)
    assert mismatch is not None
    assert (mismatch.branch, mismatch.step, mismatch.kind) == ("carry", 9, kind)
    assert (mismatch.component, len(mismatch.others)) == (component, len(names) - 1)


def test_streams_that_began_otherwise_come_before_what_was_drawn_from_them() -> None:
    trace = make_trace(first=1)
    mismatch = compare_traces("trunk", trace, with_cell(trace, 1, "order", "params", "rng/torch"))
    assert mismatch == Mismatch("trunk", 1, "rng/torch", ("order", "params"), "RNG drift")
    settings = replace(trace, columns={**trace.columns, "param_groups": bytes(64)})
    changed = with_cell(settings, 1, "order", "param_groups", "rng/torch")
    mismatch = compare_traces("trunk", trace, changed)  # no stream makes another setting
    assert mismatch == Mismatch("trunk", 1, "param_groups", ("rng/torch", "order"), "state drift")


def test_inputs_are_compared_behind_a_state_that_drifted() -> None:
    trace = make_trace()
    drifted = with_cell(trace, 8, "params")
    assert compare_inputs("carry", trace, drifted) is None
    mismatch = compare_inputs("carry", trace, with_cell(drifted, 9, "batch", "params"))
    assert mismatch == Mismatch("carry", 9, "batch", (), "data drift")
    mismatch = compare_inputs("carry", trace, with_cell(drifted, 10, "rng/torch"))
    assert mismatch == Mismatch("carry", 10, "rng/torch", (), "RNG drift")


def test_a_loss_is_no_input() -> None:
    trace = make_trace()
    assert compare_inputs("carry", trace, replace(trace, loss_bits=bytes(32))) is None


def test_other_components_and_other_steps_are_no_rounding() -> None:
    trace = make_trace()
    fewer = replace(trace, columns={n: c for n, c in trace.columns.items() if n != "params"})
    mismatch = compare_inputs("carry", trace, fewer)
    assert mismatch is not None
    assert (mismatch.component, mismatch.kind) == ("params", "length")
    mismatch = compare_inputs("carry", trace, make_trace(3))
    assert mismatch is not None
    assert (mismatch.step, mismatch.kind) == (10, "length")


def test_a_loss_alone_is_state_drift_at_its_own_step() -> None:
    trace = make_trace()
    other = replace(trace, loss_bits=trace.loss_bits[:8] + b"\1" * 8 + trace.loss_bits[16:])
    mismatch = compare_traces("carry", trace, other)
    assert mismatch is not None
    assert (mismatch.step, mismatch.component, mismatch.kind) == (8, "loss", "state drift")


def test_a_shorter_trace_parts_where_it_ends() -> None:
    mismatch = compare_traces("carry", make_trace(4), make_trace(3))
    assert mismatch is not None
    assert (mismatch.step, mismatch.component, mismatch.kind) == (10, "steps", "length")


def test_a_component_that_only_one_side_has_is_a_difference() -> None:
    trace = make_trace()
    fewer = replace(trace, columns={n: c for n, c in trace.columns.items() if n != "params"})
    mismatch = compare_traces("carry", trace, fewer)
    assert mismatch is not None
    assert (mismatch.step, mismatch.component) == (7, "params")


def test_outcomes_are_compared_by_their_bits() -> None:
    zero, negative = make_outcome(T=0.5), make_outcome(T=0.5)
    negative.tables["T"][0, 1] = -0.0
    assert np.array_equal(zero.tables["T"], negative.tables["T"])
    mismatch = compare_outcomes("carry", zero, negative)
    assert mismatch is not None
    assert (mismatch.component, mismatch.kind, mismatch.step) == ("T", "outcome", None)


def test_equal_outcomes_do_not_part_even_where_they_are_not_finite() -> None:
    left, right = make_outcome(), make_outcome()
    for outcome in (left, right):
        outcome.tables["T"][:] = np.nan
    assert compare_outcomes("carry", left, right) is None


def test_a_table_that_only_one_side_has_is_a_difference() -> None:
    fewer = make_outcome()
    fewer = replace(fewer, tables={k: v for k, v in fewer.tables.items() if k != "t0"})
    mismatch = compare_outcomes("carry", make_outcome(), fewer)
    assert mismatch is not None
    assert mismatch.component == "t0"


def test_other_labels_are_a_difference() -> None:
    mismatch = compare_outcomes(
        "carry", make_outcome(), replace(make_outcome(), labels=np.array([1, 0]))
    )
    assert mismatch is not None
    assert mismatch.component == "labels"


def test_commitments_are_compared_over_all_components() -> None:
    assert compare_commitments("fork", {"a": "1"}, {"a": "1"}, 7) is None
    mismatch = compare_commitments("fork", {"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "x"}, 7)
    assert mismatch == Mismatch("fork", 7, "b", ("c",), "commitment")


def test_records_part_at_the_first_time_whose_commitment_differs() -> None:
    later = {time: {**RECORD.digests[time]} for time in STEPS}
    for time in ("t0+W", "T"):
        later[time]["params"] = "x"
    mismatch = compare_records(RECORD, replace(RECORD, digests=later), STEPS)
    assert mismatch == Mismatch("carry", 9, "params", (), "commitment")


@pytest.mark.parametrize(
    ("changes", "component", "step"),
    [({"order_sha256": "1" * 64}, "order", None), ({"diverged_at": 12}, "loss", 12)],
)
def test_records_part_in_order_and_divergence(
    changes: dict[str, object], component: str, step: int | None
) -> None:
    mismatch = compare_records(RECORD, replace(RECORD, **changes), STEPS)  # type: ignore[arg-type]
    assert mismatch is not None
    assert (mismatch.component, mismatch.step) == (component, step)


def test_equal_records_do_not_part() -> None:
    assert compare_records(RECORD, replace(RECORD), STEPS) is None


def test_a_mismatch_reads_as_a_sentence() -> None:
    mismatch = Mismatch("carry", 9, "params", ("rng/torch",), "state drift")
    told = "step 8 made another params, seen before step 9 (state drift; also rng/torch)"
    assert str(mismatch) == told
    begun = replace(mismatch, others=(), at_start=True)
    assert str(begun) == "it begins with another params, before step 9 (state drift)"
    order = Mismatch("carry", 9, "order/val", (), "order drift")
    assert str(order).startswith("step 9 took other samples, or in another order of the loader val")
    given = Mismatch("carry", 9, "batch/delivered", (), "data drift")
    assert str(given).startswith("step 9 took another batch from its loader: the same samples")
    assert (
        str(Mismatch("carry", 9, "loss", (), "state drift"))
        == "step 9 gave another loss (state drift)"
    )
    assert (
        str(Mismatch("carry", 9, "steps", (), "length")) == "one of the two has no step 9 (length)"
    )
    assert (
        str(Mismatch("carry", 9, "params", ("x",), "commitment"))
        == "commitment: params is another (also x)"
    )


MODULES = (("<batch>", "1"), ("first output", "2"), ("drop output", "3"), ("gradient", "4"))


def test_the_first_module_is_the_one_whose_digest_differs() -> None:
    other = (*MODULES[:2], ("drop output", "x"), ("gradient", "y"))
    assert first_differing_module(MODULES, other) == "drop output"


def test_equal_runs_have_no_first_module() -> None:
    assert first_differing_module(MODULES, MODULES) is None


def test_modules_in_another_order_are_told() -> None:
    other = (MODULES[0], MODULES[2], MODULES[1], MODULES[3])
    assert (
        first_differing_module(MODULES, other)
        == "first output ran here where drop output ran there"
    )


@pytest.mark.parametrize("swapped", [False, True])
def test_a_module_that_ran_in_one_run_only_is_told(swapped: bool) -> None:
    pair = (MODULES[:3], MODULES) if swapped else (MODULES, MODULES[:3])
    assert first_differing_module(*pair) == "gradient, which ran in only one of the two"
