"""Countersignatures: which are read, which count, and what none of them can do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cli_shell import Shell
from forging import edit_predicate
from studies import Run, check, check_files

from auditkit.errors import StoreError, UsageError
from auditkit.formats.statements import record_from_statement, to_statement
from auditkit.records.manifest import Producer, RunTimes
from auditkit.records.report import Countersignature, SignedReport
from auditkit.signing.envelopes import add_signature, open_envelope, sign_statement
from auditkit.signing.keys import PrivateKey, fingerprint, generate_key, public_line
from auditkit.signing.trust import SigningKey
from auditkit.verification.countersigning import (
    MAX_COUNTERSIGNATURES,
    countersign,
    countersignature_name,
    is_countersignature,
)

TIMES = RunTimes("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z")
REVIEWER = generate_key()


def signing(key: PrivateKey) -> SigningKey:
    return SigningKey(key, fingerprint(key), "test")


def countersigned(run: Run, key: PrivateKey = REVIEWER, *, replay: str = "none") -> Path:
    return countersign(run.folder, check(run, replay=replay), TIMES, signing(key))


def read(run: Run, *trusted: PrivateKey) -> tuple[Countersignature, ...]:
    keys = [*run.trusted, *(signing(key).trusted for key in trusted)]
    report = check_files(run, trusted=keys)
    assert report.exit_code == 0  # nothing that lies beside it can make a check fail
    return report.countersignatures


def test_a_trusted_stranger_counts_and_says_how_much_was_replayed(forged: Run) -> None:
    path = countersigned(forged, replay="all")
    (found,) = read(forged, REVIEWER)
    assert found == Countersignature(
        path.name,
        fingerprint(REVIEWER),
        counts=True,
        verdict="verified",
        remark="all 6 branches and 1 trunk",
    )


def test_it_is_no_unlisted_file_even_with_strict(forged: Run) -> None:
    countersigned(forged)
    report = check_files(forged, strict=True)
    assert report.exit_code == 0
    assert not any(result.warnings for result in report.checks)


def test_the_authors_own_does_not_count(forged: Run) -> None:
    countersigned(forged, forged.key)
    (found,) = read(forged)
    assert not found.counts
    assert "somebody who signed the manifest" in found.remark


def test_a_second_key_of_the_author_does_not_count(forged: Run) -> None:
    countersigned(forged)
    keys = [
        replace(key, principals=("alice@x",))
        for key in (*forged.trusted, signing(REVIEWER).trusted)
    ]
    (found,) = check_files(forged, trusted=keys).countersignatures
    assert not found.counts
    assert "somebody who signed the manifest" in found.remark


def test_an_untrusted_ones_does_not_count(forged: Run) -> None:
    countersigned(forged)
    (found,) = read(forged)
    assert (found.signed_by, found.counts, found.remark) == (
        None,
        False,
        "not signed by a trusted key",
    )


def test_a_bad_verdict_is_not_countersigned_and_does_not_count(forged: Run) -> None:
    bad = replace(check_files(forged), exit_code=1, verdict="failed")
    with pytest.raises(UsageError, match="not countersigned: the verdict is failed"):
        countersign(forged.folder, bad, TIMES, signing(REVIEWER))
    signed = SignedReport("1", Producer("auditkit", "0.1.0"), TIMES, bad)  # by another tool
    path = forged.folder / countersignature_name(fingerprint(REVIEWER))
    path.write_bytes(sign_statement(to_statement(signed), REVIEWER))
    (found,) = read(forged, REVIEWER)
    assert (found.counts, found.verdict) == (False, "failed")
    assert "did not verify (exit 1)" in found.remark


def test_a_weaker_report_does_not_replace_a_stronger_one(forged: Run) -> None:
    path = countersigned(forged, replay="all")
    strong = path.read_bytes()
    with pytest.raises(UsageError, match="says verified already, this one would say integrity"):
        countersigned(forged)
    assert path.read_bytes() == strong
    path.write_bytes(b"{}")  # nothing that this option has written
    with pytest.raises(StoreError, match="is no countersignature of this option; move it away"):
        countersigned(forged)
    assert path.read_bytes() == b"{}"


def test_what_others_say_is_no_part_of_a_countersignature(forged: Run) -> None:
    countersigned(forged)
    other = generate_key()
    report = check_files(forged, trusted=[*forged.trusted, signing(REVIEWER).trusted])
    assert report.countersignatures
    path = countersign(forged.folder, report, TIMES, signing(other))
    payload = open_envelope(path.read_bytes()).payload
    signed = record_from_statement(SignedReport, payload, what=path.name)
    assert signed.report.countersignatures == ()


def test_one_of_another_manifest_does_not_count(forged: Run) -> None:
    countersigned(forged)
    edit_predicate(forged, lambda told: told["run"].update(started="2020-01-01T00:00:00Z"))
    (found,) = read(forged, REVIEWER)
    assert not found.counts
    assert "about another manifest" in found.remark


@pytest.mark.parametrize("edit", ["verdict", "cut", "junk", "folder", "link"])
def test_an_edited_one_does_not_count(forged: Run, tmp_path: Path, edit: str) -> None:
    path = countersigned(forged)
    data = path.read_bytes()
    path.unlink()
    if edit == "verdict":
        envelope = json.loads(data)
        envelope["payload"] = envelope["payload"][:40] + "QUJD" + envelope["payload"][44:]
        path.write_text(json.dumps(envelope))
    elif edit == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif edit == "junk":
        path.write_bytes(b"\x00\xff")
    elif edit == "folder":
        (path / "inside").mkdir(parents=True)
    else:
        elsewhere = tmp_path / "elsewhere.json"
        elsewhere.write_bytes(data)
        path.symlink_to(elsewhere)
    assert not any(found.counts for found in read(forged, REVIEWER))


def test_a_manifest_in_its_place_does_not_count(forged: Run) -> None:
    name = countersignature_name(fingerprint(REVIEWER))
    (forged.folder / name).write_bytes(sign_statement(b'{"predicateType":"urn:x"}', REVIEWER))
    (found,) = read(forged, REVIEWER)
    assert not found.counts


def test_no_more_than_so_many_are_read(forged: Run) -> None:
    for n in range(MAX_COUNTERSIGNATURES + 20):
        (forged.folder / f"countersign-{n:016x}.json").write_bytes(b"{}")
    assert len(read(forged)) == MAX_COUNTERSIGNATURES


@pytest.mark.parametrize(
    "name", ["countersign-.json", "countersign-0123456789ABCDEF.json", "x/countersign-0.json"]
)
def test_other_names_are_other_files(name: str) -> None:
    assert not is_countersignature(name)


def test_it_stands_where_a_signature_is_added_to_the_manifest(forged: Run) -> None:
    countersigned(forged)
    forged.path.write_bytes(add_signature(forged.path.read_bytes(), generate_key()))
    (found,) = read(forged, REVIEWER)
    assert found.counts


def test_verifying_again_replaces_it(forged: Run) -> None:
    assert countersigned(forged) == countersigned(forged)
    assert len(read(forged, REVIEWER)) == 1


# By the command line


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell.at(tmp_path_factory.mktemp("countersigning") / "user")


def test_the_command_leaves_one_and_a_reader_sees_it(
    shell: Shell, small: Run, copied: Callable[[Run], Run]
) -> None:
    run = copied(small)
    author = shell.write("author.pub", _line(run.key))
    assert shell("keygen", "--out", "reviewer").code == 0
    options = ("--key", str(author), "--allow-code", "--replay", "1", "--countersign", "reviewer")
    done = shell("verify", str(run.path), *options)
    assert done.code == 0, done.out
    assert "wrote" in done.err
    both = ("--key", str(author), "--key", "reviewer.pub", "--replay", "none")
    seen = shell("verify", str(run.path), *both)
    assert "Countersigned: 1 by trusted keys other than the author's" in seen.out
    assert "sampled, 1 of 6 branches" in seen.out


def test_what_is_malformed_is_not_countersigned(shell: Shell) -> None:
    path = shell.write("broken/manifest.json", "{}")
    done = shell("verify", str(path), "--countersign", "config/auditkit/key")
    assert (done.code, "not countersigned" in done.err) == (5, True)
    assert [item.name for item in path.parent.iterdir()] == ["manifest.json"]


def _line(key: PrivateKey) -> str:
    return public_line(key) + "\n"
