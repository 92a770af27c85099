from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no type information
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.errors import SchemaError
from auditkit.formats import schema

FOLDER = Path(__file__).parents[2] / "schemas"
FILES = sorted(FOLDER.glob("*/*.schema.json"))
ENVELOPE = {
    "payloadType": "application/vnd.in-toto+json",
    "payload": "e30=",
    "signatures": [{"keyid": "SHA256:x", "sig": "AAAA"}],
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=9,
)


def keywords(node: object) -> set[str]:
    if isinstance(node, dict):
        return set(node).union(*map(keywords, node.values()))
    return set().union(*map(keywords, node)) if isinstance(node, list) else set()


def test_there_is_an_envelope_schema() -> None:
    assert FOLDER / "1" / "envelope.schema.json" in FILES


def lists(node: Any, path: str = "$") -> list[str]:
    """Places of the lists whose length a schema does not bound."""
    if isinstance(node, list):
        return [place for item in node for place in lists(item, path)]
    if not isinstance(node, dict):
        return []
    found = [path] if node.get("type") == "array" and "maxItems" not in node else []
    return found + [place for key, value in node.items() for place in lists(value, f"{path}.{key}")]


@pytest.mark.parametrize("name", ["recording", "replay"])
def test_no_list_of_a_recording_is_endless(name: str) -> None:
    assert lists(schema.load(name)) == []


def test_the_longest_lists_of_a_study_are_bounded() -> None:
    endless = lists(schema.load("manifest"))
    assert not [place for place in endless if place.endswith(("seeds", "files", "subject"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_schema_is_sound_and_carries_its_own_name(file: Path) -> None:
    name, version = file.name.removesuffix(".schema.json"), file.parent.name
    content = schema.load(name, version)
    jsonschema.Draft202012Validator.check_schema(content)
    assert content["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert content["$id"] == f"urn:auditkit:schema:{version}:{name}"
    # patternProperties would not go through the strict pattern; use propertyNames
    assert "patternProperties" not in keywords(content)


def test_no_command_spends_time_on_what_the_test_above_has_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schema._read.cache_clear()
    monkeypatch.delattr(jsonschema.Draft202012Validator, "check_schema")
    schema.check(ENVELOPE, "envelope", what="m")


def test_loading_gives_a_new_dict_each_time() -> None:
    schema.load("envelope")["required"].clear()
    assert schema.load("envelope")["required"]


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("envelope", "2"),
        ("envelope", "../1"),
        ("envelope", ""),
        ("envelope", "1\n"),
        ("none", "1"),
        ("../1/envelope", "1"),
        ("envelope\0", "1"),
        ("x" * 999, "1"),
    ],
)
def test_an_unknown_schema_is_a_schema_error(name: str, version: str) -> None:
    with pytest.raises(SchemaError, match="no schema") as caught:
        schema.check({}, name, version, what="m")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"signatures": []},
        {"signatures": [{"sig": "AA-_"}]},
        {"signatures": [{"sig": "AAAA", "timestamps": [{"type": "tsp", "data": "AA=="}]}]},
        {"more": {"anything": [1]}},
    ],
)
def test_envelopes_that_dsse_allows_pass(change: dict[str, Any]) -> None:
    schema.check({**ENVELOPE, **change}, "envelope", what="m")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"payloadType": "text/plain"}, "$.payloadType: expected 'application/vnd.in-toto+json'"),
        ({"payload": 1}, "$.payload: expected string, found integer 1"),
        ({"payload": "a b c"}, "$.payload: expected pattern"),
        ({"payload": "AAAA\n"}, "$.payload: expected pattern"),
        ({"payload": ""}, "$.payload: "),
        ({"payload": "!" * 10**6}, "$.payload: expected pattern"),
        ({"signatures": {}}, "$.signatures: expected array, found object an object of 0"),
        ({"signatures": [{}]}, "$.signatures[0]: missing 'sig'"),
        ({"signatures": [{"sig": "A" * 2000}]}, "$.signatures[0].sig: expected maxLength 1024"),
        ({"signatures": [{"sig": "AAAA\n"}]}, "$.signatures[0].sig: expected pattern"),
        ({"signatures": [{"sig": "AAAA", "keyid": 1}]}, "$.signatures[0].keyid: expected string"),
        ({"signatures": [{"sig": "AAAA"}] * 33}, "$.signatures: expected maxItems 32"),
        ({"signatures": [3]}, "$.signatures[0]: expected object, found integer 3"),
    ],
)
def test_other_envelopes_fail_with_the_path(change: dict[str, Any], says: str) -> None:
    with pytest.raises(SchemaError) as caught:
        schema.check({**ENVELOPE, **change}, "envelope", what="m.json")
    message = str(caught.value)
    assert message.startswith(f"m.json: {says}")
    assert len(message) < 300


@pytest.mark.parametrize("value", [1, None, [], "text", {}])
def test_what_is_no_envelope_fails(value: object) -> None:
    with pytest.raises(SchemaError, match=r"m: \$: "):
        schema.check(value, "envelope", what="m")


@given(json_values)
def test_any_json_passes_or_is_a_schema_error(value: Any) -> None:
    for candidate in (value, *({**ENVELOPE, name: value} for name in ENVELOPE)):
        try:
            schema.check(candidate, "envelope", what="fuzz")
        except SchemaError as error:
            message = str(error)
        else:
            continue
        assert message.isprintable()


@pytest.mark.parametrize(
    ("pattern", "matches", "fails"),
    [
        ("^[0-9a-f]{4}$", "abcd", "abcd\n"),
        (r"^\$$", "$", "$\n"),
        ("^[$]$", "$", "$\n"),
        ("^[]$]+", "]$", "x"),
        ("^[^$]$", "x", "$"),
        (r"^\d$", "1", "٣"),
        (r"^(a$|b$)", "b", "b\n"),
    ],
)
def test_a_pattern_ends_where_the_text_ends(
    pattern: str, matches: str, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "load", lambda *_: {"pattern": pattern})
    schema._read.cache_clear()
    try:
        schema.check(matches, "any", what="x")
        with pytest.raises(SchemaError, match="expected pattern"):
            schema.check(fails, "any", what="x")
    finally:
        schema._read.cache_clear()


@pytest.mark.parametrize(
    ("content", "value", "says"),
    [
        (
            {"additionalProperties": False, "properties": {"a": True}},
            {"a": 1, "b\x1b": 2},
            "unknown field 'b\\x1b'",
        ),
        ({"enum": ["a", "b"]}, "c" * 999, "expected 'a' or 'b', found 'ccc"),
        ({"minimum": 3}, 2, "expected minimum 3, found 2"),
        ({"type": ["integer", "null"]}, "x", "expected integer or null, found string 'x'"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "x", "$: expected"),
        ({"additionalProperties": {"type": "null"}}, {"a\nb": 1}, "$['a\\nb']: expected null"),
        ({"type": "integer"}, True, "expected integer, found boolean true"),
        ({"propertyNames": {"pattern": "^a$"}}, {"a\n": 1}, "expected pattern"),
    ],
)
def test_messages_are_short_and_printable(
    content: dict[str, Any], value: object, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "load", lambda *_: content)
    schema._read.cache_clear()
    try:
        with pytest.raises(SchemaError) as caught:
            schema.check(value, "any", what="x")
    finally:
        schema._read.cache_clear()
    message = str(caught.value)
    assert says in message
    assert message.isprintable()
    assert len(message) < 300


def test_the_wheel_carries_the_schemas() -> None:
    text = (FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert '"schemas" = "auditkit/schemas"' in text
    assert all(json.loads(file.read_bytes()) for file in FILES)


def undescribed(node: Any, path: str = "$") -> list[str]:
    """Places of the properties of which a schema does not say what they mean."""
    if isinstance(node, list):
        return [place for item in node for place in undescribed(item, path)]
    if not isinstance(node, dict):
        return []
    conditions = ("if", "not")  # what is asked there is not what stands there
    properties = node.get("properties", {})
    found = [f"{path}.{name}" for name, value in properties.items() if not described(value)]
    return found + [
        place
        for key, value in node.items()
        if key not in conditions
        for place in undescribed(value, f"{path}.{key}")
    ]


def described(value: object) -> bool:
    return isinstance(value, dict) and len(str(value.get("description", ""))) >= 5


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_field_says_what_it_means(file: Path) -> None:
    assert undescribed(json.loads(file.read_text())) == []


def test_a_field_that_says_nothing_is_seen() -> None:
    bare = {"properties": {"a": {"description": "What it is."}, "b": {"type": "string"}}}
    assert undescribed({"$defs": {"c": bare}}) == ["$.$defs.c.b"]
