"""Check 8 for one seed: run it again, compare, and find out why it differs where it does.

A replay that differs from the record is repeated, up to :data:`MAX_REPLAYS` times in all, and once
with other branches before each branch, since one that leaks into the next (through a file, a
server: each runs in a process of its own) is nondeterminism too. Replays that disagree say that
the program is not deterministic here: the first step, the first component and the first module are
named. Where none disagrees, no nondeterminism was seen, which is all that can be said of it; the
record is then of something else, or the environment is, which is told apart by what the two
environments say of themselves. So it is where the recorded program cannot go on from the recorded
fork. A repetition that cannot be made is a help less, and takes nothing from what the first replay
found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path

from auditkit.errors import (
    ArtifactError,
    AuditError,
    FormatError,
    MalformedError,
    OrderDrift,
    RestoreMismatch,
    UnknownArgument,
)
from auditkit.evidence.comparison import Mismatch, causing_step, environment_differences
from auditkit.evidence.distances import describe_distances, probe_distances, state_distances
from auditkit.evidence.verdicts import as_change
from auditkit.files import store
from auditkit.processes.worker_pool import Report, Workers, run_apart
from auditkit.records.job import Job, ModuleTrace, ProgramSource
from auditkit.records.manifest import CODE_FOLDER
from auditkit.records.report import Finding
from auditkit.records.results import BranchesResult, TrunkResult
from auditkit.replay.attempts import (
    Attempt,
    SeedComparison,
    compare_processes,
    ended_attempt,
    find_disagreement,
    is_input,
    read_attempt,
)
from auditkit.replay.excuses import UNCAUSED, UNFOUNDED, excusing, reason
from auditkit.replay.live_comparison import find_differing_module
from auditkit.replay.measured_samples import moved_samples
from auditkit.replay.seed_task import SeedResult, SeedTask
from auditkit.study.script_workers import ScriptWorkers

#: A replay that differs from the record is repeated until there are so many in all.
MAX_REPLAYS = 4

#: Which of them runs other branches before each branch.
_REORDERED = 3

#: A fork or an order that the recorded program cannot go on from, told by the class of the error.
_UNFIT = (RestoreMismatch, FormatError)
_UNFIT_FORK = "the recorded program cannot go on from the recorded fork"

_Compare = Callable[[Attempt], Iterator[Mismatch]]


class SeedReplay:
    """Replays one seed.

    Args:
        task: What to replay.
        workers: Run the jobs.
        report: Called with progress.
    """

    def __init__(self, task: SeedTask, workers: Workers | ScriptWorkers, report: Report) -> None:
        self._task, self._workers, self._report = task, workers, report
        self._run, self._record = task.run, task.record
        self._place = f"seed {task.record.seed}"
        self._seed = task.run.seed(task.record)
        self._comparison = SeedComparison(self._seed)
        self._scratch = task.scratch / f"seed-{task.record.seed:04d}"
        self._given = self._scratch / "given"
        self._together = self._run_together()
        self._attempts = 0
        self._is_other_code = False
        self._trunk: Attempt | None = None
        self._found = SeedResult()

    def run(self) -> SeedResult:
        """Replay trunk and control, then the chosen branches.

        Raises:
            UnknownArgument: When the verifier gave an argument that the factory does not take.
        """
        with contextlib.closing(self._together):
            return self._compare()

    def _compare(self) -> SeedResult:
        found = self._found
        try:
            for job, compare in self._jobs():
                try:
                    attempt = self._attempt(job, first=True)
                except _UNFIT as error:
                    self._refuse(job, error)
                    continue
                self._check_code(attempt)
                self._check_processes(attempt)
                found.outcomes.update(attempt.outcomes)
                if mismatches := list(compare(attempt)):
                    self._explain(job, compare, attempt, mismatches)
        except UnknownArgument as error:
            if error.found in self._task.arguments:
                raise  # the verifier's own: there is something to type, and nothing to judge
            self._give_up(error)
        except ArtifactError as error:  # of the record: a replay's own files are no artifacts
            found.unexplained = True
            found.findings.append(as_change(error))
        except AuditError as error:
            self._give_up(error)
        return found

    def _check_processes(self, attempt: Attempt) -> None:
        """Of one seed, the factory must make the same in every process, and samples look so."""
        trunk = self._trunk = self._trunk or attempt
        found = list(moved_samples(self._seed, trunk, attempt))
        for mismatch in compare_processes(trunk, attempt):
            text = f"nondeterminism: two processes called the factory with one seed; {mismatch}"
            place = f"{self._place}, {mismatch.branch}"
            found.append(Finding(text, place, component=mismatch.component))
        self._found.findings += found
        self._found.unexplained |= bool(found)

    def _give_up(self, error: AuditError) -> None:
        found = self._found
        found.undecided = found.unexplained = True
        found.lacking = error.lacking
        # the place is said by the finding: without it, those of several seeds are alike
        text = f"cannot be replayed: {str(error).removeprefix(f'{self._place}, ')}"
        found.findings += self._task.opened.missing(str(error))
        found.findings.append(Finding(text, self._place, exit_code=6))

    def _refuse(self, job: Job, error: AuditError) -> None:
        """Judge branches that cannot start: the record says that this very program ran them.

        Raises:
            AuditError: The same, where it says nothing of the record: a trunk is given none of
                it, and other code may well have another state.
        """
        if job.kind != "branches" or self._is_other_code:
            raise error
        self._found.unexplained = True
        differences = self.environment_differences()
        self._found.undecided |= bool(differences)
        why, exit_code = reason(differences)
        self._found.findings.append(
            Finding(
                f"{_UNFIT_FORK}: {error.message}{error.details()}{why}",
                ", ".join(part for part in (self._place, error.where) if part),
                error.step,
                error.component,
                exit_code,
            )
        )

    def _jobs(self) -> Iterator[tuple[Job, _Compare]]:
        branches = replace(self._job, kind="branches")
        trunk = replace(branches, kind="trunk", fork=None, order=None, branches=(), versions=None)
        yield trunk, self._comparison.trunk
        if branches.branches:
            self._give()
            yield branches, self._comparison.branches

    @property
    def _job(self) -> Job:
        """Trunk and branches."""
        manifest, record = self._run.manifest, self._record
        program, code = manifest.program, str(self._task.scratch / CODE_FOLDER)
        arguments = {**program.arguments, **self._task.arguments}
        return Job(
            kind="seed",
            program=ProgramSource(program.target, code, arguments),
            plan=manifest.plan,
            seed=record.seed,
            out="",
            fork=str(self._given / Path(record.fork).name),
            order=str(self._given / Path(record.order).name),
            branches=self._task.branches,
            judged=not self._task.own_command,
            versions=record.versions,
            listed=self._task.opened.own,
            references=str(self._given),
            position_recipe=program.observed.position_recipe,
        )

    def _give(self) -> None:
        """Fork, order and what branches are yoked to: all that a replaying process can see.

        The trunk's cannot: they are not there before it has ended.
        """
        consumed = self._record.branches[0].consumed
        for name in filter(None, (self._record.fork, self._record.order, consumed)):
            store.write_bytes(self._given / Path(name).name, self._run.pieces(name))

    def _run_together(self) -> Generator[TrunkResult | BranchesResult]:
        """The first results of trunk and branches.

        Of the study's first seed they come from processes that share nothing, to compare them.
        """
        job = replace(self._job, out=str(self._folder("first")), shares_imports=True)
        if job.seed == self._run.manifest.plan.seeds[0]:
            yield from run_apart(self._workers, job, self._report)
        else:
            yield from self._workers.run_seed(job, self._report)

    def _folder(self, name: str) -> Path:
        folder = self._scratch / name / self._scratch.name
        store.make_folder(folder)
        return folder

    def _attempt(self, job: Job, *, first: bool = False) -> Attempt:
        """Run a job; of the first attempt, measure how far it is from the recorded one."""
        self._attempts += 1
        out = self._folder("first" if first else f"attempt-{self._attempts}")
        try:
            result = next(self._together, None) if first else None
            if result is None:  # also where what ran before it has failed
                result = self._workers.run(replace(job, out=str(out)), self._report)
        except OrderDrift as error:
            return ended_attempt(job, error)
        self._found.environments.append(result.environment)
        if job.judged:
            unlisted = self._task.judge.findings(result.imported)
            self._found.findings.extend(unlisted)
            self._found.unexplained |= bool(unlisted)
        if isinstance(result, TrunkResult):
            others = self._task.opened.findings(result.opened)
            self._found.findings.extend(others)
            self._found.undecided |= bool(others)
            self._found.unexplained |= bool(others)
        attempt = read_attempt(out, result, self._record)
        if first:
            self._measure(attempt, out)
            self._keep_references(result, out)
        store.remove_folder(out)
        store.make_folder(out)  # what goes on may still write there
        return attempt

    def _keep_references(self, result: TrunkResult | BranchesResult, out: Path) -> None:
        """Give the branches what they are compared with: this replay's control, not the record."""
        store.make_folder(self._given)
        for name in result.left if isinstance(result, TrunkResult) else ():
            store.rename(out / Path(name).name, self._given / Path(name).name)

    def _measure(self, attempt: Attempt, out: Path) -> None:
        where, found, result = self._place, self._found.distances, attempt.result
        for branch, outcome in attempt.outcomes.items():
            recorded = self._run.outcome(self._record.branch(branch))
            found.extend(probe_distances(f"{where}, {branch}", recorded, outcome))
        if isinstance(result, TrunkResult) and result.fork_digests != self._record.fork_digests:
            name = self._record.fork
            with contextlib.suppress(MalformedError):  # a record without a snapshot has no distance
                replayed = store.read_tensors(out / Path(name).name, what=name)
                found.extend(state_distances(f"{where}, fork", self._run.tensors(name), replayed))

    def _explain(
        self, job: Job, compare: _Compare, first: Attempt, mismatches: list[Mismatch]
    ) -> None:
        """Replay again to tell an edited record from a program that is not deterministic."""
        n_replays = 1
        while n_replays < MAX_REPLAYS:
            n_replays += 1
            varied = replace(job, one_by_one=True)
            if n_replays == _REORDERED and first.ended is None:
                varied = self._reordered(varied)
            try:
                again = self._attempt(varied)
            except AuditError:
                n_replays -= 1  # a help less; what the first replay found stands
                break
            disagreement = find_disagreement(first, again)
            if disagreement is not None:
                leaks = varied.branches != job.branches
                finding = self._nondeterminism(job, disagreement, n_replays, leaks=leaks)
                self._found.findings.append(finding)
                self._found.unexplained = True
                return
        unexplained = [*filter(is_input, mismatches), *self._comparison.inputs(first)]
        # Other code may well give other tables; what it is was said by name.
        founded = self._is_other_code or not mismatches
        unfounded = [] if founded else list(self._comparison.unfounded(first))
        mismatches += [mismatch for mismatch in unfounded if mismatch not in mismatches]
        self._found.unexplained |= bool(unexplained or unfounded)
        for mismatch in unexplained:  # what hides behind an earlier difference of its branch
            if not any(is_input(other) and other.branch == mismatch.branch for other in mismatches):
                mismatches.append(mismatch)
        for mismatch in mismatches:
            self._judge(mismatch, first, n_replays, is_unfounded=mismatch in unfounded)

    def _judge(
        self, mismatch: Mismatch, first: Attempt, n_replays: int, *, is_unfounded: bool
    ) -> None:
        differences = excused = self.environment_differences()
        if is_unfounded or (
            differences and not self._is_other_code and self._comparison.reached(mismatch, first)
        ):
            excused, end = [], f"; {UNFOUNDED}"
        elif self._is_other_code:
            end = ""
        else:
            excused = excusing(mismatch, differences, self._record.data)
            end = f"; {UNCAUSED}" if differences and not excused else ""
        self._found.undecided |= bool(excused)
        self._found.unexplained |= not excused
        finding = self._difference(mismatch, first, n_replays, excused)
        self._found.findings.append(replace(finding, message=f"{finding.message}{end}"))

    def _reordered(self, job: Job) -> Job:
        """The same branches after others: all of the seed's, or the same the other way round.

        The replica always runs last. Of a trunk, before which nothing runs, the same again.
        """
        if job.kind != "branches":
            return job
        names = tuple(branch.name for branch in self._record.branches[1:])
        if set(names) == set(job.branches):
            names = names[::-1]
        return job if names == job.branches else replace(job, branches=names)

    def _difference(
        self, mismatch: Mismatch, first: Attempt, n_replays: int, differences: list[str]
    ) -> Finding:
        why, exit_code = reason(differences)
        replays = f"{n_replays} replay{'' if n_replays == 1 else 's'}"
        text = f"{mismatch}; no nondeterminism seen in {replays}{why}"
        if differences:
            text += self._distance(mismatch.branch, first)
        where = f"{self._place}, {mismatch.branch}"
        return Finding(text, where, mismatch.step, mismatch.component, exit_code=exit_code)

    def environment_differences(self) -> list[str]:
        """What the recorded environment and the replays' do not share."""
        if not self._found.environments:
            return []
        here = self._found.environments[-1]
        recorded = self._run.manifest.environment
        return list(environment_differences(recorded, here))

    def _check_code(self, attempt: Attempt) -> None:
        """A script is the verifier's own file; a program is run from the recorded copies."""
        if attempt.result is None or not self._task.own_command or self._found.undecided:
            return
        recorded = {(file.name, file.sha256) for file in self._run.manifest.program.code}
        changed = recorded ^ {(file.name, file.sha256) for file in attempt.result.code}
        if changed:
            self._found.undecided = self._found.unexplained = self._is_other_code = True
            names = ", ".join(sorted({name for name, _ in changed}))
            text = f"the command runs other code than was recorded: {names}"
            self._found.findings.append(Finding(text, exit_code=6))

    def _nondeterminism(
        self, job: Job, mismatch: Mismatch, n_replays: int, *, leaks: bool
    ) -> Finding:
        text = f"nondeterminism: {n_replays} replays disagree with each other; {mismatch}"
        if leaks:
            text += "; it depends on which branches ran before"
        else:
            text += self._locate_module(job, mismatch)
        where = f"{self._place}, {mismatch.branch}"
        return Finding(text, where, mismatch.step, mismatch.component)

    def _locate_module(self, job: Job, mismatch: Mismatch) -> str:
        """Run the step that made a difference again, several times, with every module digested."""
        if mismatch.step is None:
            return ""
        fork_at = self._run.manifest.plan.fork_at
        step, first = causing_step(mismatch), 1 if job.kind == "trunk" else fork_at + 1
        if step < first:
            return "; it is there before the first step"
        modules = replace(job, kind="modules", branches=(mismatch.branch,), step=step, out="")

        def run_step() -> tuple[tuple[str, str], ...]:
            found: ModuleTrace = self._workers.run(modules, self._report)
            return found.entries

        module = find_differing_module(run_step)
        if module is None:
            return ""
        return f"; the first module that differs in two runs of this step: {module}"

    def _distance(self, branch: str, attempt: Attempt) -> str:
        name = "control" if branch in ("trunk", "fork") else branch
        if name not in attempt.outcomes:
            return ""
        places = (f"{self._place}, {name}", f"{self._place}, fork")
        times = [time for time in ("t0", "t0+W", "T") if time in attempt.outcomes[name].tables]
        return describe_distances(
            (d for d in self._found.distances if d.where in places), name, times
        )
