"""What an attacker tried on plans, consent and countersignatures: each is seen."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cli_shell import Shell
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from forging import add_file, edit_predicate, replace_file, statement_of
from studies import Run, check, check_files
from timestamp_authority import Authority, make_authority, needs_openssl

from auditkit.errors import StoreError
from auditkit.files.run_folder import Journal, RunFolder
from auditkit.formats import canonical
from auditkit.formats.seeds import registered_seeds
from auditkit.records.manifest import RunTimes
from auditkit.records.report import PlanBinding
from auditkit.replay.study_replay import ReplayOutcome
from auditkit.signing.envelopes import add_signature, open_envelope, sign_statement
from auditkit.signing.keys import fingerprint, generate_key, private_key_bytes
from auditkit.signing.timestamps import token_sha256
from auditkit.signing.trust import SigningKey, load_private_key
from auditkit.statistics.estimands import estimate
from auditkit.verification.countersigning import countersign
from auditkit.verification.procedure import VerifyRequest, verify

SMALL = ("--perturb", "carry")
TIMES = RunTimes("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z")

#: A program whose learning rate, initial weights and data come from files.
PROGRAM = """
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak


def make_program(seed: int, folder: str) -> ak.Program:
    told = json.loads(Path(folder, "config.json").read_text())
    torch.manual_seed(told["init"])
    model = torch.nn.Linear(2, 2)
    own = Path(folder, f"{seed}.txt")
    text = (own if own.exists() else Path(folder, "data.txt")).read_text()
    x = torch.tensor([float(n) for n in text.split()]).reshape(-1, 2)
    data = TensorDataset(x, (x[:, 0] > 0).long())
    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=told["lr"]),
        loader=DataLoader(data, batch_size=4, shuffle=True),
        loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        probe=ak.Probe(x, (x[:, 0] > 0).long()),
    )


STUDY = ak.StudyPlan(
    fork_at=2, window=1, horizon=4, seeds=[0], perturbations=["carry"], placebos=1
)
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority") / "tsa")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell.at(tmp_path / "user")
    shell.write("filed.py", PROGRAM)
    shell.write("data/config.json", '{"lr": 0.1, "init": 1}')
    shell.write("data/data.txt", " ".join(f"{(7 * n) % 11 - 5}" for n in range(32)))
    return shell


def planned(
    shell: Shell, authority: Authority | None, *options: str, key: str | None = None
) -> None:
    """Sign a plan of the program, and have it stamped where there is an authority."""
    signer = ("--key", key) if key else ()
    seeds = ("--seeds-from-timestamp", "2") if authority else ()
    arguments = ("--arg", f"folder={shell.folder}/data")
    done = shell("plan", "filed.py", *arguments, *seeds, *options, *signer)
    assert done.code == 0, done.err
    if authority:
        stamped(shell, authority)
        pem = authority.root.public_bytes(Encoding.PEM)
        (shell.folder / "root.pem").write_bytes(pem)


def stamped(shell: Shell, authority: Authority) -> None:
    (shell.folder / "q.tsq").unlink(missing_ok=True)
    assert shell("timestamp", "request", "plan.json", "--out", "q.tsq").code == 0
    (shell.folder / "r.tsr").write_bytes(authority.stamp((shell.folder / "q.tsq").read_bytes()))
    assert shell("timestamp", "attach", "plan.json", "r.tsr").code == 0


def ran(shell: Shell, *options: str, key: str | None = None) -> str:
    """Run the study by its plan; what it said."""
    signer = ("--key", key) if key else ()
    done = shell("run", "filed.py", "--plan", "plan.json", "--out", "out", *options, *signer)
    assert done.code in (0, 2), done.err
    return done.err


def bound(shell: Shell, *options: str, trusted: str | None = None) -> PlanBinding:
    named = ("--key", trusted, "--allow-code") if trusted else ()
    authority = ("--authority", "root.pem") if (shell.folder / "root.pem").exists() else ()
    done = shell("verify", "out", *named, *authority, *options, "--json", "report.json")
    assert done.code == 0, done.out
    told = json.loads((shell.folder / "report.json").read_bytes())["plan"]
    return PlanBinding(told["status"], tuple(told["deviations"]), tuple(told["remarks"]))


@needs_openssl
def test_the_program_of_these_attacks_is_registered_when_nobody_attacks(
    shell: Shell, authority: Authority
) -> None:
    planned(shell, authority)
    assert ran(shell) == ""
    assert bound(shell).status == "registered"


@needs_openssl
def test_another_learning_rate_and_other_weights_from_a_file(
    shell: Shell, authority: Authority
) -> None:
    planned(shell, authority)
    shell.write("data/config.json", '{"lr": 0.5, "init": 2}')
    said = ran(shell)
    assert "program, hyper-parameters: lr 0.1 -> 0.5" in said
    assert "initial state, params: is another than was planned" in said
    assert not (shell.folder / "out").exists()
    ran(shell, "--deviate")
    found = bound(shell)
    assert found.status == "plan-bound"
    assert any("hyper-parameters" in line for line in found.deviations)
    assert any("initial state, params" in line for line in found.deviations)


@needs_openssl
def test_data_that_are_made_for_the_derived_seeds(shell: Shell, authority: Authority) -> None:
    planned(shell, authority)
    assert ran(shell, "--dry-run") == ""
    plan = json.loads(shell("show", "plan.json", "--json").out)
    assert plan["predicate"]["seeds_from"] == "timestamp"
    # The author derives the seeds and writes data of their own for each.
    for number in derived(shell):
        shell.write(f"data/{number}.txt", " ".join(f"{n % 5 - 2}" for n in range(40)))
    ran(shell)
    found = bound(shell)
    assert found.status == "plan-bound"
    assert any("the dataset of seed" in line for line in found.deviations)


def derived(shell: Shell) -> tuple[int, ...]:

    (signature,) = open_envelope((shell.folder / "plan.json").read_bytes()).signatures
    return registered_seeds(token_sha256(signature.timestamps[0]), 2)


@needs_openssl
@pytest.mark.parametrize(
    ("plan_options", "verify_options", "why"),
    [
        (("--skip-data",), (), "its data were not compared"),
        ((), ("--replay", "none"), "its data were not compared"),
    ],
)
def test_data_that_nobody_compared_register_nothing(
    shell: Shell,
    authority: Authority,
    plan_options: tuple[str, ...],
    verify_options: tuple[str, ...],
    why: str,
) -> None:
    planned(shell, authority, *plan_options)
    ran(shell)
    found = bound(shell, *verify_options)
    assert (found.status, found.remarks[0]) == ("plan-bound", f"not registered: {why}")


@needs_openssl
def test_a_plan_that_was_stamped_twice_registers_nothing(
    shell: Shell, authority: Authority
) -> None:
    planned(shell, authority)
    stamped(shell, authority)
    ran(shell)
    found = bound(shell, "--replay", "none")
    assert (found.status, "several timestamps" in found.remarks[0]) == ("plan-bound", True)


@needs_openssl
def test_an_ecdsa_plan_registers_nothing(shell: Shell, authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (shell.folder / "p256").write_bytes(private_key_bytes(key))
    planned(shell, authority, key="p256")
    ran(shell, key="p256")
    found = bound(shell, "--replay", "none", trusted="p256")
    assert (found.status, "ECDSA" in found.remarks[0]) == ("plan-bound", True)


def test_a_run_that_began_before_its_plan(shell: Shell) -> None:
    planned(shell, None)
    ran(shell)
    run = Run(shell.folder / "out", load_private_key(shell.folder / "config/auditkit/key"))
    edit_predicate(run, lambda told: told["run"].update(started="2001-01-01T00:00:00Z"))
    found = check_files(run).plan
    assert found is not None
    assert any(line.startswith("times: the plan was signed at") for line in found.deviations)


def test_an_unfinished_run_is_not_resumed_under_a_later_plan(shell: Shell) -> None:
    planned(shell, None)
    folder = shell.folder / "out"
    assert shell("run", "filed.py", "--plan", "plan.json", "--out", "out").code == 0
    manifest = json.loads(json.dumps(statement_of(Run(folder, generate_key()))))
    assert manifest["predicate"]["run"]["started"]

    unfinished = RunFolder(shell.folder / "unfinished")
    plan = Run(folder, generate_key()).manifest.plan
    begun = Journal(
        plan=plan,
        target="filed.py:make_program",
        arguments={},
        started="2026-01-01T00:00:00Z",
        plan_sha256=None,
        code=(),
        data={},
        built=None,
        environment=Run(folder, generate_key()).manifest.environment,
        seeds=plan.seeds,
    )
    (shell.folder / "unfinished/seed-0000").mkdir(parents=True)
    unfinished.begin(begun)
    (shell.folder / "unfinished/seed-0000/trunk.json.partial").write_text("{}")
    with pytest.raises(StoreError, match="another plan_sha256"):
        unfinished.begin(replace(begun, plan_sha256="0" * 64))


def test_a_plan_in_the_study_of_a_script_executes_nothing(shell: Shell, tmp_path: Path) -> None:
    planned(shell, None)
    ran(shell)
    run = Run(shell.folder / "out", load_private_key(shell.folder / "config/auditkit/key"))
    edit_predicate(run, lambda told: told["program"].update(command=["python", "train.py"]))
    called: list[object] = []

    def registrar(*arguments: object) -> None:
        called.append(arguments)

    outcome = ReplayOutcome((), {}, ())
    request = VerifyRequest(run.trusted, command=("python", "train.py"))
    report = verify(run.path, request, lambda *_: outcome, estimate, registrar=registrar)  # type: ignore[arg-type]
    assert called == []
    assert report.plan is not None
    assert report.plan.status == "not bound"


def test_a_co_signature_is_no_consent_to_execute(forged: Run) -> None:
    own = generate_key()
    forged.path.write_bytes(add_signature(forged.path.read_bytes(), own))
    mine = SigningKey(own, fingerprint(own), "test").trusted
    report = check(forged, trusted=[mine])
    assert report.exit_code == 6
    assert "give --allow-code" in str(report.checks[7].findings[0])
    assert check(forged, trusted=[mine], allow_code=True).verdict == "verified"


def test_a_plan_is_bound_whichever_signer_is_trusted_first(
    shell: Shell, copied: Callable[[Run], Run]
) -> None:
    planned(shell, None)
    ran(shell)
    run = Run(shell.folder / "out", load_private_key(shell.folder / "config/auditkit/key"))
    other = generate_key()
    run.path.write_bytes(add_signature(run.path.read_bytes(), other))
    keys = [SigningKey(other, fingerprint(other), "test").trusted, *run.trusted]
    found = check_files(run, trusted=keys).plan
    assert found is not None
    assert (found.status, found.deviations) == ("plan-bound", ())


# Countersignatures


def test_the_authors_own_does_not_count_where_check_2_failed(forged: Run) -> None:
    author = SigningKey(forged.key, fingerprint(forged.key), "test")
    countersign(forged.folder, check_files(forged), TIMES, author)
    report = check_files(forged, threshold=2)
    assert report.exit_code == 3
    assert [found.counts for found in report.countersignatures] == [False]


def test_a_thief_does_not_inherit_a_countersignature(forged: Run) -> None:
    reviewer, thief = generate_key(), generate_key()
    named = SigningKey(reviewer, fingerprint(reviewer), "test")
    countersign(forged.folder, check_files(forged), TIMES, named)
    payload = canonical.dumps(statement_of(forged))
    forged.path.write_bytes(sign_statement(payload, thief))
    stolen = SigningKey(thief, fingerprint(thief), "test").trusted
    report = check_files(forged, trusted=[stolen, named.trusted])
    (found,) = report.countersignatures
    assert not found.counts
    assert fingerprint(forged.key) in found.remark


def test_no_path_of_the_reviewer_is_published(forged: Run, tmp_path: Path) -> None:
    reviewer = generate_key()
    public = tmp_path / "alice" / "author.pub"
    keys = [
        type(key)(key.fingerprint, key.public_key, str(public), own=False) for key in forged.trusted
    ]
    named = SigningKey(reviewer, fingerprint(reviewer), str(tmp_path / "alice" / "key"))
    path = countersign(forged.folder, check_files(forged, trusted=keys), TIMES, named)
    statement = json.loads(path.read_bytes())

    assert b"alice" not in base64.b64decode(statement["payload"])


def test_a_second_plan_file_is_refused(shell: Shell) -> None:
    planned(shell, None)
    ran(shell)
    run = Run(shell.folder / "out", load_private_key(shell.folder / "config/auditkit/key"))
    add_file(run, "plan2.json", (run.folder / "plan.json").read_bytes(), "plan")
    report = check_files(run)
    assert report.exit_code == 1
    assert "plan2.json" in str(report.checks[3].findings[0])
    replace_file(run, "plan.json", b"{}")
