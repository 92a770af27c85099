"""A glance at a value says yes only where jsonschema does."""

from __future__ import annotations

import copy
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from record_examples import MANIFEST, RECORDING, REGISTRATION, REPLAY, REPORT, SIGNED_REPORT

from auditkit.errors import SchemaError
from auditkit.formats import canonical, schema, schema_errors, structure
from auditkit.formats.schema_glance import glance
from auditkit.formats.statements import to_statement
from auditkit.records.report import CHECKS, CheckResult

#: A report as verify gives one: with all ten checks.
WHOLE_REPORT = replace(
    REPORT, checks=tuple(CheckResult(number, "not run", "nothing") for number in CHECKS)
)
WHOLE_SIGNED_REPORT = replace(SIGNED_REPORT, report=WHOLE_REPORT)

ENVELOPE = {"payloadType": "application/vnd.in-toto+json", "payload": "e30=", "signatures": [{}]}
ENVELOPE["signatures"] = [
    {"keyid": "SHA256:x", "sig": "AAAA", "timestamps": [{"type": "tsp", "data": "AA=="}]}
]
FITTING: dict[str, Any] = {
    "envelope": ENVELOPE,
    "manifest": canonical.loads(to_statement(MANIFEST), what="example"),
    "recording": canonical.loads(to_statement(RECORDING), what="example"),
    "plan": canonical.loads(to_statement(REGISTRATION), what="example"),
    "replay": canonical.loads(to_statement(REPLAY), what="example"),
    "verification": canonical.loads(to_statement(WHOLE_SIGNED_REPORT), what="example"),
    "report": structure.to_dict(WHOLE_REPORT),
}
OTHERS: tuple[Any, ...] = (
    None,
    True,
    0,
    1,
    -1,
    0.5,
    1.0,
    2**60,
    "",
    "x",
    "t0",
    "a" * 64,
    "x\n",
    [],
    [[]],
    {},
    [1, 1],
)
FILES = (Path(__file__).parents[2] / "schemas" / "1").glob("*.schema.json")


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a value, with each of its keys."""
    pairs = dict(enumerate(value)) if isinstance(value, list) else value
    for key, item in pairs.items() if isinstance(pairs, dict) else ():
        yield value, key
        yield from places(item)


def changed(value: Any, rng: random.Random) -> Any:
    """A copy in which one thing is another, is missing, or is there once more."""
    value = copy.deepcopy(value)
    holder, key = rng.choice(list(places(value)))
    how = rng.randrange(5)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, list):
        holder.append(holder[key])
    elif how == 1:
        holder[rng.choice(["more", "", "\n", "a"])] = holder[key]
    elif how == 2 and isinstance(holder[key], str):
        holder[key] = holder[key] + rng.choice(["\n", "x", "/", "٣", "x" * 2000])
    elif how == 2 and type(holder[key]) is int:
        holder[key] += rng.choice([-1, 2**54, -(2**54), 0.5])
    else:
        holder[key] = copy.deepcopy(rng.choice(OTHERS))
    return value


def test_there_is_a_value_for_every_schema() -> None:
    assert sorted(file.name.partition(".")[0] for file in FILES) == sorted(FITTING)


@pytest.mark.parametrize("name", FITTING)
def test_what_fits_takes_one_glance(name: str) -> None:
    assert glance(schema.load(name))(FITTING[name])


@pytest.mark.parametrize("name", FITTING)
def test_a_glance_never_says_yes_where_jsonschema_says_no(name: str) -> None:
    content, rng = schema.load(name), random.Random(name)
    fits, validator = glance(content), schema_errors._strict_class()(content)
    n_unsure = 0
    for _ in range(15):
        value = changed(FITTING[name], rng)
        is_right, is_sure = validator.is_valid(value), fits(value)
        assert is_right or not is_sure, json.dumps(value)
        n_unsure += is_right and not is_sure
    assert n_unsure <= 2  # or it would be no use


@pytest.mark.parametrize(
    ("content", "fitting", "others"),
    [
        ({"type": "integer"}, [1, 2**70], [True, 1.5, "1", None]),
        ({"type": ["number", "null"]}, [1, 1.5, None], [False, "1"]),
        ({"minimum": 1, "exclusiveMaximum": 2}, [1, 1.5, "0", None], [0, 2, 5]),
        ({"exclusiveMinimum": 1, "maximum": 2}, [2, 1.5, []], [1, 3]),
        (
            {"minLength": 1, "maxLength": 2, "pattern": "a$"},
            ["a", "ba", 7],
            ["", "b", "a\n", "bba"],
        ),
        ({"enum": ["a", None]}, ["a", None], ["b", 0, False, []]),
        ({"const": "a"}, ["a"], ["b", None]),
        (
            {"items": {"type": "null"}, "minItems": 1, "maxItems": 2},
            [[None], 3],
            [[], [1], [None] * 3],
        ),
        ({"uniqueItems": True}, [[1, 2], ["a", "b"], []], [[1, 1], ["a", "a"]]),
        ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}, []], [{}, {"a": 1, "b": 1}]),
        ({"propertyNames": {"pattern": "^a"}}, [{"a": 1}, 1], [{"b": 1}]),
        (
            {"required": ["a"], "properties": {"a": {"type": "null"}}},
            [{"a": None}, 1],
            [{}, {"a": 1}],
        ),
        ({"additionalProperties": False, "properties": {"a": True}}, [{"a": 1}, {}], [{"b": 1}]),
        ({"additionalProperties": {"type": "null"}}, [{"b": None}], [{"b": 1}]),
        ({"anyOf": [{"type": "null"}, {"minimum": 3, "type": "integer"}]}, [None, 3], [2, "a"]),
        ({"$defs": {"a": {"type": "null"}}, "$ref": "#/$defs/a"}, [None], [1]),
        ({"if": {"type": "string"}, "then": {"maxLength": 1}}, ["a"], ["ab"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_every_rule_is_jsonschemas(
    content: dict[str, Any], fitting: list[Any], others: list[Any]
) -> None:
    fits, validator = glance(content), schema_errors._strict_class()(content)
    assert [value for value in fitting if not (fits(value) and validator.is_valid(value))] == []
    assert [value for value in others if fits(value) or validator.is_valid(value)] == []


@pytest.mark.parametrize(
    "content",
    [
        {"type": "text"},
        {"multipleOf": 2},
        {"const": 1},
        {"enum": ["a"], "const": "a"},
        {"items": {"not": {}}},
        {"anyOf": [True, {"oneOf": [True]}]},
        {"$ref": "#/$defs/none"},
        {"$ref": "urn:other"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}},
        {"properties": {"a": {"patternProperties": {}}}},
        False,
        None,
    ],
)
def test_a_schema_that_says_more_is_left_to_jsonschema(content: object) -> None:
    assert not any(map(glance(content), [*OTHERS, "a"]))


def test_what_a_glance_is_not_sure_of_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "load", lambda *_: {"uniqueItems": True, "type": "array"})
    schema._read.cache_clear()
    try:
        schema.check([1, "a"], "any", what="x")
        with pytest.raises(SchemaError, match="expected uniqueItems"):
            schema.check([1, 1], "any", what="x")
    finally:
        schema._read.cache_clear()


def test_what_fits_is_checked_without_jsonschema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "auditkit.formats.schema_errors")
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    for name, value in FITTING.items():
        schema.check(value, name, what="x")
    with pytest.raises(ImportError):
        schema.check({}, "envelope", what="x")
