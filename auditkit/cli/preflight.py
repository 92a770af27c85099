"""What a study will cost and what it can show, printed before anything is spent on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.console import Console
from rich.filesize import decimal

from auditkit.cli.console import number, print_facts, print_words
from auditkit.cli.spelling import counted, duration
from auditkit.files.run_parts import steps_left
from auditkit.records.estimate import ALPHA, MIN_PAIRS
from auditkit.records.metric_names import base_metric
from auditkit.records.nudge_size import spelled_scale
from auditkit.records.plan import DISTANCE_METRICS, StudyPlan
from auditkit.records.plan_values import spelled_seeds
from auditkit.records.preflight import NudgeTrial, Preflight
from auditkit.statistics.design import Design, design_of, grown, shrinks
from auditkit.statistics.outcomes import GROWN
from auditkit.study.request import StudyRequest

#: Times that a run imports the program, and calls its factory, for no seed in particular.
_TRIALS = 3

_WORDS = ("seed", "branch", "placebo", "Holm", "floor developed", "placebo_scale")


@dataclass(frozen=True)
class Estimate:
    """What a study takes, by what a few steps took.

    Attributes:
        steps: Training steps.
        seconds: Processor time of a run; a whole replay takes about as long.
        seed_bytes: Disk space a seed.
        evidence_bytes: Of which are evidence of steps.
    """

    steps: int
    seconds: float
    seed_bytes: int
    evidence_bytes: int


def estimate_cost(found: Preflight, plan: StudyPlan, n_seeds: int) -> Estimate:
    """What so many of a plan's seeds take."""
    cost, is_script = found.cost, found.opened is None
    n_branches, steps = 1 + len(plan.forks) * (len(plan.branch_names) - 1), plan.seed_steps
    seconds = n_seeds * steps * cost.step_seconds
    # Branches that are forks share one call of the factory a fork, and all seeds one import; the
    # preflight and the first trunk have their own. A script is started for every branch.
    n_processes = n_seeds * n_branches
    n_calls = n_processes if is_script or cost.alone else n_seeds * (1 + len(plan.forks))
    n_starts = n_processes if is_script or cost.imports_alone else 0
    seconds += n_processes * cost.branch_seconds + (n_calls + _TRIALS) * cost.build_seconds
    seconds += (n_starts + _TRIALS) * cost.start_seconds
    evidence = steps * cost.row_bytes
    kept = cost.outcome_bytes or 2 * 4 * cost.n_probe * cost.n_classes
    probes = len(plan.forks) * len(plan.branch_names) * (1 + len(plan.probed)) * kept
    forks = len(plan.forks) * cost.snapshot_bytes
    return Estimate(n_seeds * steps, seconds, forks + evidence + probes, evidence)


def wall_seconds(
    seconds: float, plan: StudyPlan, n_seeds: int, jobs: int, *, at_once: bool
) -> float:
    """What so many seconds of processor time take with these jobs.

    Args:
        seconds: Of all seeds.
        plan: The plan.
        n_seeds: Seeds that are run.
        jobs: Processes at a time.
        at_once: Whether branches of one seed may be at work beside each other.
    """
    of_seed = seconds / n_seeds
    if not at_once:
        return of_seed * math.ceil(n_seeds / jobs)
    # A trunk comes before its branches, and the replica after the last of the others.
    in_a_row = plan.horizon + 2 * sum(plan.horizon - fork for fork in plan.forks)
    return max(seconds / jobs, of_seed * min(1.0, in_a_row / plan.seed_steps))


def print_dry_run(
    out: Console, found: Preflight, plan: StudyPlan, jobs: int, *, at_once: bool = True
) -> None:
    """Print cost, design and floor as a table."""
    n_seeds = len(plan.seeds)
    cost, design = estimate_cost(found, plan, n_seeds), design_of(plan)
    seeds = spelled_seeds(sorted(plan.seeds))
    treatments = ", ".join(spec.typed for spec in plan.perturbations)
    wall = duration(wall_seconds(cost.seconds, plan, n_seeds, jobs, at_once=at_once))
    facts = [
        ("seeds x branches", f"{n_seeds} x {len(plan.branch_names)}, seeds {seeds}"),
        ("branches", f"control, replica, {counted(plan.placebos, 'placebo')}, {treatments}"),
        *([("causal break", _break(plan))] if plan.causal_break else []),
        *([("segments", plan.segments.told)] if plan.segments else []),
        *([("further steps", _further(plan))] if plan.probe_at else []),
        *([("forks", _forks(plan))] if plan.further_forks else []),
        *([("evidence", plan.evidence_note)] if plan.evidence_note else []),
        ("training steps", f"{cost.steps:,}"),
        ("one step", f"{found.cost.step_seconds * 1000:.2f} ms with its evidence"),
        ("processor time", f"{duration(cost.seconds)}, process starts included"),
        *([("processes", _alone(found))] if found.cost.alone else []),
        ("wall time", f"{wall} with --jobs {jobs}"),
        ("to verify", f"as long: by default every branch is replayed ({wall} more)"),
        ("disk", f"{decimal(cost.seed_bytes)} a seed, {decimal(n_seeds * cost.seed_bytes)} in all"),
        ("primary metric", _tests(design, plan)),
        ("smallest p", _smallest(design)),
        ("seeds", _seeds(design, plan)),
        ("placebo", _placebos(found, plan)),
        *(("not seen yet", line) for line in found.undecided),
    ]
    print_facts(out, facts)
    print_words(out, _WORDS)


def print_outlook(out: Console, request: StudyRequest) -> None:
    """Print the same in a few lines, where the study is about to begin."""
    found, plan, jobs = request.preflight, request.plan, request.jobs
    assert found is not None  # noqa: S101 # the request is prepared
    n_seeds = len(request.seeds)
    cost, design = estimate_cost(found, plan, n_seeds), design_of(plan)
    at_once = request.branches_at_once
    wall = duration(wall_seconds(cost.seconds, plan, n_seeds, jobs, at_once=at_once))
    steps = steps_left(request.out, plan, request.seeds) if request.resume else {}
    left = sum(steps.values()) if steps else cost.steps
    to_run, to_verify = f"about {wall}", "as long"
    if left < cost.steps:
        seconds, n_left = cost.seconds * left / cost.steps, sum(map(bool, steps.values())) or 1
        here = duration(wall_seconds(seconds, plan, n_left, jobs, at_once=at_once))
        to_run, to_verify = f"of which {left:,} are left, about {here}", f"about {wall}"
    out.print(
        f"{counted(n_seeds, 'seed')}, {len(plan.branch_names)} branches each"
        f"{f' at each of {len(plan.forks)} forks' if plan.further_forks else ''}, to step "
        f"{plan.horizon}: {cost.steps:,} training steps, {to_run} "
        f"with --jobs {jobs}, process starts included, and {to_verify} to verify; "
        f"{decimal(cost.seed_bytes)} a seed"
    )
    out.print(f"{_tests(design, plan)}: {_seeds(design, plan)}")
    out.print(f"placebos: {_placebos(found, plan)}")
    if found.cost.alone:
        out.print(f"processes: {_alone(found)}")


def _alone(found: Preflight) -> str:
    """Why branches are no forks: what that costs is seconds a branch, and may be easy to mend."""
    cost = found.cost
    does, seconds = (
        ("imports the program", cost.start_seconds)
        if cost.imports_alone
        else ("calls the factory", cost.build_seconds)
    )
    return (
        f"every branch {does} by itself ({seconds:.1f} s each), since forks would share or lack "
        f"{', '.join(cost.alone)}"
    )


def _break(plan: StudyPlan) -> str:
    spec = plan.causal_break.typed if plan.causal_break else ""
    return f"{spec} after step {plan.window_end}, in a second copy of every branch but the replica"


def _further(plan: StudyPlan) -> str:
    steps = ", ".join(str(step) for step in plan.probe_at)
    return f"{steps}: every branch is evaluated there, too, and no test of the primary metric added"


def _forks(plan: StudyPlan) -> str:
    steps = ", ".join(map(str, plan.forks))
    return f"after steps {steps} of one trunk: all branches but the control begin at each of them"


def _tests(design: Design, plan: StudyPlan) -> str:
    perturbations = counted(len(plan.perturbations), "perturbation")
    forks = f" x {len(plan.forks)} forks" if plan.further_forks else ""
    times = f"{len(plan.times)} times"
    return f"{design.metric}, {design.n_tests} tests ({perturbations}{forks} x {times})"


def _smallest(design: Design) -> str:
    if design.smallest_p is None and base_metric(design.metric) in DISTANCE_METRICS:
        return f"none: fewer than {MIN_PAIRS} seeds are not tested"
    if design.smallest_p is None:
        return "none: a t test has no smallest p"
    corrected = min(1.0, design.smallest_p * design.n_tests)
    return f"{number(design.smallest_p)} of one test, {number(corrected)} after Holm's correction"


def _seeds(design: Design, plan: StudyPlan) -> str:
    if design.fewest_seeds is None:
        return f"no test can reach {ALPHA:g}, with any number of seeds: plan fewer perturbations"
    fewest = f"{design.fewest_seeds} are the fewest that can"
    if design.reaches:
        return f"a test can reach {ALPHA:g} with {len(plan.seeds)} seeds; {fewest}"
    seeds, placebos = counted(len(plan.seeds), "seed"), counted(plan.placebos, "placebo")
    return f"no test can reach {ALPHA:g} with {seeds}; {fewest} with {placebos} a seed"


def _placebos(found: Preflight, plan: StudyPlan) -> str:
    scale = f"scale {spelled_scale(int(plan.placebo_scale))}"
    return f"{scale}; {_floor(found, plan)}" if found.nudges else scale


def _floor(found: Preflight, plan: StudyPlan) -> str:
    trial = found.nudges[-1]  # where one was to be chosen, it is that one
    was_chosen = len(found.nudges) > 1
    remedy = "give T later" if was_chosen else "give --placebo-scale auto, or T later"
    seen = trial.end > GROWN
    will = {
        True: "it grew in the trial" if seen else "growing on like this, it will have grown by T",
        False: f"it is not likely to have grown by T: {remedy}",
        None: f"whether it grows by T cannot be told: {remedy}",
    }[grown(trial, plan)]
    if shrinks(trial):
        will += f"; it shrinks (half of the trial: {number(trial.halfway)}): training contracts"
    alone = " alone" if len(plan.seeds) > 1 else ""  # others may need another scale
    return (
        f"{'chosen: ' if was_chosen else ''}nudged after step {trial.began} of seed "
        f"{plan.seeds[0]}{alone}, a placebo was {trial.of} {number(trial.end)} from the control "
        f"after {_length(trial, plan)} ({GROWN:g} counts as grown): {will}"
    )


def _length(trial: NudgeTrial, plan: StudyPlan) -> str:
    length, steps = plan.horizon - plan.forks[-1], counted(trial.steps, "step")
    return f"{steps}, as long as a branch" if trial.steps == length else f"{steps} of {length}"
