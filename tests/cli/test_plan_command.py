"""``auditkit plan`` and ``run --plan``: what a plan binds, and what verify says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cli_shell import Shell, statement_bytes
from cryptography.hazmat.primitives.serialization import Encoding
from forging import replace_file
from record_examples import MANIFEST
from studies import Run, check
from timestamp_authority import Authority, make_authority, needs_openssl

from auditkit.diagnose.manifest_texts import manifest_texts
from auditkit.errors import PlanError, UsageError
from auditkit.formats import canonical
from auditkit.formats.seeds import registered_seeds
from auditkit.formats.statements import record_from_statement
from auditkit.records.registration import Registration
from auditkit.records.report import PlanBinding
from auditkit.signing.envelopes import open_envelope, sign_statement
from auditkit.signing.keys import TrustedKey, fingerprint, generate_key
from auditkit.signing.trust import load_private_key
from auditkit.study.planning import open_plan
from auditkit.verification.authorities import Authorities

TINY = "tiny_study.py"
SMALL = ("--seeds", "0", "--perturb", "carry")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell.at(tmp_path_factory.mktemp("plan") / "user")


@pytest.fixture(scope="module")
def bound(shell: Shell) -> Run:
    """A study that was run by its plan."""
    assert shell("plan", TINY, *SMALL, "--out", "plan.json").code == 0
    done = shell("run", TINY, "--plan", "plan.json", "--out", "bound")
    assert (done.code, done.err) == (0, "")
    return run_of(shell, "bound")


def run_of(shell: Shell, name: str) -> Run:
    key = load_private_key(shell.folder / "config/auditkit/key")
    return Run(shell.folder / name, key)


def registration(path: Path) -> Registration:
    payload = open_envelope(path.read_bytes(), what=path.name).payload
    return record_from_statement(Registration, payload, what=path.name)


def binding(shell: Shell, name: str, *options: str) -> PlanBinding:
    """What verify says of a study's plan."""
    shell("verify", f"{name}/manifest.json", *options, "--json", "report.json")
    report = json.loads((shell.folder / "report.json").read_bytes())
    return PlanBinding(
        report["plan"]["status"],
        tuple(report["plan"]["deviations"]),
        tuple(report["plan"]["remarks"]),
    )


# What is signed


def test_a_plan_holds_seeds_code_and_data_before_anything_runs(shell: Shell, bound: Run) -> None:
    planned = registration(shell.folder / "plan.json")
    manifest = bound.manifest
    assert planned.plan == manifest.plan
    assert planned.program.code == manifest.program.code
    assert planned.data.probe_sha256 == manifest.seeds[0].data.probe_sha256
    assert planned.data.dataset_sha256 is not None
    assert planned.data.samples == 14
    assert not (shell.folder / "seed-0000").exists()


def test_seeds_are_printed_as_ranges(shell: Shell) -> None:
    options = ("--seeds", "0,1,3,2", "--perturb", "carry", "--out", "seeds.json")
    done = shell("plan", TINY, *options)
    assert done.out.startswith("4 seeds (0-3), 4 branches each, to step 14\n"), done.err
    assert " seeds 0-3 perturbations " in " ".join(shell("show", "seeds.json").out.split())
    planned = replace(MANIFEST, plan=registration(shell.folder / "seeds.json").plan)
    assert manifest_texts(planned)["plan"]["seeds"] == "0-1, 3, 2"  # another order is another plan


def test_the_digest_of_the_data_is_the_same_every_time(shell: Shell) -> None:
    digests = []
    for name in ("one.json", "two.json"):
        assert shell("plan", TINY, *SMALL, "--out", name).code == 0
        digests.append(registration(shell.folder / name).data.dataset_sha256)
    assert digests[0] == digests[1]


def test_one_number_of_one_sample_changes_the_digest(shell: Shell) -> None:
    numbers = [f"{n / 7:.3f}" for n in range(56)]
    digests = set()
    for name, last in (("whole", numbers[-1]), ("other", "0.001")):
        shell.write(f"{name}.txt", " ".join([*numbers[:-1], last]))
        argument = ("--arg", f"path={shell.folder}/{name}.txt")
        assert shell("plan", TINY, *SMALL, *argument, "--out", f"{name}.json").code == 0
        digests.add(registration(shell.folder / f"{name}.json").data.dataset_sha256)
    assert len(digests) == 2


def test_an_iterable_dataset_has_no_digest(shell: Shell) -> None:
    arguments = ("--arg", "data=iterable")
    assert shell("plan", TINY, *SMALL, *arguments, "--out", "iterable.json").code == 0
    assert registration(shell.folder / "iterable.json").data.dataset_sha256 is None


def test_a_plan_is_never_overwritten(shell: Shell, bound: Run) -> None:
    before = (shell.folder / "plan.json").read_bytes()
    done = shell("plan", TINY, *SMALL, "--out", "plan.json")
    assert (done.code, "exists already" in done.line) == (2, True)
    assert (shell.folder / "plan.json").read_bytes() == before


# Running by a plan


def test_a_study_by_its_plan_is_plan_bound_and_verified(shell: Shell, bound: Run) -> None:
    done = shell("verify", "bound/manifest.json")
    assert done.code == 0, done.out
    assert "Plan: plan-bound" in done.out
    assert "not registered: the author chose the seeds" in done.out
    found = binding(shell, "bound")
    assert (found.status, found.deviations) == ("plan-bound", ())
    assert [file.role for file in bound.manifest.files if file.name == "plan.json"] == ["plan"]


def test_options_beside_a_plan_are_refused(shell: Shell, bound: Run, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    done = shell("run", TINY, "--plan", "plan.json", "--horizon", "15", "--out", out)
    assert (done.code, "--plan settles horizon already" in done.line) == (2, True)
    assert not Path(out).exists()


def test_deviations_are_refused_and_with_leave_listed(shell: Shell, bound: Run) -> None:
    source = shell.folder / TINY
    text = source.read_text()
    try:
        source.write_text(f"{text}# edited after the plan\n")
        refused = shell("run", TINY, "--plan", "plan.json", "--out", "deviating")
        assert refused.code == 2
        assert "code/tiny_study.py: is another file than was planned" in refused.err
        assert "in 1 point;" in refused.err
        assert not (shell.folder / "deviating").exists()
        options = ("--deviate", "--horizon", "15")
        done = shell("run", TINY, "--plan", "plan.json", *options, "--out", "deviating")
        assert done.code == 0
        line = "auditkit: deviates from the plan: plan, horizon: 14 was planned, 15 was run"
        assert line in done.err.splitlines()
    finally:
        source.write_text(text)
    found = binding(shell, "deviating")
    assert found.status == "plan-bound"
    assert found.deviations == (
        "plan, horizon: 14 was planned, 15 was run",
        "code/tiny_study.py: is another file than was planned",
    )


def test_a_plan_of_another_key_is_refused(shell: Shell, bound: Run, tmp_path: Path) -> None:
    assert shell("keygen", "--out", "another").code == 0
    options = ("--key", "another", "--out", str(tmp_path / "out"))
    done = shell("run", TINY, "--plan", "plan.json", *options)
    assert (done.code, "the plan is not signed with" in done.line) == (2, True)


def test_data_that_changed_since_the_plan_are_seen_before_training(shell: Shell) -> None:
    path = shell.write("points.txt", " ".join(f"{n / 7:.3f}" for n in range(56)))
    argument = ("--arg", f"path={path}")
    assert shell("plan", TINY, *SMALL, *argument, "--out", "points.json").code == 0
    path.write_text(path.read_text().replace("1.000", "1.001"))
    done = shell("run", TINY, "--plan", "points.json", "--out", "points")
    assert done.code == 2
    assert "data: the dataset is another than was planned" in done.err


def test_a_run_is_resumed_under_its_plan(shell: Shell, bound: Run) -> None:
    done = shell("run", TINY, "--plan", "plan.json", "--out", "bound", "--resume")
    assert (done.code, "the folder holds a finished run" in done.line) == (2, True)


# Verifying


def test_verify_reads_the_data_again_only_where_it_replays(shell: Shell, bound: Run) -> None:
    assert "not read again" in binding(shell, "bound", "--replay", "none").remarks[-1]
    assert "not read again" not in " ".join(binding(shell, "bound").remarks)


def test_a_plan_by_another_key_binds_nothing(
    bound: Run, copied: Callable[[Run], Run], shell: Shell
) -> None:
    forged = copied(bound)
    payload = open_envelope((shell.folder / "plan.json").read_bytes()).payload
    replace_file(forged, "plan.json", sign_statement(payload, generate_key()))
    report = check(forged, replay="none")
    assert report.exit_code == 0
    assert report.plan is not None
    assert report.plan.status == "not bound"
    assert "not a trusted key" in report.plan.remarks[0]


def test_a_plan_edited_after_its_signature_is_caught(
    bound: Run, copied: Callable[[Run], Run]
) -> None:
    forged = copied(bound)
    data = (forged.folder / "plan.json").read_bytes()
    envelope = json.loads(data)
    envelope["payload"] = envelope["payload"][:-8] + "AAAA" + envelope["payload"][-4:]
    (forged.folder / "plan.json").write_text(json.dumps(envelope))
    report = check(forged, replay="none")
    assert report.exit_code == 1  # the study's signature is over the plan's SHA-256


def test_something_else_in_the_place_of_a_plan_binds_nothing(
    bound: Run, copied: Callable[[Run], Run]
) -> None:
    forged = copied(bound)
    replace_file(forged, "plan.json", b"[]")
    report = check(forged, replay="none")
    assert report.plan is not None
    assert report.plan.status == "not bound"


def test_a_study_without_a_plan_says_nothing_of_one(small: Run) -> None:
    assert check(small, replay="none").plan is None


# Seeds that nobody could know


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority") / "tsa")


@pytest.fixture(scope="module")
def registered(shell: Shell, authority: Authority) -> Run:
    """A study whose seeds derive from a timestamp over its plan."""
    options = ("--seeds-from-timestamp", "2", "--perturb", "carry", "--out", "reg.json")
    assert shell("plan", TINY, *options).code == 0
    early = shell("run", TINY, "--plan", "reg.json", "--out", "registered")
    assert (early.code, "it has none yet" in early.line) == (2, True)
    assert shell("timestamp", "request", "reg.json", "--out", "reg.tsq").code == 0
    reply = authority.stamp((shell.folder / "reg.tsq").read_bytes())
    (shell.folder / "reg.tsr").write_bytes(reply)
    assert shell("timestamp", "attach", "reg.json", "reg.tsr").code == 0
    root = authority.root.public_bytes(Encoding.PEM)
    (shell.folder / "authority.pem").write_bytes(root)
    done = shell("run", TINY, "--plan", "reg.json", "--out", "registered")
    assert (done.code, done.err) == (0, "")
    return run_of(shell, "registered")


@needs_openssl
def test_seeds_from_a_trusted_stamp_make_a_study_registered(shell: Shell, registered: Run) -> None:
    found = binding(shell, "registered", "--authority", "authority.pem")
    assert found.status == "registered", found
    assert found.deviations == ()
    assert "the seeds derive from the stamp" in found.remarks[0]
    seeds = registered.manifest.plan.seeds
    assert len(set(seeds)) == 2
    assert set(seeds).isdisjoint({0, 1})


@needs_openssl
def test_without_an_authority_it_is_plan_bound_only(shell: Shell, registered: Run) -> None:
    found = binding(shell, "registered", "--replay", "none")
    assert found.status == "plan-bound"
    assert "no timestamp authority was given" in found.remarks[0]


@needs_openssl
def test_a_stranger_authority_registers_nothing(
    shell: Shell, registered: Run, tmp_path: Path
) -> None:
    stranger = make_authority(tmp_path / "stranger")
    path = tmp_path / "stranger.pem"
    path.write_bytes(stranger.root.public_bytes(Encoding.PEM))
    found = binding(shell, "registered", "--replay", "none", "--authority", str(path))
    assert found.status == "plan-bound"
    assert found.remarks[0].startswith("not registered: ")


@needs_openssl
def test_chosen_seeds_under_a_stamped_plan_are_a_deviation(shell: Shell, registered: Run) -> None:
    options = ("--plan", "reg.json", "--deviate", "--seeds", "0-1", "--out", "chosen")
    assert shell("run", TINY, *options).code == 0
    found = binding(shell, "chosen", "--replay", "none", "--authority", "authority.pem")
    assert found.status == "plan-bound"
    assert any(line.startswith("plan, seeds ") for line in found.deviations)
    assert found.remarks[0] == "not registered: the study deviates from its plan"


def test_registered_seeds_have_a_known_answer() -> None:
    # printf '["auditkit-registered-seed/1","00...",0]' | sha256sum: its first 8 bytes are
    # 2117c20ff61d1e30, little-endian, modulo 2^31.
    seeds = registered_seeds("00" * 32, 4)
    assert seeds == (264378145, 779376434, 1017712476, 1500341507)
    assert registered_seeds("00" * 32, 5)[:4] == seeds
    assert set(seeds).isdisjoint(registered_seeds("01" * 32, 4))


def test_both_ways_to_choose_seeds_exclude_each_other(shell: Shell) -> None:
    done = shell("plan", TINY, *SMALL, "--seeds-from-timestamp", "3", "--out", "both.json")
    assert (done.code, "exclude each other" in done.line) == (2, True)


def test_a_missing_package_is_a_remark_not_an_error(shell: Shell, bound: Run) -> None:
    key = TrustedKey(fingerprint(bound.key), bound.key.public_key(), "test")
    signed = open_plan((shell.folder / "plan.json").read_bytes(), [key], what="plan.json")

    def missing(reply: bytes) -> str:
        raise UsageError("not installed")

    stamped = type(signed)(
        signed.data,
        canonical.decode(
            Registration,
            canonical.encode(signed.registration).replace(
                b'"seeds_from":"plan"', b'"seeds_from":"timestamp"'
            ),
            what="plan",
        ),
        signed.signature,
        key,
        (b"reply",),
    )
    with pytest.raises(UsageError, match="not installed"):
        stamped.study_plan(missing)
    with pytest.raises(PlanError, match="none yet"):
        type(stamped)(stamped.data, stamped.registration, b"", key, ()).study_plan(missing)
    assert Authorities().check is None


def test_the_statement_of_a_plan_lists_the_code(shell: Shell, bound: Run) -> None:
    statement = json.loads(statement_bytes(shell.folder / "plan.json"))
    assert [item["name"] for item in statement["subject"]] == ["code/tiny_study.py"]
    assert statement["predicateType"] == "urn:auditkit:plan:v1"
