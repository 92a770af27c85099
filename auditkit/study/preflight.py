"""Before a study spends anything: its program is tried, and what the plan leaves open is settled.

What is tried is in :mod:`auditkit.study.worker.preflight`.
"""

from __future__ import annotations

from collections.abc import Callable

from auditkit.errors import PlanError
from auditkit.processes.worker_pool import CanRun
from auditkit.records.job import Job, ProgramSource, Progress
from auditkit.records.plan import AUTO, StudyPlan
from auditkit.records.preflight import Preflight
from auditkit.records.results import BuiltProgram
from auditkit.statistics.design import SCALES, chosen_scale

#: Steps that are timed before a study; more of them where that is all that is asked for.
FEW_STEPS, MANY_STEPS = 3, 12


def try_program(
    workers: CanRun,
    program: ProgramSource,
    plan: StudyPlan,
    report: Callable[[Progress], None] = lambda _: None,
    *,
    seed: int,
    steps: int = FEW_STEPS,
    nudge: bool = False,
) -> Preflight:
    """Build a program, train it for a few steps and ask it for all that the plan needs.

    It is built in a second process, too, which imports it by itself: what an import, a process or
    a clock decides would otherwise be found when trunk and branches of the first seed are compared.

    Args:
        workers: Run it.
        program: Where the factory is.
        plan: The plan, perturbations resolved.
        report: Called with the progress.
        seed: The seed that it is built with.
        steps: How many steps to time.
        nudge: Whether the plan's placebo is tried; one that is to be chosen always is.

    Raises:
        PlanError: When a perturbation cannot be applied.
        UncapturedState: When another process is given another program.
        AuditError: Whatever else a study would end in after its trunk.
    """
    scales: tuple[int, ...] = ()
    if plan.placebo_scale == AUTO:
        scales = SCALES
    elif nudge:
        scales = (int(plan.placebo_scale),)
    tried = plan.changed(placebo_scale=1) if plan.placebo_scale == AUTO else plan
    job = Job(
        *("preflight", program, tried, seed),
        out="",
        step=steps,
        nudges=scales,
        shares_imports=True,
    )
    found: Preflight = workers.run(job, report)
    if found.opened is not None:  # of a script nobody looks, and it begins to train by itself
        again: BuiltProgram = workers.run(Job("build", program, tried, seed, out=""))
        found.built.require_same(again)
    return found


def settled(plan: StudyPlan, found: Preflight) -> StudyPlan:
    """The plan with the scale of its placebos, where that was to be chosen.

    Raises:
        PlanError: When no nudge could be tried: of a script, or so shortly before the horizon.
    """
    if plan.placebo_scale != AUTO:
        return plan
    if not found.nudges:
        raise PlanError(
            f"placebo_scale={AUTO!r}, and no nudge can be tried",
            expected="a program with a factory, and a horizon beyond the first steps",
            hint="give a number",
        )
    return plan.changed(placebo_scale=chosen_scale(found.nudges, plan))
