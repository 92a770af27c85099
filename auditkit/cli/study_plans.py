"""Options that make a study plan, shared by ``auditkit run`` and ``auditkit plan``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from auditkit.cli.designs import (
    DESIGN,
    NONE,
    parse_design,
    parse_segments,
    refuse_design,
    replaced,
)
from auditkit.cli.options import TEXT, WHOLE, decimal_number, parse_seeds, whole_number
from auditkit.cli.saying import say
from auditkit.errors import PlanError, UsageError
from auditkit.formats.quote import brief
from auditkit.processes.worker_pool import Workers
from auditkit.records.job import Description, Job, ProgramSource
from auditkit.records.plan import AUTO, StudyPlan
from auditkit.study.request import resolve

_REQUIRED = ("fork_at", "window", "horizon", "seeds", "perturbations")

_OPTIONS = (
    click.option(
        "--arg",
        "arguments",
        multiple=True,
        type=TEXT,
        help="An argument of the factory; repeatable.",
    ),
    click.option(
        "--fork-at",
        type=TEXT,
        help="t0: the step after which the state is forked; or several, like 100,200.",
    ),
    click.option("--window", type=WHOLE, help="W: effects are measured at t0+W."),
    click.option(
        "--horizon", type=WHOLE, help="T: they are measured there, too; an absolute step."
    ),
    click.option("--seeds", type=TEXT, help="Like 0-7, or 1,3,5-9."),
    click.option(
        "--perturb",
        multiple=True,
        type=TEXT,
        help="A treatment, NAME or NAME:key=value,... (see `auditkit perturbations`); repeatable.",
    ),
    click.option("--placebos", type=WHOLE, help="K placebos a seed (the noise floor)."),
    click.option(
        "--placebo-scale",
        type=TEXT,
        help="Size of their nudge, in units in the last place; auto: chosen by a short trial.",
    ),
    click.option("--primary", "primary_metric", type=TEXT, help="The metric that is corrected."),
    click.option(
        "--margin",
        "margins",
        multiple=True,
        type=TEXT,
        help="METRIC=VALUE: differences below it count as none; repeatable.",
    ),
    click.option("--threads", type=WHOLE, help="Threads of a process; they change bits."),
    click.option(
        "--probe-at",
        type=TEXT,
        help="Further steps at which effects are measured, like 45,50,55; or none.",
    ),
    click.option(
        "--evidence-every",
        type=WHOLE,
        help="Steps between rows that hold the state; order and batch are in every row.",
    ),
    click.option(
        "--evidence-digest",
        type=TEXT,
        help="Recipe of the state's digests: int64-mix/1 is made on the GPU where the state is.",
    ),
    click.option(
        "--causal-break",
        type=TEXT,
        help="A reset at t0+W, in a second copy of every branch: back-flow with and without it; "
        "or none.",
    ),
    click.option(
        "--segments",
        type=TEXT,
        help="Of A and B: overlap=0.75,same-classes,hold-batchnorm,alignment, some of it; or none.",
    ),
    click.option(
        "--design",
        type=TEXT,
        help="back-flow, or back-flow:REGIME: W, T, causal break and arguments (see the manual).",
    ),
)


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a plan, for :func:`overrides`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def overrides(  # noqa: PLR0913 # one argument an option
    *,
    fork_at: str | None,
    window: int | None,
    horizon: int | None,
    seeds: str | None,
    perturb: tuple[str, ...],
    placebos: int | None,
    placebo_scale: str | None,
    primary_metric: str | None,
    margins: tuple[str, ...],
    threads: int | None,
    probe_at: str | None,
    evidence_every: int | None,
    evidence_digest: str | None,
    causal_break: str | None,
    segments: str | None,
    design: str | None,
) -> dict[str, Any]:
    """What was given of a plan, by field."""
    values = {
        "fork_at": None if fork_at is None else _forks(fork_at),
        "window": window,
        "horizon": horizon,
        "seeds": None if seeds is None else parse_seeds(seeds),
        "perturbations": perturb or None,
        "placebos": placebos,
        "placebo_scale": None if placebo_scale is None else _scale(placebo_scale),
        "primary_metric": primary_metric,
        "margins": _margins(margins) or None,
        "threads": threads,
        "probe_at": None if probe_at is None else _steps(probe_at),
        "evidence_every": evidence_every,
        "evidence_digest": evidence_digest,
        "causal_break": causal_break,
        "segments": None if segments is None else parse_segments(segments),
        DESIGN: None if design is None else parse_design(design),
    }
    found = {name: value for name, value in values.items() if value is not None}
    emptied = {"segments": segments, "causal_break": causal_break}
    return found | {name: None for name, text in emptied.items() if text == NONE}


def _scale(text: str) -> int | str:
    number = whole_number(text)
    if number is None and text != AUTO:
        raise UsageError(f"--placebo-scale {brief(text)} is neither a whole number nor {AUTO}")
    return AUTO if number is None else number


def _steps(text: str) -> tuple[int, ...]:
    return () if text == "none" else parse_seeds(text, "--probe-at")


def _forks(text: str) -> int | tuple[int, ...]:
    number = whole_number(text)
    return parse_seeds(text, "--fork-at") if number is None else number


def _margins(items: tuple[str, ...]) -> dict[str, float]:
    margins: dict[str, float] = {}
    for item in items:
        metric, _, text = item.partition("=")
        number = decimal_number(text)
        if number is None:
            raise UsageError(f"--margin {brief(item)} is not METRIC=VALUE, as in accuracy=0.01")
        if metric in margins:
            raise UsageError(f"--margin {metric} is given twice")
        margins[metric] = number
    return margins


def program_plan(workers: Workers, source: ProgramSource, given: dict[str, Any]) -> StudyPlan:
    """The program's own ``STUDY``, with what was given in its place.

    Raises:
        PlanError: When something is missing, or contradicts something else.
    """
    described: Description = workers.run(
        Job("describe", source, None, 0, out="", step=0, shares_imports=True)
    )
    base = values_of(described.plan) if described.plan is not None else {}
    if "fork_at" in given:
        base["further_forks"] = ()
    own = described.own_perturbations
    given = {**given}
    design = given.pop(DESIGN, None)
    filled = base if design is None else design.filled(base, given)
    if told := replaced(base, filled, given):
        say(f"--design sets {told}")
    values = {**filled, **given, **({"own_perturbations": own} if own else {})}
    _require(values, "the program has no STUDY", "write STUDY = auditkit.StudyPlan(...) in it")
    return resolved(values)


def script_plan(given: dict[str, Any]) -> StudyPlan:
    """The plan of a script; what its loader draws is left alone.

    Raises:
        PlanError: As :func:`program_plan`.
    """
    refuse_design(given, "a script")
    values = {"seeds": [0], "augmentation_rng": "inherit", **given}
    _require(values, "a script has no STUDY", "for example --fork-at 100 --window 20 --horizon 300")
    return resolved(values)


def values_of(plan: StudyPlan) -> dict[str, Any]:
    """A plan's fields."""
    return {item.name: getattr(plan, item.name) for item in fields(StudyPlan)}


def resolved(values: dict[str, Any]) -> StudyPlan:
    """A plan with every parameter of its perturbations filled in."""
    plan = StudyPlan(**values)
    return resolve(plan, _declarations(plan))


def _require(values: dict[str, Any], why: str, hint: str) -> None:
    missing = [name for name in _REQUIRED if name not in values]
    if missing:
        raise PlanError(
            f"{why}, and no option gives {', '.join(missing)}", hint=f"{hint}, or give the options"
        )


def _declarations(plan: StudyPlan) -> Any:
    from auditkit.records.declaration import DECLARATIONS  # noqa: PLC0415

    own = {one.name for one in plan.own_perturbations}
    if {part.name for spec in plan.specs for part in spec.parts} <= own | set(DECLARATIONS):
        return DECLARATIONS
    from auditkit.perturbations.registry import registry  # noqa: PLC0415 # loads torch and plug-ins

    return {name: item.declaration for name, item in registry().items()}
