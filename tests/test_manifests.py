from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from examples_of_records import MANIFEST
from hypothesis import given
from hypothesis import strategies as st

from auditkit import canonical
from auditkit.errors import AuditError, JsonError, MalformedError, SchemaError
from auditkit.manifests import from_statement, to_statement
from auditkit.records.manifest import StudyManifest

STATEMENT: dict[str, Any] = json.loads(to_statement(MANIFEST))


def changed(*path: str | int, to: Any) -> bytes:
    statement = copy.deepcopy(STATEMENT)
    place: Any = statement
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = to
    return canonical.dumps(statement)


def without(*path: str | int) -> bytes:
    statement = copy.deepcopy(STATEMENT)
    place: Any = statement
    for part in path[:-1]:
        place = place[part]
    del place[path[-1]]
    return canonical.dumps(statement)


def test_a_full_manifest_survives() -> None:
    payload = to_statement(MANIFEST)
    again = from_statement(payload, what="manifest")
    assert again == MANIFEST
    assert to_statement(again) == payload


def test_the_statement_is_an_in_toto_statement() -> None:
    assert STATEMENT["_type"] == "https://in-toto.io/Statement/v1"
    assert STATEMENT["predicateType"] == "urn:auditkit:branch-and-hold:v1"
    # sigstore refuses a subject with any other digest than sha256
    assert STATEMENT["subject"] == [
        {"name": file.name, "digest": {"sha256": file.sha256}} for file in MANIFEST.files
    ]
    assert set(STATEMENT) == {"_type", "subject", "predicateType", "predicate"}
    assert all("sha256" not in file for file in STATEMENT["predicate"]["files"])


def test_numbers_that_other_readers_would_round_are_strings() -> None:
    predicate = STATEMENT["predicate"]
    assert predicate["seeds"][0]["seed"] == str(2**60)
    assert predicate["plan"]["seeds"] == [0, str(2**53), str(2**63 - 1)]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"[]", "no JSON object"),
        (b"{}", "_type is another"),
        (changed("_type", to="https://in-toto.io/Statement/v0.1"), "_type is another"),
        (changed("_type", to=None), "_type is another"),
        (changed("predicateType", to="urn:auditkit:recording:v1"), "predicateType is another"),
        (changed("predicate", "schema_version", to="2"), "another version of the schema"),
        (changed("predicate", "schema_version", to=1), "another version of the schema"),
        (changed("predicate", to=[]), "another version of the schema"),
        (without("predicate"), "another version of the schema"),
        (changed("more", to=1), "unknown field 'more'"),
        (changed("predicate", "more", to=1), "unknown field 'more'"),
        (changed("predicate", "seeds", 0, "branches", 0, "note", to=""), "unknown field 'note'"),
        (without("subject"), "missing 'subject'"),
        (without("predicate", "plan"), "missing 'plan'"),
        (without("predicate", "seeds", 0, "rng"), "missing 'rng'"),
        (changed("subject", to=[]), r"\$\.subject"),
        (changed("subject", 0, "digest", "md5", to="00"), "unknown field 'md5'"),
        (changed("subject", 0, "digest", "sha256", to="A" * 64), "digest.sha256"),
        (changed("subject", 0, "name", to="other.py"), "in subject or in files, not in both"),
        (changed("predicate", "files", 0, "name", to="a.py"), "in subject or in files"),
        (changed("predicate", "files", 0, "sha256", to="0" * 64), "unknown field 'sha256'"),
        (changed("predicate", "seeds", 0, "seed", to="12"), r"seeds"),
        (changed("predicate", "seeds", 0, "branches", 0, "role", to="boss"), "role"),
        (changed("predicate", "plan", "fork_at", to=8), "the window ends at step 10"),
        (changed("predicate", "plan", "fork_at", to=True), "fork_at"),
        (changed("predicate", "plan", "seeds", to=[1, 1]), "a seed is given twice"),
    ],
)
def test_another_statement_is_a_schema_error(payload: bytes, says: str) -> None:
    with pytest.raises(SchemaError, match=says) as caught:
        from_statement(payload, what="manifest.json")
    assert caught.value.exit_code == 5
    assert str(caught.value).startswith("manifest.json: ")


def test_a_file_that_is_listed_twice_is_refused() -> None:
    subject, files = STATEMENT["subject"], STATEMENT["predicate"]["files"]
    with pytest.raises(SchemaError, match=r"'code/digits.py' is listed twice"):
        from_statement(changed("subject", to=[*subject, subject[0]]), what="m")
    with pytest.raises(SchemaError, match=r"'code/digits.py' stands in subject or in files"):
        from_statement(changed("predicate", "files", to=[*files, files[0]]), what="m")


def test_a_file_in_only_one_of_the_two_lists_is_refused() -> None:
    for payload in (without("subject", 1), without("predicate", "files", 1)):
        with pytest.raises(SchemaError, match=r"'seed-0000/fork.safetensors' stands in"):
            from_statement(payload, what="m")


@pytest.mark.parametrize("payload", [b"", b"nothing", b'{"_type": NaN}', b'{"a": 1, "a": 1}'])
def test_what_is_no_json_is_a_json_error(payload: bytes) -> None:
    with pytest.raises(JsonError):
        from_statement(payload, what="m")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: replace(m, schema_version="2"),
        lambda m: replace(m, files=()),
        lambda m: replace(m, files=(replace(m.files[0], size=2**54),)),
        lambda m: replace(m, files=(m.files[0], m.files[0])),
        lambda m: replace(m, files=(replace(m.files[0], sha256="short"),)),
        lambda m: replace(m, seeds=()),
        lambda m: replace(m, program=replace(m.program, code=())),
    ],
)
def test_a_manifest_that_could_not_be_read_is_not_written(
    spoil: Callable[[StudyManifest], StudyManifest],
) -> None:
    try:
        payload = to_statement(spoil(MANIFEST))
    except SchemaError:
        return
    assert from_statement(payload, what="m") == spoil(MANIFEST)


def places(node: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items: list[tuple[str | int, Any]] = []
    if isinstance(node, dict):
        items = list(node.items())
    elif isinstance(node, list):
        items = list(enumerate(node))
    return [(*path, key) for key, _ in items] + [
        place for key, value in items for place in places(value, (*path, key))
    ]


@given(
    st.sampled_from(places(STATEMENT)),
    st.none() | st.booleans() | st.integers() | st.text() | st.just([]) | st.just({}),
)
def test_any_change_of_one_value_is_read_as_another_manifest_or_refused(
    place: tuple[str | int, ...], value: Any
) -> None:
    payload = changed(*place, to=value)
    try:
        again = from_statement(payload, what="fuzz")
    except MalformedError:
        return
    assert isinstance(again, StudyManifest)
    if payload != canonical.dumps(STATEMENT):
        assert again != MANIFEST


@given(st.sampled_from(places(STATEMENT)))
def test_any_missing_field_is_refused_or_another_manifest(place: tuple[str | int, ...]) -> None:
    try:
        again = from_statement(without(*place), what="fuzz")
    except AuditError:
        return
    assert again != MANIFEST
