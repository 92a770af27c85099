"""Run a planted source, verify the run, and see what was said."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from planted import EXIT_CODES, Planted
from studies import PLAN, TESTS, InProcessWorkers, Run, check, study_in_process

from auditkit.errors import AuditError
from auditkit.evidence.reader import RunEvidence
from auditkit.records.plan import PerturbationSpec, StudyPlan
from auditkit.records.report import Finding, VerificationReport
from auditkit.replay.study_replay import ReplayRequest, replay
from auditkit.signing.keys import PrivateKey

HERE = Path(__file__).parent

#: As in ``programs/unsteady_study.py``.
VARIABLE = "AUDITKIT_TEST_WORLD"

#: The fork lies in the middle of epoch 1, the horizon in epoch 2; few branches and few steps, as
#: each is run up to five times.
FEW = replace(PLAN, horizon=10, perturbations=(PerturbationSpec("momentum-reset"),))

#: For any optimizer.
ANY = replace(FEW, perturbations=(PerturbationSpec("optimizer-reset"),))

_MODULE = re.compile(r"the first module that differs in two runs of this step: (.*)$")


@dataclass(frozen=True)
class Said:
    """What was said of a program.

    Attributes:
        kind: As in :class:`planted.Planted`; ``none`` where nothing was.
        step: First step.
        component: First component.
        module: First module.
        exit_code: Exit code that goes with it.
        text: All of it.
    """

    kind: str
    step: int | None = None
    component: str | None = None
    module: str | None = None
    exit_code: int = 0
    text: str = ""

    def place_is_right(self, planted: Planted) -> bool:
        """Whether step and component are those of the source."""
        return (self.step, self.component) == (planted.step, planted.component)

    def module_is_right(self, planted: Planted) -> bool:
        """Whether the module is that of the source, or none is named where none is at fault."""
        if planted.module is None or self.module is None:
            return planted.module is self.module
        return self.module.startswith(planted.module)

    def is_right(self, planted: Planted) -> bool:
        """Whether all of it is."""
        return (
            (self.kind, self.exit_code) == (planted.kind, EXIT_CODES[planted.kind])
            and self.place_is_right(planted)
            and self.module_is_right(planted)
        )


def run_program(
    folder: Path, key: PrivateKey, target: str, arguments: dict[str, str], plan: StudyPlan
) -> Run:
    """Run a study of a program of this folder; tests are no part of the code that it imports."""
    sources = folder / "sources"
    shutil.copytree(HERE / "programs", sources, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TESTS / "programs" / "tiny_study.py", sources)
    return study_in_process(folder / "run", key, plan, target, sources, arguments)


def examine(planted: Planted, folder: Path, key: PrivateKey, *, replays: int | None = None) -> Said:
    """Plant a source, run a study, verify it.

    Args:
        planted: The source.
        folder: An empty folder.
        key: To sign with.
        replays: As of :func:`studies.check`.
    """
    data = make_data(folder / "data")
    arguments = {name: text.format(data=data) for name, text in planted.arguments.items()}
    try:
        with _world("first"):
            run = run_program(folder, key, f"unsteady_study.py:{planted.factory}", arguments, FEW)
    except AuditError as error:
        component = error.component or error.message.rpartition(": ")[2]
        return Said("refused", error.step, component, None, error.exit_code, str(error))
    if planted.between is not None:
        planted.between(run, data)
    here = run.manifest.environment
    if planted.other_environment:
        here = replace(here, libraries={**here.libraries, "openmp": "OpenMP 1999"})
    with _world("another" if planted.other_world else "first"):
        if planted.branches is not None:
            return _said(_replay(run, planted.branches))
        return said_of(check(run, environment=here, replays=replays))


def said_of(report: VerificationReport) -> Said:
    """What a report says first of a replay; of the replica, where the replay was as recorded."""
    by_number = {result.number: result.findings for result in report.checks}
    if by_number[8]:
        return replace(_said(by_number[8]), exit_code=report.exit_code)
    findings = [finding for result in report.checks for finding in result.findings]
    if not findings:
        return Said("none")
    first = by_number[9][0] if by_number[9] else findings[0]
    kind = "leak" if by_number[9] else f"check {report.exit_code}"
    return Said(kind, first.step, first.component, None, report.exit_code, str(first))


def make_data(folder: Path) -> Path:
    """56 numbers in one file, and the same in seven."""
    folder.mkdir()
    numbers = [f"{(7 * n) % 11 / 4 - 1:.2f}" for n in range(56)]
    (folder / "points.txt").write_text(" ".join(numbers))
    for part in range(7):
        text = " ".join(numbers[8 * part : 8 * part + 8])
        file = folder / f"part-{part}.txt"
        file.write_text(text)
        os.utime(file, ns=(part, part))
    return folder


def _replay(run: Run, branches: tuple[str, ...]) -> tuple[Finding, ...]:
    workers = InProcessWorkers(run.manifest.environment)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("auditkit.replay.study_replay.Workers", lambda **_: workers)
        request = ReplayRequest({0: branches}, {})
        return replay(RunEvidence(run.folder, run.manifest), request, lambda _: None).findings


def _said(findings: tuple[Finding, ...]) -> Said:
    # That a file is another is said first, and what came of it next.
    causes = [finding for finding in findings if "the data differ" not in finding.message]
    first, text = (causes or findings)[0], "\n".join(map(str, findings))
    module = _MODULE.search(first.message)
    if "nondeterminism: " in first.message:
        kind = "nondeterminism"
    elif "environment differs" in first.message:
        kind = "environment"
    elif "the record is of something else" in first.message:
        kind = "edit"
    else:
        kind = "something else"
    named = module.group(1) if module else None
    return Said(kind, first.step, first.component, named, first.exit_code, text)


@contextmanager
def _world(name: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, name)
        yield
