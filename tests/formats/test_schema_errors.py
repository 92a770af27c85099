"""What is called fit at a first look is what jsonschema calls fit."""

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
def test_what_fits_takes_one_look(name: str) -> None:
    _, quick = schema._read(name, "1")
    assert schema._surely_fits(quick, FITTING[name])


@pytest.mark.parametrize("name", FITTING)
def test_what_jsonschema_refuses_is_never_called_fit(name: str) -> None:
    (content, quick), rng = schema._read(name, "1"), random.Random(name)
    validator = schema_errors._strict_class()(content)
    for _ in range(15):
        value = changed(FITTING[name], rng)
        assert schema._surely_fits(quick, value) == validator.is_valid(value), json.dumps(value)


def test_what_is_no_json_is_left_to_jsonschema() -> None:
    for value in ("\ud800", {"keyid": "\ud800"}, {1: 2}, b"x"):
        with pytest.raises(SchemaError):
            schema.check(value, "envelope", what="x")


def test_what_fits_is_checked_without_jsonschema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "auditkit.formats.schema_errors")
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    for name, value in FITTING.items():
        schema.check(value, name, what="x")
    with pytest.raises(ImportError):
        schema.check({}, "envelope", what="x")
