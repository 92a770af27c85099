"""Check 8: run a manifest's branches again and compare.

Per seed one fresh process runs trunk and control from the seed, and its fork is compared with
the file; a second runs the branches from the file. A replaying process is given code, fork and
order only, as copies in a folder of its own; recorded traces and outcomes stay here, where the
comparison is made.

A replay that differs from the record is repeated, up to :data:`MAX_REPLAYS` times in all.
Replays that agree with each other but not with the record say that the record is of something
else; replays that disagree say that the program is not deterministic here, and the step at
which they part is run twice more with every module digested.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from auditkit import store
from auditkit.attempts import Attempt, Comparison, find_disagreement, read_attempt
from auditkit.comparison import Parting, distance, first_module
from auditkit.errors import AuditError
from auditkit.evidence import RunEvidence
from auditkit.launch import Report, Workers
from auditkit.records.environment import Environment
from auditkit.records.job import Job, ModuleTrace, ProgramSource
from auditkit.records.manifest import CODE_FOLDER
from auditkit.records.report import Finding
from auditkit.records.study import SeedRecord
from auditkit.runfiles import Outcome
from auditkit.scripts import ScriptWorkers

#: A replay that differs from the record is repeated until there are so many in all.
MAX_REPLAYS = 4


@dataclass(frozen=True)
class ReplayRequest:
    """What to replay, and how.

    Attributes:
        choice: Branches (the control excluded) to replay, by seed; seeds that are absent are
            not replayed at all.
        arguments: Arguments of the factory that replace recorded ones.
        jobs: Seeds that are replayed at the same time.
        command: The user's own command, for a study of a script; given by the verifier, never
            taken from a record.
    """

    choice: Mapping[int, tuple[str, ...]]
    arguments: Mapping[str, str]
    jobs: int = 1
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReplayOutcome:
    """What replaying found.

    Attributes:
        findings: What differs; empty where every replay equals the record.
        outcomes: Recomputed probe tables by seed and branch.
        environments: Environments that replays ran in.
        undecided: Whether what differs may be due to another environment, or nothing could be
            run.
    """

    findings: tuple[Finding, ...]
    outcomes: Mapping[tuple[int, str], Outcome]
    environments: tuple[Environment, ...]
    undecided: bool = False


def replay(run: RunEvidence, request: ReplayRequest, report: Report) -> ReplayOutcome:
    """Replay the chosen branches of every seed.

    Args:
        run: The recorded run, whose files passed checks 1 to 3.
        request: What to replay.
        report: Called with progress, from several threads.
    """
    seeds = [record for record in run.manifest.seeds if record.seed in request.choice]
    own = ScriptWorkers(request.command) if request.command else Workers()
    with tempfile.TemporaryDirectory(prefix="auditkit-replay-") as scratch, own as workers:
        _copy_code(run, Path(scratch))
        replays = [
            _SeedReplay(run, record, request, workers, Path(scratch), report) for record in seeds
        ]
        with ThreadPoolExecutor(max_workers=request.jobs) as pool:
            try:
                done = list(pool.map(_SeedReplay.run, replays))
            except BaseException:
                workers.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    outcomes: dict[tuple[int, str], Outcome] = {}
    for seed in done:
        outcomes.update(seed.outcomes)
    return ReplayOutcome(
        findings=tuple(finding for seed in done for finding in seed.findings),
        outcomes=outcomes,
        environments=tuple(environment for seed in done for environment in seed.environments),
        undecided=any(seed.undecided for seed in done),
    )


def _copy_code(run: RunEvidence, scratch: Path) -> None:
    for file in run.manifest.program.code:
        name = f"{CODE_FOLDER}/{file.name}"
        target = scratch / name
        store.make_folder(target.parent)
        store.write_bytes(target, store.safe_read(run.root, name, expected_sha256=file.sha256))


class _SeedReplay:
    """Replays one seed."""

    def __init__(
        self,
        run: RunEvidence,
        record: SeedRecord,
        request: ReplayRequest,
        workers: Workers | ScriptWorkers,
        scratch: Path,
        report: Report,
    ) -> None:
        self._run = run
        self._record = record
        self._request = request
        self._workers = workers
        self._report = report
        self._comparison = Comparison(run.seed(record))
        self._scratch = scratch / f"seed-{record.seed:04d}"
        self._attempts = 0
        self._findings: list[Finding] = []
        self._environments: list[Environment] = []
        self._undecided = False

    def run(self) -> ReplayOutcome:
        """Replay trunk and control, then the chosen branches."""
        outcomes: dict[tuple[int, str], Outcome] = {}
        try:
            for job, compare in self._jobs():
                attempt = self._attempt(job)
                self._check_code(attempt)
                for name, outcome in attempt.outcomes.items():
                    outcomes[self._record.seed, name] = outcome
                partings = list(compare(attempt))
                if partings:
                    self._explain(job, compare, attempt, partings)
        except AuditError as error:
            self._undecided = True
            self._findings.append(
                Finding(f"cannot be replayed: {error}", f"seed {self._record.seed}", exit_code=6)
            )
        return ReplayOutcome(
            tuple(self._findings), outcomes, tuple(self._environments), self._undecided
        )

    def _jobs(self) -> Iterator[tuple[Job, Callable[[Attempt], Iterator[Parting]]]]:
        manifest = self._run.manifest
        program = ProgramSource(
            target=manifest.program.target,
            folder=str(self._scratch.parent / CODE_FOLDER),
            arguments={**manifest.program.arguments, **self._request.arguments},
        )
        trunk = Job("trunk", program, manifest.plan, self._record.seed, out="")
        yield trunk, self._comparison.trunk
        names = self._request.choice[self._record.seed]
        if names:
            fork, order = self._copies()
            yield (
                replace(trunk, kind="branches", fork=fork, order=order, branches=names),
                self._comparison.branches,
            )

    def _copies(self) -> tuple[str, str]:
        """Fork and order as the only recorded files that a replaying process can see."""
        folder = self._scratch / "given"
        store.make_folder(folder)
        paths = []
        for name in (self._record.fork, self._record.order):
            listed = self._run.manifest.file(name)
            data = store.safe_read(self._run.root, name, expected_sha256=listed.sha256)
            path = folder / Path(name).name
            store.write_bytes(path, data)
            paths.append(str(path))
        return paths[0], paths[1]

    def _attempt(self, job: Job) -> Attempt:
        self._attempts += 1
        out = self._scratch / f"attempt-{self._attempts}" / self._scratch.name
        store.make_folder(out)
        result = self._workers.run(replace(job, out=str(out)), self._report)
        self._environments.append(result.environment)
        attempt = read_attempt(out, result)
        store.remove_folder(out)
        return attempt

    def _explain(
        self,
        job: Job,
        compare: Callable[[Attempt], Iterator[Parting]],
        first: Attempt,
        partings: list[Parting],
    ) -> None:
        """Replay again to tell an edited record from a program that is not deterministic."""
        attempts, disagreement = [first], None
        while len(attempts) < MAX_REPLAYS and disagreement is None:
            again = self._attempt(job)
            disagreement = find_disagreement(first, again)
            attempts.append(again)
            if not list(compare(again)):
                break  # it differs from the first replay, which disagreement has noted
        if disagreement is not None:
            self._findings.append(self._nondeterminism(job, disagreement, len(attempts)))
            return
        differences = self.environment_differences()
        for parting in partings:
            where = f"seed {self._record.seed}, {parting.branch}"
            if differences:
                self._undecided = True
                text = (
                    f"{parting}; environment differs ({differences[0]}), an edit cannot be "
                    f"excluded{self._distance(parting.branch, first)}"
                )
                self._findings.append(
                    Finding(text, where, parting.step, parting.component, exit_code=6)
                )
            else:
                text = (
                    f"{parting}; {len(attempts)} replays agree with each other, so the record is "
                    "of something else: edited evidence, other code or other data"
                )
                self._findings.append(Finding(text, where, parting.step, parting.component))

    def environment_differences(self) -> list[str]:
        """What the recorded environment and the replays' do not share."""
        here = self._environments[-1]
        recorded = self._run.manifest.environment
        # What only one of the two happened to import says nothing about the other.
        shared = {name: here.packages.get(name, v) for name, v in recorded.packages.items()}
        return list(recorded.differences(replace(here, packages=shared)))

    def _check_code(self, attempt: Attempt) -> None:
        """A script is the verifier's own file; a program is run from the recorded copies."""
        recorded = {(file.name, file.sha256) for file in self._run.manifest.program.code}
        changed = recorded ^ {(file.name, file.sha256) for file in attempt.result.code}
        if self._request.command and changed and not self._undecided:
            self._undecided = True
            names = ", ".join(sorted({name for name, _ in changed}))
            self._findings.append(
                Finding(f"the command runs other code than was recorded: {names}", exit_code=6)
            )

    def _nondeterminism(self, job: Job, parting: Parting, n_replays: int) -> Finding:
        text = f"nondeterminism: {n_replays} replays disagree with each other; {parting}"
        module = self._locate(job, parting)
        if module is not None:
            text += f"; the first module that differs in two runs of this step: {module}"
        return Finding(
            text, f"seed {self._record.seed}, {parting.branch}", parting.step, parting.component
        )

    def _locate(self, job: Job, parting: Parting) -> str | None:
        """Run the step twice more with every module digested.

        A row holds the state *before* its step, so a state that differs was made by the step
        before; consumption and loss belong to the row's own step.
        """
        if parting.step is None:
            return None
        own_step = parting.component in ("order", "batch", "loss")
        first = 1 if job.kind == "trunk" else self._run.manifest.plan.fork_at + 1
        step = parting.step if own_step else parting.step - 1
        if step < first:
            return None
        modules = replace(job, kind="modules", branches=(parting.branch,), step=step, out="")
        try:
            left: ModuleTrace = self._workers.run(modules, self._report)
            right: ModuleTrace = self._workers.run(modules, self._report)
        except AuditError:
            return None  # the diagnosis is a help; that it failed changes no verdict
        return first_module(left.entries, right.entries)

    def _distance(self, branch: str, attempt: Attempt) -> str:
        name = "control" if branch in ("trunk", "fork") else branch
        if name not in attempt.outcomes:
            return ""
        recorded = self._run.outcome(self._record.branch(name))
        gaps = distance(recorded, attempt.outcomes[name])
        shown = ", ".join(
            f"{gaps[time]:.2g} at {time}" for time in ("t0", "t0+W", "T") if time in gaps
        )
        return f"; total variation between record and replay of {name}: {shown}" if shown else ""
