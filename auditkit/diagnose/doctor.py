"""Is training bit-exactly repeatable here? If not: where runs differ, and what to do.

The first steps are run several times in fresh processes and compared row by row. Where they are
equal, a command is also resumed from a checkpoint in their midst. What to do is found by experiment
where one can be made: the runs are repeated under other conditions until they are equal. Racy
sources can agree by chance, so that no difference never means more than *no nondeterminism seen in
so many runs*.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from auditkit.diagnose.resuming import ResumeTrial, try_resume, what_to_register
from auditkit.diagnose.trials import Experiment, Trial, compare_trials, run_trial, try_remedies
from auditkit.errors import AuditError, ProgramError, Undecided
from auditkit.evidence.comparison import Mismatch, causing_step, seeding_calls
from auditkit.files import store
from auditkit.processes.worker_pool import Workers
from auditkit.records.job import Job, ModuleTrace, ProgramSource
from auditkit.records.plan import StudyPlan
from auditkit.records.results import TrunkResult
from auditkit.records.task import RowsTask
from auditkit.replay.attempts import Attempt, find_disagreement, read_attempt
from auditkit.replay.live_comparison import CommandConfig, find_differing_module, trace_modules

Report = Callable[[int], None]

#: What a loader's description calls the number of its workers.
_WORKERS = "workers"


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Attributes:
        repeatable: Whether all runs were equal.
        steps: Steps that were compared.
        runs: How many runs were compared; those of experiments come on top.
        parting: Where they differ first.
        unseeded: Random streams that begin elsewhere in every run.
        idle: Those of them that nothing draws from.
        module: The first module that differs in two runs of the step.
        experiments: What was tried.
        advice: What to do.
        resume: How a resume from a checkpoint went; None where none was tried.
    """

    repeatable: bool
    steps: int
    runs: int
    parting: Mismatch | None = None
    unseeded: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    module: str | None = None
    experiments: tuple[Experiment, ...] = ()
    advice: tuple[str, ...] = ()
    resume: ResumeTrial | None = None


def examine_command(
    config: CommandConfig, steps: int, runs: int = 2, report: Report = lambda _: None
) -> Diagnosis:
    """Examine a user's own command with a Recorder in it.

    Args:
        config: The command, and how it is run.
        steps: How many steps are run.
        runs: How often, at least twice.
        report: Called with the number of runs that are done.

    Raises:
        Undecided: When no loop was seen, or it failed.
    """
    task = RowsTask(last_step=steps)
    first, done = run_trial(config, task), 1
    idle: tuple[str, ...] = ()
    report(done)
    while done < runs:
        other = run_trial(config, task)
        done += 1
        report(done)
        unseeded = first.starts(other)
        # Where a stream stands that nothing draws from makes no difference.
        idle = tuple(
            name for name in unseeded if not first.draws_from(name) and not other.draws_from(name)
        )
        mismatch = compare_trials(first, other, idle)
        if mismatch is not None:
            shared = min(first.steps, other.steps)
            seen = Diagnosis(False, shared, done, mismatch, unseeded, idle)
            drawn = tuple(name for name in unseeded if name not in idle)
            if drawn:
                return replace(seen, advice=(_seeding_advice(drawn),))
            return _explain(config, steps, seen, first)
    resume = try_resume(config, first, idle)
    found = Diagnosis(True, first.steps, done, unseeded=idle, idle=idle, resume=resume)
    advice = what_to_register(resume, first.info.unregistered) if resume else ""
    return replace(found, advice=(advice,)) if advice else found


def _explain(config: CommandConfig, steps: int, seen: Diagnosis, first: Trial) -> Diagnosis:
    mismatch = seen.parting
    assert mismatch is not None  # noqa: S101 # there is something to look at
    experiments = try_remedies(config, steps, mismatch, first.info, seen.idle)
    module, caused_at = None, causing_step(mismatch)
    if mismatch.kind in ("state drift", "data drift") and caused_at > 0:
        rank = int(mismatch.branch.removeprefix("rank "))
        module = find_differing_module(lambda: trace_modules(config, None, caused_at, rank=rank))
    advice = [experiment.remedy for experiment in experiments if experiment.helped]
    if not advice:
        workers = first.info.loaders.get("", {}).get(_WORKERS, "")
        advice = _advice(mismatch, first.info.unregistered, module, workers)
    advice += [
        f"deterministic algorithms are refused: {experiment.outcome}"
        for experiment in experiments
        if experiment.outcome not in ("equal", "still differs")
    ]
    return replace(seen, module=module, experiments=tuple(experiments), advice=tuple(advice))


def _seeding_advice(unseeded: tuple[str, ...]) -> str:
    verb = "begin" if len(unseeded) > 1 else "begins"
    return (
        f"{', '.join(unseeded)} {verb} elsewhere in every run: call {seeding_calls(unseeded)} "
        "before the model and the loader are built"
    )


def _advice(
    mismatch: Mismatch, unregistered: str | None, module: str | None, workers: str
) -> list[str]:
    """What to do where no experiment has helped.

    Args:
        mismatch: Where runs differ first.
        unregistered: Random generators that no component holds.
        module: The first module that differs.
        workers: How many the training loader has; empty where that is not known.
    """
    likely = _likely(mismatch, unregistered, module)
    if mismatch.kind != "data drift" or workers in ("", "0"):
        return [likely]
    return [
        f"the loader has {workers} workers with random streams of their own; where something "
        "seeds these without a number (random.seed() or numpy.random.seed() in worker_init_fn), "
        "no seed of the main process helps: seed them in worker_init_fn from torch.initial_seed(), "
        "as in seed = torch.initial_seed() % 2**32; random.seed(seed); numpy.random.seed(seed)",
        f"to see whether it is the workers, examine it with num_workers=0. If it differs there, "
        f"too: {likely}",
    ]


def _likely(mismatch: Mismatch, unregistered: str | None, module: str | None) -> str:
    if mismatch.kind == "order drift":
        return (
            "the sampler draws from a generator that is not seeded, or from the system: give it "
            "generator=torch.Generator().manual_seed(SEED); sort what os.listdir gives"
        )
    if mismatch.kind == "data drift":
        named = f" ({unregistered})" if unregistered else ""
        return (
            "the same samples with equal random streams have other bytes: dataset, transforms or "
            "collate_fn draw from the clock, os.urandom or a generator that is not registered"
            f"{named}"
        )
    if mismatch.kind == "RNG drift":
        return (
            f"step {causing_step(mismatch)} draws another number of random numbers in every run, "
            f"from {mismatch.component}: look for a decision there that depends on clock, threads "
            "or order"
        )
    if mismatch.kind == "length":
        return "the runs have another number of steps: look at what ends the loop or an epoch"
    if causing_step(mismatch) < 1:
        return f"{mismatch.component} begins with other values: seed before the model is built"
    place = f"in or before {module}" if module else f"in step {causing_step(mismatch)}"
    return (
        f"the same samples and random streams give another {mismatch.component}: look {place} for "
        "clock, os.urandom, id(), threads or uninitialised memory"
    )


# Programs


def examine_program(
    source: ProgramSource, steps: int, runs: int = 2, report: Report = lambda _: None
) -> Diagnosis:
    """Examine a program as a study runs it: seeded, deterministic, in fresh processes.

    Args:
        source: The program.
        steps: How many steps are run, at least three.
        runs: How often, at least twice.
        report: Called with the number of runs that are done.

    Raises:
        Undecided: When it could not be run.
        ProgramError: When there is no such program.
    """
    with tempfile.TemporaryDirectory(prefix="auditkit-doctor-") as scratch, Workers() as workers:
        try:
            job = _trunk(source, steps, workers)
            return _examine(workers, job, Path(scratch), runs, report)
        except (ProgramError, Undecided):
            raise
        except AuditError as error:
            raise Undecided(f"the program could not be run: {error}") from error


def _trunk(source: ProgramSource, steps: int, workers: Workers) -> Job:
    described = workers.run(Job("describe", source, None, 0, out="", step=0)).plan
    plan = StudyPlan(
        fork_at=steps - 2,
        window=1,
        horizon=steps,
        seeds=[0] if described is None else described.seeds[:1],
        perturbations=["carry"],
        threads=1 if described is None else described.threads,
        augmentation_rng="per-sample" if described is None else described.augmentation_rng,
    )
    return Job("trunk", source, plan, plan.seeds[0], out="")


def _examine(workers: Workers, job: Job, scratch: Path, runs: int, report: Report) -> Diagnosis:
    attempts: list[Attempt] = []
    mismatch = None
    while len(attempts) < runs and mismatch is None:
        out = scratch / str(len(attempts)) / "seed"
        store.make_folder(out)
        attempts.append(read_attempt(out, workers.run(replace(job, out=str(out)))))
        report(len(attempts))
        mismatch = find_disagreement(attempts[0], attempts[-1])
    assert job.plan is not None  # noqa: S101 # a trunk has one
    steps = job.plan.horizon
    if mismatch is None:
        return Diagnosis(True, steps, len(attempts))
    module = None
    if mismatch.step is not None and causing_step(mismatch) > 0:
        modules = replace(
            job, kind="modules", branches=(mismatch.branch,), step=causing_step(mismatch)
        )
        module = find_differing_module(lambda: _entries(workers.run(modules)))
    result = attempts[0].result
    loader = result.data.loader if isinstance(result, TrunkResult) else {}
    advice = tuple(_advice(mismatch, None, module, loader.get(_WORKERS, "")))
    return Diagnosis(False, steps, len(attempts), mismatch, module=module, advice=advice)


def _entries(trace: ModuleTrace) -> tuple[tuple[str, str], ...]:
    return trace.entries
