from __future__ import annotations

import contextlib
import copy
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.errors import SchemaError
from auditkit.formats import canonical, structure
from auditkit.records.plan import DISTANCE_METRICS, SIGNED_METRICS, PerturbationSpec, StudyPlan


@dataclass(frozen=True)
class Inner:
    name: str
    flag: bool = False


@dataclass(frozen=True)
class Outer:
    count: int
    ratio: float
    kind: Literal["a", "b"]
    pair: tuple[int, float]
    names: tuple[str, ...] = ()
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    table: dict[str, str | int] = field(default_factory=dict)
    nested: dict[str, dict[str, float | None]] = field(default_factory=dict)
    anything: object = None


OUTER = Outer(1, 0.5, "a", (2, 3.0), ("x",), Inner("i"), (Inner("j", True),), {"k": 2**63}, {})


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)
texts = st.text(max_size=20)
inners = st.builds(Inner, texts, st.booleans())
finite = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers() | st.integers(-(2**70), 2**70)
outers = st.builds(
    Outer,
    integers,
    finite | st.integers(-(2**53), 2**53),
    st.sampled_from(["a", "b"]),
    st.tuples(integers, finite),
    st.lists(texts).map(tuple),
    st.none() | inners,
    st.lists(inners, max_size=3).map(tuple),
    st.dictionaries(texts, integers | st.text(alphabet="abc-. ", max_size=9)),
    st.dictionaries(texts, st.dictionaries(texts, st.none() | finite)),
)
plans = st.builds(
    StudyPlan,
    st.integers(1, 99),
    st.integers(1, 99),
    st.integers(198, 10**9),
    st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=9, unique=True),
    st.lists(
        st.builds(
            PerturbationSpec,
            st.sampled_from(["carry", "ulp", "adam-reset"]),
            st.dictionaries(st.sampled_from(["draw", "moments"]), integers | st.just("mv")),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda spec: spec.branch_name,
    ),
    margins=st.dictionaries(
        st.sampled_from([*SIGNED_METRICS, *DISTANCE_METRICS]),
        st.floats(min_value=1e-300, max_value=0.999),
    ),
)


@given(outers)
def test_records_round_trip_through_dicts_and_bytes(record: Outer) -> None:
    assert structure.from_dict(Outer, structure.to_dict(record), what="r") == record
    data = canonical.encode(record)
    again = canonical.decode(Outer, data, what="r")
    assert again == record
    assert canonical.encode(again) == data


@given(plans)
def test_plans_round_trip_through_their_own_constructor(plan: StudyPlan) -> None:
    assert structure.from_dict(StudyPlan, structure.to_dict(plan), what="plan") == plan
    assert canonical.decode(StudyPlan, canonical.encode(plan), what="plan") == plan


def test_the_dict_of_a_plan_is_plain() -> None:
    plan = StudyPlan(1, 2, 3, range(2), ["adam-reset:moments=m", "carry"], margins={"nll": 1})
    plain = structure.to_dict(plan)
    assert plain["seeds"] == [0, 1]
    assert plain["perturbations"][0] == {"name": "adam-reset", "parameters": {"moments": "m"}}
    assert json.loads(json.dumps(plain)) == plain


def test_a_field_that_may_be_left_out_is_written_where_it_says_something() -> None:
    """A plan without further steps has the bytes that it had before there were any."""
    plan = StudyPlan(1, 2, 5, [0], ["carry"])
    assert canonical.encode(plan) == (
        b'{"augmentation_rng":"per-sample","fork_at":1,"horizon":5,"margins":{},'
        b'"perturbations":[{"name":"carry","parameters":{}}],"placebo_scale":1,"placebos":3,'
        b'"primary_metric":"tv","seeds":[0],"threads":1,"window":2}'
    )
    further = plan.changed(probe_at=[2, 4])
    assert structure.to_dict(further) == {**structure.to_dict(plan), "probe_at": [2, 4]}
    assert structure.to_dict(Outer(1, 0.5, "a", (2, 3.0)))["names"] == []  # all other defaults are


def test_equal_records_have_equal_bytes() -> None:
    whole = StudyPlan(1, 2, 3, [0], ["carry"], margins={"nll": 1})
    real = StudyPlan(1, 2, 3, [0], ["carry"], margins={"nll": 1.0})
    assert whole == real
    assert canonical.encode(whole) == canonical.encode(real)


def test_reading_does_not_change_its_input() -> None:
    plain = structure.to_dict(OUTER)
    before = copy.deepcopy(plain)
    structure.from_dict(Outer, plain, what="r")
    assert plain == before


def test_missing_fields_take_their_default() -> None:
    plain = {"count": 1, "ratio": 1, "kind": "a", "pair": [1, 2]}
    assert structure.from_dict(Outer, plain, what="r") == Outer(1, 1.0, "a", (1, 2.0))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"count": True}, "$.count: expected an integer, found true"),
        ({"count": 1.0}, "$.count: expected an integer, found number 1.0"),
        ({"count": "3"}, "$.count: expected an integer, found string '3'"),
        ({"count": str(2**53 - 1)}, "$.count"),
        ({"count": f"0{2**60}"}, "$.count"),
        ({"count": f"+{2**60}"}, "$.count"),
        ({"count": f"{2**60} "}, "$.count"),
        ({"count": f"{2**60}\n"}, "$.count"),
        ({"count": "1_000_000_000_000_000_000"}, "$.count"),
        ({"count": "٣" * 20}, "$.count"),  # digits, but not ASCII
        ({"count": "9" * 5000}, "$.count"),
        ({"count": None}, "$.count: expected an integer, found null"),
        ({"ratio": "0.5"}, "$.ratio: expected a finite number, found string '0.5'"),
        ({"ratio": True}, "$.ratio"),
        ({"ratio": math.nan}, "$.ratio"),
        ({"ratio": 10**400}, "$.ratio: expected a finite number, found a very large integer"),
        ({"kind": "c"}, "$.kind: expected 'a' or 'b', found string 'c'"),
        ({"kind": ["a"]}, "$.kind"),
        ({"pair": [1]}, "$.pair: expected an array of 2, found one of 1"),
        ({"pair": [1, "x"]}, "$.pair[1]: expected a finite number"),
        ({"names": "xyz"}, "$.names: expected an array, found string 'xyz'"),
        ({"names": {"x": 1}}, "$.names: expected an array, found an object of 1"),
        ({"names": ["x", 2, None]}, "$.names[1]: expected a string, found 2 (and 1 more)"),
        ({"inner": []}, "$.inner: expected object or null, found an array of 0"),
        ({"inner": {"name": "n", "flag": 1}}, "$.inner.flag: expected true or false, found 1"),
        ({"inner": {}}, "$.inner.name: the field is missing"),
        ({"many": [{"name": "n", "more": 1}]}, "$.many[0]: unknown field 'more'"),
        ({"table": {"k": 1.5}}, "$.table['k']: expected integer or string, found number 1.5"),
        ({"table": {"k": True}}, "$.table['k']"),
        ({"table": [1]}, "$.table: expected an object, found an array of 1"),
        ({"table": {1: 1}}, "$.table: expected only strings as keys"),
        ({"nested": {"a": {"b": "c"}}}, "$.nested['a']['b']: expected number or null"),
        ({"unknown": 1}, "$: unknown field 'unknown'"),
        ({"\x1b[31m" * 99: 1}, "$: unknown field"),
    ],
)
def test_another_shape_is_a_schema_error_that_names_the_path(
    change: dict[Any, Any], says: str
) -> None:
    with pytest.raises(SchemaError) as caught:
        structure.from_dict(Outer, {**structure.to_dict(OUTER), **change}, what="r.json")
    message = str(caught.value)
    assert message.startswith(f"r.json: {says}")
    assert message.isprintable()
    assert len(message) < 500


@pytest.mark.parametrize("data", [None, 1, "text", [], [["count", 1]], True])
def test_a_record_is_read_from_an_object_only(data: object) -> None:
    with pytest.raises(SchemaError, match=r"\$: expected an object"):
        structure.from_dict(Outer, data, what="r")


def test_what_the_record_itself_refuses_is_a_schema_error() -> None:
    plain = structure.to_dict(StudyPlan(1, 2, 3, [0], ["carry"]))
    with pytest.raises(SchemaError, match="beyond the horizon 3"):
        structure.from_dict(StudyPlan, {**plain, "fork_at": 100}, what="plan.json")


@given(values)
def test_any_json_gives_a_plan_or_schema_error(value: Any) -> None:
    plain = structure.to_dict(StudyPlan(1, 2, 3, [0], ["carry"]))
    for candidate in (value, *({**plain, name: value} for name in plain)):
        with contextlib.suppress(SchemaError):
            structure.from_dict(StudyPlan, candidate, what="fuzz")


def test_what_reads_and_writes_a_record_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Late:
        inner: Inner | None = None

    structure.prepare(read=[Late], written=[Late])
    for name in ("make_dict_structure_fn", "make_dict_unstructure_fn"):
        monkeypatch.setattr(structure, name, None)
    monkeypatch.setattr("cattrs.converters.make_dict_unstructure_fn", None)
    record = Late(Inner("i"))
    assert structure.from_dict(Late, structure.to_dict(record), what="late") == record
