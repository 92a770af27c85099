"""What a program can learn of the branch that it is in, as the page on limits says it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_shell import PATIENCE, Shell
from studies import PLAN, check, failures, findings_text, study_in_process

from auditkit.signing.keys import PrivateKey

#: Places that tell a program which branch it is in; the page on limits names them.
TELLING = (
    "stack: auditkit.study.worker.jobs.",
    "stack: auditkit.cli.worker.worker, job",  # of a branch that is no fork
    "stack: auditkit.study.stages.holder.hold, callback",
    "heap: auditkit.study.worker.callbacks.BranchCallback",
    "files",  # of the branches before it
)

#: Places that hold the names of all branches or perturbations, whichever is run.
ALL_NAMES = (
    *(
        "heap: auditkit.records.job.Job",
        "heap: auditkit.records.perturbation_spec.PerturbationSpec",
    ),
    *("heap: auditkit.records.declaration.Declaration", "heap: auditkit.records.plan.StudyPlan"),
    *("stack: auditkit.study.worker.jobs.", "stack: auditkit.cli.worker."),
    "stack: auditkit.processes.",
)

#: Programs that act otherwise in one treatment, and in what way they learn of it.
_BY_STATE = """
        zeroed = any(float(s["momentum_buffer"].abs().sum()) == 0
                     for s in program.optimizer.state.values() if "momentum_buffer" in s)
"""
_BY_STACK = """
        import sys
        frame, zeroed = sys._getframe(1), False
        while frame is not None:
            known = [v for v in frame.f_locals.values() if type(v) is str]
            zeroed = zeroed or "momentum-reset" in known
            frame = frame.f_back
"""
_IN_REPLICA = """
        import sys
        frame, zeroed = sys._getframe(1), False
        while frame is not None:
            zeroed = zeroed or frame.f_locals.get("name") == "replica"
            frame = frame.f_back
"""
_PROGRAM = """
from dataclasses import replace
import tiny_study
import auditkit as ak

def make_program(seed: int) -> ak.Program:
    program = tiny_study.make_program(seed)
    loss = program.loss
    def aware(model, batch):{look}
        return loss(model, batch) * (2.0 if zeroed else 1.0)
    return replace(program, loss=aware)
"""


@pytest.mark.parametrize(
    ("look", "failed"),
    [(_BY_STATE, set()), (_BY_STACK, set()), (_IN_REPLICA, {9})],
    ids=["looks at moments", "looks at the call stack", "acts otherwise in the replica"],
)
def test_code_that_knows_its_branch_is_verified_as_the_code_that_is_listed(
    look: str, failed: set[int], tmp_path: Path, key: PrivateKey
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    tiny = Path(__file__).parents[1] / "programs" / "tiny_study.py"
    (programs / "tiny_study.py").write_bytes(tiny.read_bytes())
    (programs / "aware_study.py").write_text(_PROGRAM.format(look=look), encoding="utf-8")
    run = study_in_process(tmp_path / "run", key, PLAN, "aware_study.py", programs)
    report = check(run)
    assert failures(report) >= failed, findings_text(report)
    if not failed:
        assert report.verdict == "verified", findings_text(report)
    listed = (run.folder / "code" / "aware_study.py").read_text(encoding="utf-8")
    assert look in listed  # where a reader sees it


def test_the_places_that_tell_a_branch_are_those_that_the_manual_names(tmp_path: Path) -> None:
    shell = Shell.at(tmp_path / "user")
    log = tmp_path / "log"
    (tmp_path / "tmp").mkdir()
    process = shell.start(
        *("run", "curious_study.py", "--out", "out", "--arg", f"log={log}"),
        env={"TMPDIR": str(tmp_path / "tmp")},  # what others leave in theirs tells nothing
    )
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    tried, trunk, *branches = (json.loads(line) for line in log.read_text().splitlines())
    for place, names in (*tried.items(), *trunk.items()):
        assert len(names) == 4, (place, names)  # the plan's perturbations
    assert len(branches) == 6
    for found in branches:
        for place, names in found.items():
            known = TELLING if len(names) < 4 else (*TELLING, *ALL_NAMES)
            assert place.startswith(known), (place, names)
