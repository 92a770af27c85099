"""Check 8: run a manifest's branches again and compare.

Per seed one fresh process runs trunk and control from the seed, and its fork is compared with
the file; a second runs the branches from the file. A replaying process is given code, fork and
order only, as copies in a folder of its own; recorded traces and outcomes stay here, where the
comparison is made (:mod:`auditkit.replay.seed_replay`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from auditkit.engines.remote_workers import RemoteWorkers, refuse_command
from auditkit.errors import ConnectionLost, Undecided
from auditkit.evidence.distances import within
from auditkit.evidence.reader import RunEvidence
from auditkit.files import artifacts, own_data, store
from auditkit.processes.side_by_side import Slots
from auditkit.processes.worker_pool import Report, Workers
from auditkit.records.fork_points import at_fork, marked, of_fork, views
from auditkit.records.manifest import CODE_FOLDER
from auditkit.records.opened import OWN
from auditkit.replay.budget import merged
from auditkit.replay.imports import ImportJudge
from auditkit.replay.opened import OpenedJudge
from auditkit.replay.request import ReplayOutcome, ReplayRequest
from auditkit.replay.seed_replay import MAX_REPLAYS, SeedReplay
from auditkit.replay.seed_task import SeedResult, SeedTask
from auditkit.study.script_workers import ScriptWorkers

__all__ = ["MAX_REPLAYS", "ReplayOutcome", "ReplayRequest", "copy_code", "replay"]


def replay(run: RunEvidence, request: ReplayRequest, report: Report) -> ReplayOutcome:
    """Replay the chosen branches of every seed.

    Args:
        run: The recorded run, whose files passed checks 1 to 3.
        request: What to replay.
        report: Called with progress, from several threads.

    Raises:
        Undecided: When the engine that was asked for is not there, which no seed need find.
    """
    if run.manifest.plan.further_forks:
        return _replay_forks(run, request, report)
    seeds = [record for record in run.manifest.seeds if record.seed in request.choice]
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="auditkit-replay-"))
        slots = Slots(request.jobs, len(seeds))
        workers = _workers(request, Path(scratch), slots)
        stack.enter_context(workers)
        if isinstance(workers, RemoteWorkers):
            _connect(workers)
        judge = ImportJudge(run.manifest.program.code, Path(scratch))
        opened = OpenedJudge(run.manifest.opened, copy_code(run, Path(scratch)))
        tasks = [
            SeedTask(
                run,
                record,
                request.choice[record.seed],
                request.arguments,
                bool(request.command),
                Path(scratch),
                judge,
                opened,
            )
            for record in seeds
        ]
        replays = [SeedReplay(task, workers, report) for task in tasks]
        with ThreadPoolExecutor(max_workers=request.jobs) as pool:
            try:
                done = list(pool.map(partial(_run, slots), replays))
            except BaseException:
                workers.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return ReplayOutcome(
        findings=tuple(finding for seed in done for finding in seed.findings),
        outcomes={
            (record.seed, name): outcome
            for record, seed in zip(seeds, done, strict=True)
            for name, outcome in seed.outcomes.items()
        },
        environments=tuple(environment for seed in done for environment in seed.environments),
        undecided=any(seed.undecided for seed in done),
        distances=tuple(distance for seed in done for distance in seed.distances),
        close=_is_close(done, request.tolerance),
        warnings=tuple(judge.warnings()),
        opened=opened.here,
        lacking=tuple(dict.fromkeys(option for seed in done for option in seed.lacking)),
    )


def _run(slots: Slots, seed: SeedReplay) -> SeedResult:
    try:
        return seed.run()
    finally:
        slots.end_seed()


def _workers(request: ReplayRequest, scratch: Path, slots: Slots) -> Workers | ScriptWorkers:
    if request.command:
        refuse_command(request.engine)
        return ScriptWorkers(request.command)
    if request.engine is not None:
        return RemoteWorkers(request.engine, request.jobs, request.variables, scratch)
    return Workers(variables=request.variables, scratch=scratch, slots=slots)


def _connect(workers: RemoteWorkers) -> None:
    try:
        workers.connect()
    except ConnectionLost as error:
        message = f"nothing was replayed: {error.message}"
        raise Undecided(message, where=error.where, hint=error.hint) from error


def _replay_forks(run: RunEvidence, request: ReplayRequest, report: Report) -> ReplayOutcome:
    """Replay the chosen branches of one fork after the other, each with a trunk of its own."""
    found = []
    for view in views(run.manifest):
        fork = view.plan.fork_at
        own = {seed: of_fork(names, fork) for seed, names in request.choice.items()}
        choice = {seed: names for seed, names in own.items() if names}
        if not choice:
            continue
        outcome = replay(RunEvidence(run.root, view), replace(request, choice=choice), report)
        outcomes = {(seed, marked(name, fork)): o for (seed, name), o in outcome.outcomes.items()}
        findings = tuple(at_fork(finding, fork) for finding in outcome.findings)
        found.append(replace(outcome, outcomes=outcomes, findings=findings))
    return merged(found)


def _is_close(seeds: Sequence[SeedResult], tolerance: float | None) -> bool:
    differing = [seed for seed in seeds if seed.findings]
    return (
        tolerance is not None
        and bool(differing)
        and all(seed.undecided and not seed.unexplained for seed in differing)
        and all(within(seed.distances, tolerance) for seed in seeds)
    )


def copy_code(run: RunEvidence, scratch: Path) -> list[str]:
    """Give a worker the recorded sources, and nothing else of the run.

    What the program opened in its own folder besides is laid there where it lies in this process's.

    Returns:
        What of it does not.
    """
    for file in run.manifest.program.code:
        name = f"{CODE_FOLDER}/{file.name}"
        target = scratch / name
        store.make_folder(target.parent)
        store.write_bytes(target, artifacts.safe_read(run.root, name, expected_sha256=file.sha256))
    opened = run.manifest.opened
    names = [name[len(OWN) + 1 :] for name in (() if opened is None else opened.own)]
    absent = own_data.lay(names, scratch / CODE_FOLDER)
    return [f"{OWN}/{name}" for name in absent]
