"""Verdicts and exit codes: what a verifier says of a manifest that is not what it should be."""

from __future__ import annotations

import base64
import json
import os
import random
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import forging
import pytest
from conftest import REMOTE, USER, Author
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.dsse import Envelope as PeerEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]
from studies import (
    PLAN,
    Run,
    check,
    check_files,
    failures,
    findings_text,
    first_finding,
    result_of,
    study_in_process,
)

from auditkit.formats import canonical
from auditkit.paper.checklist import fill
from auditkit.paper.report_page import Said, Shown, page
from auditkit.records.environment import Environment
from auditkit.records.plan import StudyPlan
from auditkit.signing.envelopes import pae
from auditkit.signing.keys import PrivateKey, TrustedKey, fingerprint, generate_key

Forge = Callable[[Run], object]

FORK = "seed-0000/fork.safetensors"


def as_text(run: Run, edit: Callable[[str], str]) -> None:
    """Change the statement's text and sign it, whatever it then is."""
    payload = canonical.dumps(forging.statement_of(run)).decode()
    forging.sign_payload(run, edit(payload).encode())


# What the manifest file is


def write(data: bytes) -> Forge:
    return lambda run: run.path.write_bytes(data)


MALFORMED: dict[str, Forge] = {
    "empty": write(b""),
    "not JSON": write(b"seeds: [0, 1]"),
    "another type": write(b"[1, 2]"),
    "not UTF-8": write(b'{"payload": "\xff"}'),
    "deeply nested": write(b"[" * 100_000 + b"]" * 100_000),
    "truncated": lambda run: run.path.write_bytes(run.path.read_bytes()[:-40]),
    "duplicate keys in the envelope": lambda run: run.path.write_bytes(
        run.path.read_bytes().replace(b"{", b'{"payloadType":"x",', 1)
    ),
    "no payload": lambda run: forging.edit_envelope(run, lambda envelope: envelope.pop("payload")),
    "payload that is no base64": lambda run: forging.edit_envelope(
        run, lambda envelope: envelope.update(payload="not base64!")
    ),
    "another payload type": lambda run: forging.edit_envelope(
        run, lambda envelope: envelope.update(payloadType="text/plain")
    ),
    "duplicate keys in the payload": lambda run: as_text(
        run, lambda text: text.replace('"_type"', '"_type":"x","_type"', 1)
    ),
    "NaN in the payload": lambda run: as_text(
        run, lambda text: text.replace('"fork_at":6', '"fork_at":NaN', 1)
    ),
    "a deeply nested payload": lambda run: forging.sign_payload(
        run, b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    ),
    "another predicate type": lambda run: forging.edit_statement(
        run, lambda statement: statement.update(predicateType="https://slsa.dev/provenance/v1")
    ),
    "another statement type": lambda run: forging.edit_statement(
        run, lambda statement: statement.update(_type="https://in-toto.io/Statement/v2")
    ),
    "a newer schema": lambda run: forging.edit_predicate(
        run, lambda predicate: predicate.update(schema_version="99")
    ),
    "an unknown field": lambda run: forging.edit_predicate(
        run, lambda predicate: predicate.update(verdict="verified")
    ),
    "a missing field": lambda run: forging.edit_predicate(
        run, lambda predicate: predicate.pop("environment")
    ),
    "a plan that contradicts itself": lambda run: forging.edit_predicate(
        run, lambda predicate: predicate["plan"].update(window=1000)
    ),
    "a file that is listed twice": lambda run: forging.edit_statement(
        run, lambda statement: statement["subject"].append(statement["subject"][0])
    ),
    "a file without digest": lambda run: forging.edit_statement(
        run, lambda statement: statement["subject"].pop()
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_manifest_is_exit_5(forged: Run, name: str) -> None:
    MALFORMED[name](forged)
    report = check(forged)
    assert (report.exit_code, report.verdict) == (5, "failed")
    assert failures(report) == {1}
    assert result_of(report, 8).status == "not run"
    assert report.estimates is None


# Who signed it


def test_an_edited_payload_is_exit_1(forged: Run) -> None:
    forging.edit_payload_unsigned(
        forged,
        lambda statement: statement["predicate"]["run"].update(started="2020-01-01T00:00:00Z"),
    )
    report = check(forged)
    assert (report.exit_code, failures(report)) == (1, {2})
    assert "does not match the payload" in first_finding(report, 2).message
    assert result_of(report, 8).status == "not run"


def test_a_strangers_key_is_exit_3(forged: Run) -> None:
    stranger = generate_key()
    forging.resign(forged, stranger)
    report = check(forged)
    assert (report.exit_code, failures(report)) == (3, {2})
    assert fingerprint(stranger) in first_finding(report, 2).message
    assert (report.signed_by, report.trust) == (None, "not established, see check 2")


def test_no_signature_is_exit_4(forged: Run) -> None:
    forging.edit_envelope(forged, lambda envelope: envelope.update(signatures=[]))
    report = check(forged)
    assert (report.exit_code, failures(report)) == (4, {2})


def test_a_key_beside_the_manifest_is_not_trusted_for_lying_there(honest: Run) -> None:
    assert (honest.folder / "signer.pub").is_file()
    assert check_files(honest, trusted=[]).exit_code == 3


def test_a_failed_check_comes_before_a_missing_trust(forged: Run) -> None:
    forging.edit_trace(forged, "replica", 12, "params")
    forging.resign(forged, generate_key())
    report = check(forged)
    assert (report.exit_code, failures(report)) == (1, {2, 9})


# What lies in its folder


def flip(run: Run, name: str) -> None:
    data = bytearray((run.folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (run.folder / name).write_bytes(data)


def lengthen(run: Run, name: str) -> None:
    path = run.folder / name
    path.write_bytes(path.read_bytes() + b"x")


def link(run: Run, name: str) -> None:
    """A link with the right content behind it is still no file of the run."""
    target = run.folder.parent / "elsewhere"
    (run.folder / name).rename(target)
    (run.folder / name).symlink_to(target)


def replace_by_fifo(run: Run, name: str) -> None:
    (run.folder / name).unlink()
    os.mkfifo(run.folder / name)


DAMAGE: dict[str, tuple[Callable[[Run, str], None], str]] = {
    "missing": (lambda run, name: (run.folder / name).unlink(), "no such file"),
    "flipped byte": (flip, "sha256 is"),
    "longer": (lengthen, "another size"),
    "link": (link, "a symbolic link"),
    "fifo": (replace_by_fifo, "a FIFO"),
}


@pytest.mark.parametrize("name", [FORK, "seed-0000/replica.outcome.safetensors"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_artifact_is_exit_1(forged: Run, damage: str, name: str) -> None:
    act, text = DAMAGE[damage]
    act(forged, name)
    report = check(forged)
    assert report.exit_code == 1
    assert 3 in failures(report)
    finding = first_finding(report, 3)
    assert finding.where == name
    assert text in finding.message
    assert result_of(report, 8).summary == "code is executed only where checks 1 to 3 passed"
    assert report.estimates is None


def test_a_folder_that_is_a_link_is_exit_1(forged: Run) -> None:
    link(forged, "seed-0000")
    report = check(forged)
    assert (report.exit_code, 3 in failures(report)) == (1, True)


def test_damaged_code_is_exit_1_and_is_never_executed(forged: Run) -> None:
    marker = forged.folder.parent / "executed"
    source = forged.folder / "code" / "tiny_study.py"
    source.write_text(f"open({str(marker)!r}, 'w')\n{source.read_text()}")
    report = check(forged)
    assert (report.exit_code, failures(report)) == (1, {3})
    assert not marker.exists()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "seed-0000\\x"])
def test_a_path_that_leads_elsewhere_is_refused(forged: Run, name: str) -> None:
    def rename(statement: forging.Statement) -> None:
        for item in (*statement["subject"], *statement["predicate"]["files"]):
            if item["name"] == FORK:
                item["name"] = name
        statement["predicate"]["seeds"][0]["fork"] = name

    forging.edit_statement(forged, rename)
    report = check(forged)
    assert report.exit_code == 1
    assert "unsafe path" in first_finding(report, 3).message


def test_an_unlisted_file_is_a_warning_and_under_strict_a_failure(forged: Run) -> None:
    (forged.folder / "seed-0000" / "notes.txt").write_text("remember the milk")
    report = check_files(forged)
    assert report.exit_code == 0
    assert result_of(report, 3).warnings == ("seed-0000/notes.txt: lies here but is not listed",)
    strict = check_files(forged, strict=True)
    assert (strict.exit_code, failures(strict)) == (1, {3})
    assert first_finding(strict, 3).where == "seed-0000/notes.txt"


def test_many_unlisted_files_are_one_warning(forged: Run) -> None:
    for number in range(7):
        (forged.folder / f"stray-{number}").touch()
    (warning,) = result_of(check_files(forged), 3).warnings
    assert warning == "stray-0, stray-1, stray-2 and 4 more: lie here but are not listed"


def test_what_is_wrong_with_the_files_is_summed_up_and_said_once(forged: Run) -> None:
    """Every branch of the seed rests on the control's trace: one file, one finding a check."""
    (forged.folder / "seed-0000/control.trace.safetensors").write_bytes(b"edited")
    (forged.folder / "seed-0000/carry.outcome.safetensors").unlink()
    report = check_files(forged)
    assert (report.exit_code, result_of(report, 3).summary) == (1, "1 file edited, 1 missing")
    for result in report.checks:
        assert len(set(result.findings)) == len(result.findings)


def test_what_verify_and_checklist_write_beside_a_manifest_is_no_stranger(forged: Run) -> None:
    for name in ("signer.pub", "report.json", "CHECKLIST.md"):
        (forged.folder / name).write_text("")
    report = check_files(forged, strict=True)
    assert (report.exit_code, result_of(report, 3).warnings) == (0, ())


def test_a_branch_without_its_file_is_exit_1(forged: Run) -> None:
    forging.remove_file(forged, "seed-0000/carry.trace.safetensors")
    report = check(forged)
    assert report.exit_code == 1
    assert 4 in failures(report)


def test_a_file_that_nothing_uses_is_exit_1(forged: Run) -> None:
    forging.add_file(forged, "seed-0000/more.safetensors", b"", "trace")
    finding = first_finding(check_files(forged), 4)
    assert (finding.where, finding.message) == (
        "seed-0000/more.safetensors",
        "listed as trace, used as None",
    )


def test_a_manifest_without_seeds_is_exit_5(forged: Run) -> None:
    forging.edit_predicate(forged, lambda predicate: predicate.update(seeds=[]))
    report = check(forged)
    assert (report.exit_code, report.estimates) == (5, None)


# How much is replayed


def test_without_replay_the_verdict_is_integrity_only(honest: Run) -> None:
    report = check_files(honest)
    assert (report.verdict, report.exit_code, report.estimates) == ("integrity-only", 0, None)
    assert [result.status for result in report.checks] == [
        *["passed"] * 7,
        "not run",
        "passed",
        "not run",
    ]


def test_a_sample_is_labelled_so_and_its_odds_are_stated(honest: Run) -> None:
    report = check(honest, replay=1)
    assert (report.verdict, report.exit_code) == ("sampled", 0), findings_text(report)
    assert report.replay == (
        "1 of 12 branches with their trunks; chance of catching at least one bad branch, by their "
        "number: 0.0833 for 1, 0.167 for 2, 0.417 for 5, 0.833 for 10"
    )
    assert report.estimates is not None
    assert result_of(report, 10).summary.endswith("; not every table was recomputed")


def test_a_draw_that_the_author_may_know_has_no_odds(small: Run) -> None:
    report = check(small, replay=2, replay_seed=7)
    assert report.verdict == "sampled", findings_text(report)
    assert report.replay.endswith("drawn from --replay-seed, so no odds are stated")
    assert "chance" not in report.replay


def test_a_bad_branch_is_caught_as_often_as_the_odds_say(
    forged: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = PLAN.treatment_names[-1]
    forging.edit_trace(forged, bad, 12, "params")
    monkeypatch.setattr("secrets.SystemRandom", lambda: random.Random(1))
    names = PLAN.branch_names[1:]
    expected = random.Random(1).sample(names, len(names))[:3]
    report = check(forged, replay=3)
    assert (report.exit_code == 1) == (bad in expected)
    assert "by their number: 0.5 for 1" in report.replay


def test_what_was_not_re_run_is_not_said_to_have_been(
    small: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Last(random.Random):
        def sample(self, population: Any, k: int, **_: Any) -> list[Any]:
            return list(reversed(population))[:k]

    monkeypatch.setattr("secrets.SystemRandom", Last)
    report = check(small, replay=1)  # order-reverse, the last
    assert report.verdict == "sampled", findings_text(report)
    assert result_of(report, 9).summary == ("replica = control, as the author re-ran it; 1 placebo")
    assert result_of(report, 7).summary.endswith("was replayed for 1")
    everything = check(small)
    assert result_of(everything, 9).summary == "replica = control, re-run here; 1 placebo"
    assert result_of(everything, 7).summary == "7 branches against their control after step 6"


def test_as_many_as_there_are_is_all(small: Run) -> None:
    report = check(small, replay=6)
    assert report.verdict == "verified", findings_text(report)


# Whose code it is


def strangers(run: Run) -> list[TrustedKey]:
    return [replace(key, own=False) for key in run.trusted]


def test_code_signed_by_somebody_else_is_not_executed_unasked(small: Run) -> None:
    report = check(small, trusted=strangers(small))
    assert (report.verdict, report.exit_code) == ("undecided", 6)
    assert failures(report) == {8}
    assert "--allow-code" in first_finding(report, 8).message
    assert report.estimates is None


def test_code_signed_by_somebody_else_is_executed_where_it_is_allowed(small: Run) -> None:
    report = check(small, trusted=strangers(small), allow_code=True)
    assert (report.verdict, report.trust) == ("verified", "trusted by test"), findings_text(report)


# Estimands


BREAKS: dict[int, Forge] = {
    3: lambda run: flip(run, "seed-0000/carry.outcome.safetensors"),
    4: lambda run: forging.edit_outcome(run, "carry", "T", lambda table: table.fill(0.5)),
    5: lambda run: forging.edit_predicate(
        run, lambda predicate: predicate["seeds"][0]["rng"].update(uncovered=[])
    ),
    6: lambda run: forging.edit_trace(run, "carry", 9, "order"),
    7: lambda run: forging.copy_branch(run, "control", "placebo-0"),
    8: lambda run: forging.edit_trace(run, "carry", 12, "params"),
    9: lambda run: forging.edit_trace(run, "replica", 12, "params"),
}


@pytest.mark.parametrize("number", BREAKS)
def test_estimands_are_withheld_unless_checks_1_to_9_passed(forged: Run, number: int) -> None:
    BREAKS[number](forged)
    report = check(forged, replays=1)
    assert number in failures(report)
    assert (report.exit_code, report.estimates) == (1, None)
    assert result_of(report, 10).status == "not run"


# Data and environment


@pytest.fixture
def with_data(tmp_path: Path, key: PrivateKey) -> Run:
    """A run of a program that reads a file."""
    points = tmp_path / "points.txt"
    points.write_text(" ".join(f"{random.Random(n).gauss(0, 1):.3f}" for n in range(56)))
    plan = PLAN.with_perturbations(PLAN.perturbations[:1])
    return study_in_process(tmp_path / "run", key, plan, arguments={"path": str(points)})


def test_missing_data_are_undecided(with_data: Run) -> None:
    (with_data.folder.parent / "points.txt").unlink()
    report = check(with_data)
    assert (report.verdict, report.exit_code) == ("undecided", 6)
    finding = first_finding(report, 8)
    assert "cannot be replayed" in finding.message
    assert "seed" not in finding.message  # its place says which: one line for all seeds
    assert "FileNotFoundError" in finding.message
    assert report.estimates is None


def test_data_may_lie_elsewhere(with_data: Run, tmp_path: Path) -> None:
    (tmp_path / "points.txt").rename(tmp_path / "moved.txt")
    report = check(with_data, arguments={"path": str(tmp_path / "moved.txt")})
    assert report.verdict == "verified", findings_text(report)


def test_other_data_are_data_drift(with_data: Run, tmp_path: Path) -> None:
    points = tmp_path / "points.txt"
    points.write_text("9.5 " + points.read_text().partition(" ")[2])
    report = check(with_data)
    assert (report.exit_code, failures(report)) == (1, {8})
    data = [finding for finding in result_of(report, 8).findings if "data drift" in finding.message]
    assert data
    assert data[0].component == "batch"


def older(environment: Environment) -> Environment:
    return replace(environment, libraries={**environment.libraries, "openmp": "OpenMP 1999"})


def _other_end(statement: forging.Statement) -> None:
    forging.branch_in(statement, "momentum-reset")["digests"]["T"]["params"] = "5" * 64


def test_another_environment_is_undecided_and_the_distance_is_told(forged: Run) -> None:
    here = forged.manifest.environment
    forging.edit_predicate(
        forged, lambda predicate: predicate["environment"]["libraries"].update(openmp="OpenMP 1999")
    )
    forging.edit_outcome(forged, "momentum-reset", "T", forging.flatter)
    forging.edit_trace(forged, "momentum-reset", 15, "params")
    forging.edit_statement(forged, _other_end)
    report = check(forged, environment=here, replays=2)
    assert (report.verdict, report.exit_code) == ("undecided", 6)
    assert result_of(report, 8).status == "undecided"
    finding = first_finding(report, 8)
    assert (finding.step, finding.component) == (15, "params")
    assert "environment differs (libraries: openmp is OpenMP 1999 there" in finding.message
    assert "an edit cannot be excluded" in finding.message
    assert "total variation between record and replay of momentum-reset" in finding.message
    assert "0 at t0, 0 at t0+W" in finding.message
    assert "0 at T" not in finding.message
    assert report.environment_differences
    assert report.estimates is None


def test_another_environment_that_gives_equal_bits_is_verified_and_told(small: Run) -> None:
    report = check(small, environment=older(small.manifest.environment))
    assert report.verdict == "verified", findings_text(report)
    (difference,) = report.environment_differences
    assert difference.startswith("libraries: openmp is ")
    assert difference.endswith("there, OpenMP 1999 here")


# Exit codes of the command line


def test_a_manifest_that_does_not_exist_is_exit_2(author: Author) -> None:
    done = author.auditkit("verify", "nowhere/manifest.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("auditkit: cannot read")


def test_a_folder_without_a_manifest_is_exit_2(author: Author, tmp_path: Path) -> None:
    done = author.auditkit("verify", str(tmp_path), "--replay", "none")
    assert done.returncode == 2
    assert "manifest.json" in done.stderr


def test_a_named_key_sets_the_machines_trust_aside(
    author: Author, honest: Run, tmp_path: Path
) -> None:
    other = tmp_path / "other.pub"
    other.write_bytes(
        generate_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    done = author.auditkit("verify", str(honest.path), "--replay", "none", "--key", str(other))
    assert done.returncode == 3, done.stdout


# Other people's tools


def test_a_manifest_verifies_with_securesystemslib(honest: Run) -> None:
    public = honest.key.public_key()
    name = fingerprint(honest.key)
    envelope = PeerEnvelope.from_dict(json.loads(honest.path.read_bytes()))
    key = SSlibKey.from_crypto(public, keyid=name)
    assert set(envelope.verify([key], 1)) == {name}
    stranger = SSlibKey.from_crypto(generate_key().public_key(), keyid=name)
    with pytest.raises(VerificationError):
        envelope.verify([stranger], 1)


def test_a_manifest_verifies_with_openssl(honest: Run, tmp_path: Path) -> None:
    envelope = json.loads(honest.path.read_bytes())
    body = base64.b64decode(envelope["payload"])
    head = f"DSSEv1 28 application/vnd.in-toto+json {len(body)} ".encode()
    assert head + body == pae(body)
    files = {
        "pae": head + body,
        "sig": base64.b64decode(envelope["signatures"][0]["sig"]),
        "key.pem": honest.key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        ),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-rawin"]

    def verify(message: bytes) -> subprocess.CompletedProcess[str]:
        (tmp_path / "pae").write_bytes(message)
        return subprocess.run(
            [*command, "-in", "pae", "-sigfile", "sig"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    good = verify(head + body)
    assert (good.returncode, good.stdout.strip()) == (0, "Signature Verified Successfully")
    assert verify(head + body[:-1] + b" ").returncode != 0


# Double-blind review


def test_no_file_of_a_run_names_its_author_or_machine(
    author: Author, honest: Run, all_in_one: Run
) -> None:
    secrets = {USER, str(author.home), REMOTE, "git.example.org", "laptop", "/tmp/", "/home/"}  # noqa: S108
    host = socket.gethostname()
    secrets |= {host} if len(host) > 3 else set()
    found = []
    for run in (honest, all_in_one):
        files = [path for path in run.folder.rglob("*") if path.is_file()]
        assert len(files) > 15
        for path in files:
            text = path.read_bytes()
            if path == run.path:
                text += json.dumps(forging.statement_of(run)).encode()
            found += [(path.name, word) for word in secrets if word.encode() in text]
            assert author.home.name not in path.relative_to(run.folder).parts
    assert found == []


def test_a_manifest_says_which_commit_ran(author: Author, honest: Run) -> None:
    program: Any = honest.manifest.program
    assert len(program.git_commit) == 40
    assert program.git_dirty is False


def test_a_plan_that_is_longer_than_its_traces_is_not_executed(forged: Run) -> None:
    forging.edit_predicate(forged, lambda told: told["plan"].update(horizon=10**9))
    report = check(forged, replay="all")
    assert (4 in failures(report), report.exit_code) == (True, 1)
    assert result_of(report, 8).status == "not run"
    assert "not of the plan's steps" in result_of(report, 8).summary


def test_treatments_that_all_diverged_are_named_with_their_step(
    author: Author, tmp_path: Path
) -> None:
    plan = StudyPlan(
        fork_at=6, window=1, horizon=8, seeds=[0], perturbations=["momentum-reset"], placebos=1
    )
    given = {"at": "7", "without_momentum": "yes"}
    target = "odd_study.py:diverging"
    run = study_in_process(tmp_path / "run", author.key, plan, target, arguments=given)
    report = check(run)
    assert failures(report) == {10}, findings_text(report)
    assert (report.verdict, report.exit_code, report.estimates) == ("failed", 1, None)
    assert result_of(report, 10).summary == "every control or treatment diverged"
    said = first_finding(report, 10).message
    assert "no pair is left: every control or treatment diverged: momentum-reset in 1 of 1" in said
    assert "seeds (first at step 7)" in said
    shown = page("run", report, run.manifest, Said(), Shown())
    assert f"Does not verify: checks 1 to 9 passed, and nothing can be estimated: {said}." in shown
    assert said in fill(None, report, (), ("neurips",)).problem
