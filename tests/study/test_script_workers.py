"""A study of a script that runs its own loop: ``auditkit run ... -- COMMAND``, unchanged."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_shell import CompletedCommand, Shell
from record_examples import PREFLIGHT, TRUNK
from studies import PROGRAMS

from auditkit.errors import AuditError, PlanError, ProgramError, ProgramFailed
from auditkit.files import store
from auditkit.files.run_folder import RunFolder
from auditkit.formats import canonical
from auditkit.formats.run_files import trace_from_tensors
from auditkit.formats.statements import study_from_statement
from auditkit.records.job import Job, ProgramSource
from auditkit.records.manifest import StudyManifest
from auditkit.records.plan import StudyPlan
from auditkit.records.results import TrunkResult
from auditkit.records.rng import StreamContract
from auditkit.signing.envelopes import open_envelope
from auditkit.study.request import StudyRequest, script_source
from auditkit.study.script_workers import ScriptWorkers
from auditkit.study.seed_runs import run_seeds

SCRIPT = str(PROGRAMS / "script_study.py")
COMMAND = (sys.executable, SCRIPT, "{seed}", "2")
PLAN = StudyPlan(
    fork_at=10,
    window=3,
    horizon=18,
    seeds=[0],
    perturbations=["order-reverse", "batchnorm-reset"],
    placebos=1,
    augmentation_rng="inherit",
)
OPTIONS = [
    *("--fork-at", "10", "--window", "3", "--horizon", "18", "--placebos", "1"),
    *("--perturb", "order-reverse", "--perturb", "batchnorm-reset", "--probe-at", "12,16"),
]


class Study:
    """One study of the script, whose command runs in processes of its own."""

    def __init__(self, folder: Path) -> None:
        self._shell = Shell.at(folder / "user", keygen=False)
        self.folder = self._shell.folder
        self.ran = self("run", *OPTIONS, "--out", "out", "--", *COMMAND)

    def __call__(self, *arguments: str) -> CompletedCommand:
        return self._shell(*arguments)

    @property
    def manifest(self) -> StudyManifest:
        data = (self.folder / "out" / "manifest.json").read_bytes()
        return study_from_statement(open_envelope(data).payload, what="manifest.json")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    found = Study(tmp_path_factory.mktemp("scripts"))
    assert found.ran.code == 0, found.ran.err
    return found


def test_the_replica_equals_the_control_in_every_column(study: Study) -> None:
    # Mid-epoch 1, two workers, augmentation from every stream, BatchNorm, dropout, scheduler:
    # the script has no code for any of it.
    def trace(name: str) -> Any:
        path = study.folder / "out" / "seed-0000" / f"{name}.trace.safetensors"
        return trace_from_tensors(store.read_tensors(path, what=name)[0], what=name)

    control = trace("control")
    assert control.first_difference(trace("replica")) is None
    reset = control.first_difference(trace("batchnorm-reset"))
    assert (reset.step, reset.components) == (11, ("batchnorm",))
    order = control.first_difference(trace("order-reverse"))
    assert order.step == 11
    assert "order" in order.components


def test_the_manifest_names_the_command_and_holds_the_script(study: Study) -> None:
    program = study.manifest.program
    assert program.command[-2:] == ("{seed}", "2")
    assert [file.name for file in program.code] == ["script_study.py"]
    assert study.manifest.plan.augmentation_rng == "inherit"
    times = {"t0", "t0+2", "t0+W", "t0+6", "T"}
    assert all(set(branch.digests) == times for branch in study.manifest.seeds[0].branches)
    contract = study.manifest.seeds[0].rng
    assert all(stream.seed is None for stream in contract.streams)
    assert not (study.folder / "recorded").exists()


def test_without_a_command_nothing_is_replayed(study: Study) -> None:
    done = study("verify", "out/manifest.json", "--json", "-")
    report: Any = canonical.loads(done.out.encode(), what="report")
    assert (done.code, report["verdict"]) == (0, "integrity-only")
    assert "verify MANIFEST -- COMMAND" in report["checks"][7]["summary"]
    assert report["estimates"] is None


def test_with_the_command_it_verifies_and_estimates(study: Study) -> None:
    done = study("verify", "out/manifest.json", "--json", "-", "--", *COMMAND)
    report: Any = canonical.loads(done.out.encode(), what="report")
    assert (done.code, report["verdict"]) == (0, "verified"), done.out
    estimates = report["estimates"]
    assert estimates["times"] == {"t0+2": 12, "t0+W": 13, "t0+6": 16, "T": 18}
    assert {row["time"] for row in estimates["distances"]} == set(estimates["times"])


@pytest.mark.slow
def test_another_script_is_told(study: Study) -> None:
    text = Path(SCRIPT).read_text().replace("momentum=0.9", "momentum=0.8")
    (study.folder / "other.py").write_text(text)
    command = (sys.executable, "other.py", "{seed}", "2")
    done = study("verify", "out/manifest.json", "--replay", "1", "--json", "-", "--", *command)
    report: Any = canonical.loads(done.out.encode(), what="report")
    assert done.code == 1
    findings = report["checks"][7]["findings"]
    assert any("other.py, script_study.py" in finding["message"] for finding in findings)
    assert (findings[1]["step"], findings[1]["where"]) == (1, "seed 0, trunk")


def job(tmp_path: Path, **changes: Any) -> Job:
    values: dict[str, Any] = {"plan": PLAN, "seed": 0, "out": str(tmp_path)}
    return Job("trunk", ProgramSource("script", str(tmp_path), {}), **{**values, **changes})


@pytest.mark.parametrize(
    ("command", "variables", "error", "message"),
    [
        ((sys.executable, "-c", "print('hello')"), {}, ProgramFailed, "no Recorder"),
        (("false",), {}, ProgramFailed, "status 1"),
        ((*COMMAND[:3], "0"), {"SCRIPT_PROBE": "none"}, ProgramError, "probe"),
        ((*COMMAND[:3], "0"), {"SCRIPT_STEPS": "12"}, ProgramError, "ended after 14 steps"),
        (
            (*COMMAND[:3], "0"),
            {"SCRIPT_GROUP": "top"},
            AuditError,
            "no parameter or buffer",
        ),
        (("no-such-command",), {}, AuditError, "no-such-command"),
    ],
    ids=["no Recorder", "fails", "no probe", "too short", "no such group", "not found"],
)
def test_a_script_that_cannot_do_the_job_is_told(
    tmp_path: Path,
    command: tuple[str, ...],
    variables: dict[str, str],
    error: type[AuditError],
    message: str,
) -> None:
    with (
        ScriptWorkers(command, tmp_path, variables) as workers,
        pytest.raises(error, match=message),
    ):
        workers.run(job(tmp_path))


def test_named_groups_are_components_of_a_study_of_a_script(tmp_path: Path) -> None:
    command, variables = (*COMMAND[:3], "0"), {"SCRIPT_GROUP": "5.*"}
    with ScriptWorkers(command, tmp_path, variables) as workers:
        trunk = workers.run(job(tmp_path, plan=PLAN.changed(fork_at=2, window=1, horizon=4)))
    assert {"params", "params/head"} <= set(trunk.components)
    assert "params/head" in trunk.fork_digests or "params/head" in trunk.initial


def test_several_seeds_need_a_place_in_the_command(tmp_path: Path) -> None:
    plan = StudyPlan(10, 3, 18, [0, 1], ["carry"], augmentation_rng="inherit")
    with pytest.raises(PlanError, match="the command is the same for all"):
        script_source(("python", "train.py"), plan, tmp_path)
    assert script_source(COMMAND, plan, tmp_path).target.endswith("'{seed}' 2")


@pytest.mark.parametrize(
    ("first", "refused"), [("a", "rng/numpy begins elsewhere"), ("c", None)], ids=["never", "late"]
)
def test_streams_that_a_script_leaves_to_chance_are_refused_after_the_first_trunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, refused: str | None
) -> None:
    streams = tuple(StreamContract(f"rng/{n}", None, "a", "a", "a") for n in ("numpy", "python"))
    initial = {"rng/numpy": first, "rng/python": "a"}
    trunk = replace(TRUNK, rng=replace(TRUNK.rng, streams=streams), initial=initial)
    built = replace(PREFLIGHT.built, initial={"rng/numpy": "b", "rng/python": "a"})
    jobs: list[str] = []

    def run(_: ScriptWorkers, job: Job, *__: object) -> TrunkResult:
        jobs.append(job.kind)
        if job.kind != "trunk":
            raise ProgramFailed("it goes on")
        return trunk

    monkeypatch.setattr(ScriptWorkers, "run", run)
    monkeypatch.setattr("auditkit.files.run_parts.SeedParts.keep_trunk", lambda *_: None)
    request = StudyRequest(
        script_source(COMMAND, PLAN, tmp_path),
        PLAN,
        tmp_path / "out",
        command=COMMAND,
        preflight=replace(PREFLIGHT, built=built),
    )
    with pytest.raises(AuditError, match=refused or "it goes on"):
        run_seeds(request, RunFolder(request.out), lambda _: None, None)
    assert jobs == (["trunk"] if refused else ["trunk", "branches"])
