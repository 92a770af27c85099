"""Run tiny studies and verify them, inside the test's own process where a fresh one is not the
point: a process that loads torch takes seconds, a job takes milliseconds.
"""

from __future__ import annotations

import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from auditkit.errors import ReplicaMismatch
from auditkit.evidence.reader import RunEvidence
from auditkit.files import store
from auditkit.formats import canonical
from auditkit.formats.statements import study_from_statement
from auditkit.formats.structure import from_dict, to_dict
from auditkit.observe.loader.driver import Delivery
from auditkit.observe.machine import code, loaded
from auditkit.observe.rng.streams import capture_streams
from auditkit.observe.state.components import State
from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.digests import commitments
from auditkit.processes.side_by_side import SeveralProgress
from auditkit.processes.worker_pool import RESULTS, Keep, Workers, run_apart, run_branches
from auditkit.program.program import Program, load_factory
from auditkit.program.session import Session, open_session
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.environment import Environment, protocol_variables
from auditkit.records.job import Job, ProgramSource, Progress
from auditkit.records.manifest import StudyManifest
from auditkit.records.plan import StudyPlan
from auditkit.records.report import OPEN, CheckResult, Finding, VerificationReport
from auditkit.replay.study_replay import ReplayOutcome, ReplayRequest, replay
from auditkit.signing.envelopes import open_envelope
from auditkit.signing.keys import PrivateKey, TrustedKey, fingerprint
from auditkit.signing.trust import SigningKey
from auditkit.statistics.estimands import estimate
from auditkit.study.request import StudyRequest, resolve
from auditkit.study.runner import run_study
from auditkit.study.stages.auditor import Auditor
from auditkit.study.stages.holder import hold
from auditkit.study.worker import branch_processes, job_files, jobs
from auditkit.verification.procedure import VerifyRequest, verify

TESTS = Path(__file__).parent
PROGRAMS = TESTS / "programs"
TINY = "tiny_study.py:make_program"
FAULTY = "faulty_study.py:make_program"

#: As in ``programs/tiny_study.py``.
PLAN = StudyPlan(
    fork_at=6,
    window=3,
    horizon=14,
    seeds=[0],
    perturbations=["carry", "momentum-reset", "batchnorm-reset", "order-reverse"],
    placebos=1,
)

_LOCK = threading.Lock()

#: Where libraries lie, and names of modules that were found there: a test process has thousands.
_LIBRARIES = tuple(f"{path}/" for path in {*map(sysconfig.get_path, ("stdlib", "purelib"))})
_INSTALLED: set[str] = set()

#: After so many modules that were there before, no other is looked for.
_KNOWN_IN_A_ROW = 300


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Its folder.
        key: What it was signed with.
    """

    folder: Path
    key: PrivateKey

    @property
    def path(self) -> Path:
        """Its manifest."""
        return self.folder / "manifest.json"

    @property
    def manifest(self) -> StudyManifest:
        """What its manifest says."""
        return study_from_statement(open_envelope(self.path.read_bytes()).payload, what="manifest")

    @property
    def trusted(self) -> list[TrustedKey]:
        """Its key as the verifier's own."""
        return [TrustedKey(fingerprint(self.key), self.key.public_key(), "test", own=True)]


class InProcessWorkers:
    """Does jobs in this process; :class:`auditkit.processes.worker_pool.Workers`: in others."""

    def __init__(self, environment: Environment | None = None, **_: object) -> None:
        self._environment = environment
        self.jobs: list[Job] = []

    def __enter__(self) -> InProcessWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Nothing runs any more."""

    def run(
        self,
        job: Job,
        report: Callable[[Progress], None] = lambda _: None,
        keep: Keep = lambda _: None,
        /,
    ) -> Any:
        """Do a job; its answer goes through JSON, as a worker's does."""
        self.jobs.append(job)
        if job.kind == "branches":
            return run_branches(self._one, job, SeveralProgress(report, job.branches), keep=keep)
        return self._one(job, report)[0]

    def run_seed(
        self,
        job: Job,
        report: Callable[[Progress], None] = lambda _: None,
        keep: Keep = lambda _: None,
    ) -> Any:
        """Trunk and branches."""
        return run_apart(self, job, report, keep)

    def _one(self, job: Job, report: Callable[[Progress], None]) -> list[Any]:
        """The first branch of a job, or the whole of another kind."""
        job = replace(job, branches=job.branches[:1])
        with _LOCK, untouched(Path(job.program.folder)), pytest.MonkeyPatch.context() as patch:
            threads = job.plan.threads if job.plan else 1
            for name, value in protocol_variables(threads).items():
                patch.setenv(name, value)  # as in a process of its own
            # Of a fork of the tests' own process the parent would end, with no failure of any test.
            patch.setattr(branch_processes, "CAN_FORK", False)
            result: Any = jobs.run_job(job, report)
        if self._environment is not None and hasattr(result, "environment"):
            result = replace(result, environment=self._environment)
        answer = canonical.loads(canonical.dumps(to_dict(result)), what="answer")
        return [from_dict(RESULTS[job.kind], answer, what="answer")]


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Put random streams, ``sys.path`` and the modules of ``folder`` back afterwards."""
    streams, path = capture_streams(), list(sys.path)
    foreign, digest_code = code._library_folders, code.user_code
    with pytest.MonkeyPatch.context() as patch:
        # These tests are no part of the program that they run.
        scripts = Path(sys.executable).parent
        patch.setattr(code, "_library_folders", lambda: [*foreign(), TESTS, scripts])
        # Of a replay nobody asks, and a test process has thousands of modules to look at.
        patch.setattr(
            job_files,
            "user_code",
            lambda to, end, **given: digest_code(to, end, **given) if to else (),
        )
        # What the tests themselves have imported is nobody's program.
        known = sys.modules.copy()
        patch.setattr(loaded, "module_files", lambda: _files_since(known))
        try:
            yield
        finally:
            sys.path[:] = path
            prefix = f"{folder}/"
            for name in sys.modules.keys() - _INSTALLED:
                file = getattr(sys.modules.get(name), "__file__", None) or ""
                if file.startswith(prefix):
                    del sys.modules[name]
                elif file.startswith(_LIBRARIES):
                    _INSTALLED.add(name)
            streams.restore()


def _files_since(known: Mapping[str, ModuleType]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, module in sorted(_modules_since(known)):
        file = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(file, str) and not _is_test(file):
            found.setdefault(file, name)
    return found


def _modules_since(known: Mapping[str, ModuleType]) -> Iterator[tuple[str, ModuleType]]:
    """They are the last ones, but for those that have taken another's place."""
    in_a_row = 0
    for name, module in reversed(sys.modules.copy().items()):
        if known.get(name) is not module:
            yield name, module
            in_a_row = 0
        elif (in_a_row := in_a_row + 1) == _KNOWN_IN_A_ROW:
            return


def _is_test(path: str) -> bool:
    return path.startswith((f"{TESTS}/", str(Path(sys.executable).parent)))


@contextmanager
def tiny_session(
    change: Callable[[Program], Program] = lambda program: program,
    plan: StudyPlan = PLAN,
    /,
    **arguments: str,
) -> Iterator[Session]:
    """A live program of the tiny study.

    Args:
        change: Turns the program into another.
        plan: Its plan.
        arguments: Of the factory.
    """
    with untouched(PROGRAMS):
        tiny = load_factory(TINY, PROGRAMS)

        def make(seed: int) -> Program:
            return change(tiny.make(seed, **arguments))

        session = open_session(replace(tiny, make=make), {}, plan, 0)
        try:
            yield session
        finally:
            session.close()


def digests_of(session: Session) -> dict[str, str]:
    """The whole training state, as a digest a component."""
    return commitments(session.state())


class CallbackSpy:
    """Callbacks that remember what they were called with while a branch is held."""

    def __init__(self) -> None:
        self.boundaries: list[int] = []
        self.deliveries: list[Delivery] = []
        self.losses: list[float | None] = []

    def on_boundary(self, step: int, state: State) -> None:
        """Note the step."""
        self.boundaries.append(step)

    def on_batch(self, step: int, delivery: Delivery, leaves: Leaves) -> None:
        """Note the delivery."""
        self.deliveries.append(delivery)

    def on_step_end(self, step: int, loss: float | None) -> None:
        """Note the loss."""
        self.losses.append(loss)


def trained(session: Session, first: int, last: int) -> Auditor:
    """Train a session; what it left as evidence."""
    auditor = Auditor(first, commit_data=True)
    hold(session, first, last, auditor, CallbackSpy())
    return auditor


def study_in_process(
    out: Path,
    key: PrivateKey,
    plan: StudyPlan = PLAN,
    target: str = TINY,
    program: Path = PROGRAMS,
    arguments: Mapping[str, str] | None = None,
    *,
    fresh: bool = False,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> Run:
    """Run a study in this process, or in fresh ones after all.

    Its programs are copied first, since tests are not own code.
    """
    folder = out.parent / f"{out.name}-program"
    store.make_folder(folder)
    for file in program.glob("*.py"):
        store.copy_file(file, folder / file.name)
    source = ProgramSource(target, str(folder), dict(arguments or {}))
    request = StudyRequest(source, resolve(plan, DECLARATIONS), out, resume=resume)
    kind: Any = Workers if fresh else InProcessWorkers
    with kind() as workers:
        try:
            signing = SigningKey(key, fingerprint(key), "test")
            run_study(request, signing, report, warn, workers)
        except ReplicaMismatch as error:  # its manifest is there to be verified
            warn(error.message)
    return Run(out, key)


def check(
    run: Run,
    *,
    environment: Environment | None = None,
    fresh: bool = False,
    replays: int | None = None,
    **options: Any,
) -> VerificationReport:
    """Verify a run.

    Args:
        run: The run.
        environment: What replays seem to run in; by default what was recorded.
        fresh: Whether to replay in fresh processes after all.
        replays: How often what differs is replayed at most, where the usual number takes too long.
        options: Of the :class:`VerifyRequest`.
    """
    request = VerifyRequest(**{"trusted": run.trusted, **options})

    def replayer(evidence: RunEvidence, wanted: ReplayRequest) -> ReplayOutcome:
        with pytest.MonkeyPatch.context() as patch:
            if replays is not None:
                patch.setattr("auditkit.replay.seed_replay.MAX_REPLAYS", replays)
            if not fresh:
                here = InProcessWorkers(environment or evidence.manifest.environment)
                patch.setattr("auditkit.replay.study_replay.Workers", lambda **_: here)
            return replay(evidence, wanted, lambda _: None)

    return verify(run.path, request, replayer, estimate)


def check_files(run: Run, **options: Any) -> VerificationReport:
    """Verify a run without replay."""
    return check(run, replay="none", **options)


def failures(report: VerificationReport) -> set[int]:
    """Numbers of the checks that failed, or that cannot be decided."""
    wrong = ("failed", *OPEN)
    return {result.number for result in report.checks if result.status in wrong}


def findings_text(report: VerificationReport) -> str:
    """All findings, for a test that fails because there are any."""
    return "\n".join(str(finding) for result in report.checks for finding in result.findings)


def result_of(report: VerificationReport, number: int) -> CheckResult:
    """One check of a report."""
    return report.checks[number - 1]


def first_finding(report: VerificationReport, number: int) -> Finding:
    """What a check says first."""
    return result_of(report, number).findings[0]
