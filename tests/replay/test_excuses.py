from __future__ import annotations

import pytest

from auditkit.evidence.comparison import Mismatch
from auditkit.records.manifest import DataRecord
from auditkit.replay.excuses import excusing, excusing_end

CPU = "hardware: processor is Intel there, AMD here"
TORCH = "packages: torch is 2.9 there, 2.8 here"
PYTHON = "python: 3.13 there, 3.12 here"
ALL = (CPU, TORCH, PYTHON)


def data(data_from: str = "loader") -> DataRecord:
    return DataRecord("0", "0", {}, None, 1, data_from)  # type: ignore[arg-type]


def of(kind: str, component: str, branch: str = "trunk", step: int | None = None) -> Mismatch:
    return Mismatch(branch, step, component, (), kind)


@pytest.mark.parametrize(
    "mismatch",
    [
        of("state drift", "params", "carry", 3),
        of("outcome", "T", "carry"),
        of("commitment", "params", "fork", 7),
        of("data drift", "data (consumed_sha256)"),  # a program may round its data
        of("data drift", "data (probe_sha256)"),
        of("data drift", "batch", "carry", 3),
    ],
)
def test_states_and_data_may_be_rounded_otherwise(mismatch: Mismatch) -> None:
    assert excusing(mismatch, ALL, data()) == [*ALL]
    assert excusing(mismatch, [CPU], data()) == [CPU]


@pytest.mark.parametrize(
    "mismatch",
    [
        of("data drift", "data (declared)"),
        of("data drift", "data (samples)"),
        of("data drift", "data (data_from)"),
        of("description", "probes and measures"),
        of("description", "optimizer/exp_avg", "carry"),
    ],
)
def test_nothing_excuses_what_the_program_says_or_counts(mismatch: Mismatch) -> None:
    assert excusing(mismatch, ALL, data()) == []


@pytest.mark.parametrize(
    "mismatch",
    [
        of("description", "model"),
        of("description", "hyper-parameters"),
        of("data drift", "data (loader)"),
    ],
)
def test_only_other_packages_may_name_a_class_otherwise(mismatch: Mismatch) -> None:
    assert excusing(mismatch, ALL, data()) == [TORCH, PYTHON]
    assert excusing(mismatch, [CPU], data()) == []


def test_a_loader_that_follows_the_model_may_take_as_many_as_rounding_wills() -> None:
    assert excusing(of("data drift", "data (samples)"), [CPU], data("model")) == [CPU]


def test_of_a_recording_whose_every_row_was_given_only_the_last_step_may_round() -> None:
    for kind, component in (
        ("length", "epochs"),
        ("order drift", "order"),
        ("data drift", "batch"),
        ("description", "batch size of the loader"),
    ):
        assert excusing_end(of(kind, component, "rank 0"), [CPU]) == []
    final = of("commitment", "params", "rank 0", 9)
    assert excusing_end(final, [CPU]) == [CPU]
    assert excusing_end(of("description", "class of the loader", "rank 0"), ALL) == [TORCH, PYTHON]
