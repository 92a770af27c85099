"""The suites of other people's give what the manual says; and a suite that would not is noticed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from documents import PAGES
from documents import table as manual_table
from suites import JSON_CASES, REFUSED, VECTORS, answers, main, missing, table

from auditkit.signing.keys import generate_key, public_line, sign_bytes

#: Names the folder in which the suites lie; see ``auditkit explain outside``.
VARIABLE = "OUTSIDE_SUITES"

#: As the manual tells: of how many cases what the suite says is done.
COUNTS = {
    "JSON, to be accepted": (93, 95),
    "JSON, to be rejected": (188, 188),
    "JSON, to be either": (35, 35),
    "Ed25519": (151, 151),
    "ECDSA P-256": (484, 484),
}


@pytest.fixture
def small_suites(tmp_path: Path) -> Path:
    """Suites of a few cases, which all give what they say."""
    cases = tmp_path / JSON_CASES
    cases.mkdir(parents=True)
    (cases / "y_array.json").write_bytes(b'[1, {"a": null}]')
    (cases / "y_object_duplicated_key.json").write_bytes(b'{"a": 1, "a": 2}')
    (cases / "n_comma.json").write_bytes(b"[1,]")
    (cases / "i_utf16.json").write_bytes("[]".encode("utf-16"))
    for name in VECTORS.values():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"testGroups": [_group()]}))
    return tmp_path


def _group() -> Any:
    key = generate_key()
    tests = [
        {"tcId": number, "comment": "", "msg": message.hex(), "sig": signature.hex()}
        for number, (message, signature) in enumerate(
            [(b"one", sign_bytes(key, b"one")), (b"two", sign_bytes(key, b"one"))]
        )
    ]
    tests[0]["result"], tests[1]["result"] = "valid", "invalid"
    return {"publicKeyPem": public_line(key), "tests": tests}


@pytest.mark.slow
def test_the_suites_give_what_the_manual_says() -> None:
    folder = os.environ.get(VARIABLE)
    if folder is None:
        pytest.skip(f"${VARIABLE} names no folder; `auditkit explain outside` has the commands")
    assert missing(Path(folder)) == []
    found = answers(Path(folder))
    assert [answer for answer in found if not answer.as_meant] == []
    assert table(found) == COUNTS


def test_the_manual_tells_these_numbers_and_what_is_refused_on_purpose() -> None:
    told = {suite: f"{n} of {cases}" for suite, (n, cases) in COUNTS.items()}
    assert dict(manual_table(PAGES["limits"], "suite", "as it says")) == told
    assert all(f"`{name}`" in PAGES["limits"] for name in REFUSED)


def test_a_suite_that_agrees_passes(small_suites: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(small_suites)]) == 0
    out = capsys.readouterr().out
    assert "WRONG" not in out
    assert "y_object_duplicated_key.json: rejected on purpose" in out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("n_fine.json", b"[1]"),
        ("y_broken.json", b"[1"),
        ("y_object_duplicated_key.json", b'{"a": 1}'),
        ("y_object_duplicated_key.json", b'{"a": 1'),
    ],
    ids=["accepted", "rejected", "no refusal", "another refusal"],
)
def test_json_that_is_judged_otherwise_is_named(
    name: str, content: bytes, small_suites: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (small_suites / JSON_CASES / name).write_bytes(content)
    assert main([str(small_suites)]) == 1
    assert f", {name}: " in capsys.readouterr().out


@pytest.mark.parametrize("suite", VECTORS)
@pytest.mark.parametrize("change", ["valid", "invalid", "key"])
def test_a_signature_that_is_judged_otherwise_is_named(
    change: str, suite: str, small_suites: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = small_suites / VECTORS[suite]
    vectors = json.loads(path.read_text())
    (group,) = vectors["testGroups"]
    if change == "key":
        group["publicKeyPem"] = "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"
    else:
        for test in group["tests"]:
            test["result"] = change
    path.write_text(json.dumps(vectors))
    assert main([str(small_suites)]) == 1
    assert f"WRONG: {suite}, " in capsys.readouterr().out


@pytest.mark.parametrize("name", [JSON_CASES, *VECTORS.values()])
def test_a_suite_that_is_not_there_is_no_pass(
    name: str, small_suites: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (small_suites / name).rename(small_suites / "elsewhere")
    assert main([str(small_suites)]) == 2
    assert name in capsys.readouterr().err
    assert main([]) == 2
