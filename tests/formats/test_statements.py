from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_examples import MANIFEST, RECORDING, REGISTRATION, REPLAY, SIGNED_REPORT

from auditkit.errors import AuditError, JsonError, MalformedError, SchemaError
from auditkit.formats import canonical
from auditkit.formats.statements import (
    manifest_from_statement,
    record_from_statement,
    study_from_statement,
    to_statement,
)
from auditkit.records.manifest import RunTimes, StudyManifest
from auditkit.records.recording import RecordingManifest
from auditkit.records.registration import Registration
from auditkit.records.report import CHECKS, CheckResult, ReplayReport, SignedReport

READ_REPLAY = functools.partial(record_from_statement, ReplayReport)

#: A report as verify gives one: with all ten checks.
ALL_CHECKS = tuple(CheckResult(number, "not run", "nothing") for number in CHECKS)
WHOLE_REPORT = replace(SIGNED_REPORT.report, checks=ALL_CHECKS)

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
    again = study_from_statement(payload, what="manifest")
    assert again == MANIFEST
    assert to_statement(again) == payload


@pytest.mark.parametrize(
    "record", [MANIFEST, RECORDING, REPLAY, replace(SIGNED_REPORT, report=WHOLE_REPORT)]
)
def test_what_finished_before_it_started_is_malformed(record: Any) -> None:
    run = record.run
    to_statement(replace(record, run=replace(run, finished=run.started)))
    with pytest.raises(SchemaError, match="run: finished before it started") as caught:
        to_statement(replace(record, run=replace(run, finished="1999-12-31T23:59:59Z")))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("text", ["2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z"])
def test_a_time_that_no_clock_shows_is_malformed(text: str) -> None:
    for record in (
        replace(MANIFEST, run=replace(MANIFEST.run, finished=text)),
        replace(REGISTRATION, created=text),
    ):
        with pytest.raises(SchemaError, match="is no time"):
            to_statement(record)


def test_a_run_whose_clock_was_set_back_ends_when_it_began() -> None:
    early, late = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"
    assert RunTimes.ending(early, late) == RunTimes(early, late)
    assert RunTimes.ending(late, early) == RunTimes(late, late)


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
        study_from_statement(payload, what="manifest.json")
    assert caught.value.exit_code == 5
    assert str(caught.value).startswith("manifest.json: ")


def test_a_file_that_is_listed_twice_is_refused() -> None:
    subject, files = STATEMENT["subject"], STATEMENT["predicate"]["files"]
    with pytest.raises(SchemaError, match=r"'code/digits.py' is listed twice"):
        study_from_statement(changed("subject", to=[*subject, subject[0]]), what="m")
    with pytest.raises(SchemaError, match=r"'code/digits.py' stands in subject or in files"):
        study_from_statement(changed("predicate", "files", to=[*files, files[0]]), what="m")


def test_a_file_in_only_one_of_the_two_lists_is_refused() -> None:
    for payload in (without("subject", 1), without("predicate", "files", 1)):
        with pytest.raises(SchemaError, match=r"'seed-0000/fork.safetensors' stands in"):
            study_from_statement(payload, what="m")


@pytest.mark.parametrize("payload", [b"", b"nothing", b'{"_type": NaN}', b'{"a": 1, "a": 1}'])
def test_what_is_no_json_is_a_json_error(payload: bytes) -> None:
    with pytest.raises(JsonError):
        study_from_statement(payload, what="m")


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
    assert study_from_statement(payload, what="m") == spoil(MANIFEST)


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
        again = study_from_statement(payload, what="fuzz")
    except MalformedError:
        return
    assert isinstance(again, StudyManifest)
    if payload != canonical.dumps(STATEMENT):
        assert again != MANIFEST


@given(st.sampled_from(places(STATEMENT)))
def test_any_missing_field_is_refused_or_another_manifest(place: tuple[str | int, ...]) -> None:
    try:
        again = study_from_statement(without(*place), what="fuzz")
    except AuditError:
        return
    assert again != MANIFEST


# Recordings and their replays

RECORDED: dict[str, Any] = json.loads(to_statement(RECORDING))
REPLAYED: dict[str, Any] = json.loads(to_statement(REPLAY))


def edited(statement: dict[str, Any], *path: str | int, to: Any) -> bytes:
    again = copy.deepcopy(statement)
    place: Any = again
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = to
    return canonical.dumps(again)


def test_a_recording_and_a_replay_survive() -> None:
    assert manifest_from_statement(to_statement(RECORDING), what="m") == RECORDING
    assert manifest_from_statement(to_statement(MANIFEST), what="m") == MANIFEST
    assert record_from_statement(ReplayReport, to_statement(REPLAY), what="r") == REPLAY


def test_each_kind_has_a_predicate_type_of_its_own() -> None:
    assert RECORDED["predicateType"] == "urn:auditkit:recording:v1"
    assert REPLAYED["predicateType"] == "urn:auditkit:replay:v1"
    assert RECORDED["subject"] == [
        {"name": file.name, "digest": {"sha256": file.sha256}} for file in RECORDING.files
    ]
    assert all("sha256" not in file for file in RECORDED["predicate"]["files"])


def test_the_subject_of_a_replay_is_the_manifest_and_nothing_says_so_twice() -> None:
    digest = {"sha256": REPLAY.manifest_sha256}
    assert REPLAYED["subject"] == [{"name": "manifest.json", "digest": digest}]
    assert "manifest_sha256" not in REPLAYED["predicate"]


@pytest.mark.parametrize(
    ("read", "record"),
    [
        (study_from_statement, RECORDING),
        (study_from_statement, REPLAY),
        (manifest_from_statement, REPLAY),
        (READ_REPLAY, RECORDING),
        (READ_REPLAY, MANIFEST),
    ],
)
def test_another_kind_is_a_schema_error(
    read: Callable[..., object], record: RecordingManifest | ReplayReport
) -> None:
    with pytest.raises(SchemaError, match="predicateType is another"):
        read(to_statement(record), what="m")


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (edited(RECORDED, "predicateType", to="urn:x"), "predicateType is another"),
        (edited(RECORDED, "predicateType", to=[]), "predicateType is another"),
        (edited(RECORDED, "predicate", "schema_version", to="2"), "another version of the schema"),
        (edited(RECORDED, "predicate", "more", to=1), "unknown field 'more'"),
        (edited(RECORDED, "predicate", "ranks", to=[]), r"\$\.predicate\.ranks"),
        (edited(RECORDED, "predicate", "ranks", 0, "steps", to=-1), "steps: expected minimum 0"),
        (edited(RECORDED, "predicate", "ranks", 0, "note", to=""), "unknown field 'note'"),
        (edited(RECORDED, "predicate", "ranks", 0, "order_sha256", to="A" * 64), "order_sha256"),
        (edited(RECORDED, "predicate", "world", "size", to=0), "size: expected minimum 1"),
        (edited(RECORDED, "predicate", "seed", to="12"), "seed"),
        (edited(RECORDED, "predicate", "files", 0, "role", to="fork"), "role: expected 'trace'"),
        (edited(RECORDED, "predicate", "files", 0, "name", to="a"), "in subject or in files"),
        (edited(RECORDED, "subject", to=RECORDED["subject"] * 2), "is listed twice"),
    ],
)
def test_another_recording_is_a_schema_error(payload: bytes, says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        manifest_from_statement(payload, what="manifest.json")


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (edited(REPLAYED, "subject", to=[]), r"\$\.subject"),
        (
            edited(REPLAYED, "subject", to=REPLAYED["subject"] * 2),
            r"\$\.subject: expected maxItems",
        ),
        (edited(REPLAYED, "subject", 0, "name", to="other.json"), "expected 'manifest.json'"),
        (edited(REPLAYED, "predicate", "manifest_sha256", to="0" * 64), "unknown field"),
        (edited(REPLAYED, "predicate", "first_step", to=0), "first_step: expected minimum 1"),
        (edited(REPLAYED, "predicate", "findings", 0, "exit_code", to=0), "exit_code: expected"),
        (edited(REPLAYED, "predicate", "findings", 0, "message", to=""), "message"),
    ],
)
def test_another_replay_is_a_schema_error(payload: bytes, says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        READ_REPLAY(payload, what="replay.json")


@given(
    st.sampled_from([(s, p) for s in (RECORDED, REPLAYED) for p in places(s)]),
    st.none() | st.booleans() | st.integers() | st.text() | st.just([]) | st.just({}),
)
def test_any_change_of_a_recording_or_replay_is_another_or_refused(
    place: tuple[dict[str, Any], tuple[str | int, ...]], value: Any
) -> None:
    statement, path = place
    payload = edited(statement, *path, to=value)
    read = READ_REPLAY if statement is REPLAYED else manifest_from_statement
    try:
        again: object = read(payload, what="fuzz")
    except MalformedError:
        return
    assert again not in (RECORDING, REPLAY) or payload == canonical.dumps(statement)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: replace(m, ranks=()),
        lambda m: replace(m, files=()),
        lambda m: replace(m, world=replace(m.world, size=0)),
        lambda m: replace(m, ranks=(replace(m.ranks[0], steps=-1),)),
    ],
)
def test_a_recording_that_could_not_be_read_is_not_written(
    spoil: Callable[[RecordingManifest], RecordingManifest],
) -> None:
    with pytest.raises(SchemaError):
        to_statement(spoil(RECORDING))


def test_a_verifiers_report_comes_back_with_its_estimates() -> None:
    signed = replace(SIGNED_REPORT, report=WHOLE_REPORT)
    assert record_from_statement(SignedReport, to_statement(signed), what="c") == signed


def test_a_plan_comes_back() -> None:
    assert record_from_statement(Registration, to_statement(REGISTRATION), what="p") == REGISTRATION


@pytest.mark.parametrize("name", ["manifest.json", "code/digits.py"])
def test_a_subject_that_is_not_the_predicates_is_refused(name: str) -> None:
    kind, record = {
        "manifest.json": (SignedReport, replace(SIGNED_REPORT, report=WHOLE_REPORT)),
        "code/digits.py": (Registration, REGISTRATION),
    }[name]
    statement = json.loads(to_statement(record))  # type: ignore[arg-type] # one of the two
    statement["subject"][0]["digest"]["sha256"] = "0" * 64
    with pytest.raises(SchemaError, match="not the same in subject and predicate"):
        record_from_statement(kind, canonical.dumps(statement), what="s")
