from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from typing import Any

import pytest
import record_examples
from record_examples import EXAMPLES

from auditkit import records
from auditkit.errors import AuditError
from auditkit.formats import canonical, structure
from auditkit.records.declaration import Declaration
from auditkit.records.digest import Digest
from auditkit.records.evidence import Trace
from auditkit.records.job import Job
from auditkit.records.manifest import SeedRecord
from auditkit.records.plan import StudyPlan
from auditkit.records.report import Finding, VerificationReport
from auditkit.records.tensor import FileColumn, FileTensor, RawTensor

#: Records that never stand in a JSON document: bytes and functions.
NOT_JSON: set[type[Any]] = {Trace, RawTensor, FileTensor, FileColumn, Declaration}


def record_classes() -> list[type[Any]]:
    found = set()
    for module in pkgutil.iter_modules(records.__path__, "auditkit.records."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and dataclasses.is_dataclass(value):
                found.add(value)
    return sorted(found, key=lambda cls: cls.__name__)


CLASSES = record_classes()


def test_there_are_records() -> None:
    assert {Digest, StudyPlan, SeedRecord, VerificationReport} <= set(CLASSES)
    assert len({cls.__name__ for cls in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_record_is_frozen(cls: type[Any]) -> None:
    assert cls.__dataclass_params__.frozen
    assert not [name for name in vars(cls) if name in ("read", "write", "save", "load")]


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls not in NOT_JSON])
def test_every_record_has_a_full_example(cls: type[Any]) -> None:
    examples = [record for record in EXAMPLES if type(record) is cls]
    assert examples, f"add an example of {cls.__name__} to {record_examples.__name__}.py"
    for field in dataclasses.fields(cls):
        values = [getattr(record, field.name) for record in examples]
        given = [v for v in values if v is not None and v not in ((), {})]
        assert given, f"no example of {cls.__name__} fills {field.name}"


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_survives_a_round_trip(record: Any) -> None:
    data = canonical.encode(record)
    again = canonical.decode(type(record), data, what="record")
    assert again == record
    assert [type(getattr(again, f.name)) for f in dataclasses.fields(record)] == [
        type(getattr(record, f.name)) for f in dataclasses.fields(record)
    ]
    assert canonical.encode(again) == data


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_refuses_a_field_too_many_and_one_too_few(record: Any) -> None:
    plain = structure.to_dict(record)
    with pytest.raises(AuditError, match="unknown field 'extra'"):
        structure.from_dict(type(record), {**plain, "extra": 1}, what="record")
    for field in dataclasses.fields(record)[:1]:
        if field.default is dataclasses.MISSING:
            del plain[field.name]
            with pytest.raises(AuditError, match=field.name):
                structure.from_dict(type(record), plain, what="record")


def test_two_unequal_records_have_unequal_bytes() -> None:
    encoded = [(type(record), canonical.encode(record)) for record in EXAMPLES]
    assert len(set(encoded)) == len(EXAMPLES)


def test_a_record_is_found_by_its_name() -> None:
    seed = next(record for record in EXAMPLES if isinstance(record, SeedRecord))
    assert seed.branch("control").role == "control"
    with pytest.raises(KeyError, match="nobody"):
        seed.branch("nobody")
    manifest = record_examples.MANIFEST
    assert manifest.file("seed-0000/fork.safetensors").role == "fork"
    with pytest.raises(KeyError, match="nothing"):
        manifest.file("nothing")
    recording = record_examples.RECORDING
    assert recording.file("code/digits.py").role == "code"
    with pytest.raises(KeyError, match="nothing"):
        recording.file("nothing")


def test_records_in_words() -> None:
    assert str(Digest("sha256/tensor-v1", "ab")) == "sha256/tensor-v1:ab"
    assert str(Finding("it differs")) == "it differs"
    assert str(Finding("it differs", "seed 0", 3, "params")) == "seed 0, step 3, params: it differs"
    told = Finding("step 2 made another params, seen before step 3", "seed 0", 3, "params")
    assert str(told) == f"seed 0: {told.message}"
    assert record_examples.REPORT.checks[0].name == "envelope"
    assert not record_examples.REPORT
    assert dataclasses.replace(record_examples.REPORT, exit_code=0)


def test_a_raw_tensor_knows_its_bytes() -> None:
    assert RawTensor("int64", (2,), bytes(16)).n_bytes == 16
    assert RawTensor("int64", (2,), memoryview(bytearray(16)).cast("q")).n_bytes == 16


def test_estimates_give_what_they_are_the_mean_of() -> None:
    table = next(r for r in EXAMPLES if type(r).__name__ == "EstimateTable")
    assert table.rows == (*table.signed, *table.distances)
    signed, distance = table.rows
    assert signed.test_p == signed.t_p
    assert signed.effect_per_seed == signed.per_seed
    assert distance.test_p == distance.permutation_p
    assert distance.effect_per_seed == (0.3 - 0.125,)  # the seed without a floor is left out


def test_a_job_has_defaults_only_for_what_not_every_job_has() -> None:
    required = [f.name for f in dataclasses.fields(Job) if f.default is dataclasses.MISSING]
    assert required == ["kind", "program", "plan", "seed", "out"]
