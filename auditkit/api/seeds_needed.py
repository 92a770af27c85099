"""``auditkit.power``: how many seeds a study needs."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from auditkit.api import values
from auditkit.api.received import received
from auditkit.errors import UsageError
from auditkit.records.metric_names import base_metric
from auditkit.records.plan import DISTANCE_METRICS, require_metric
from auditkit.records.power import POWER, PowerReport
from auditkit.signing.trust import keys_that_count
from auditkit.verification.request import VerifyRequest

PathLike = str | os.PathLike[str]

#: Load scipy.
_STATISTICS = "auditkit.statistics.power"
_PILOT = "auditkit.verification.pilot"

#: Placebos a seed where no pilot says how many: those of a plan that names none.
PLACEBOS = 3


def power(
    pilot: PathLike | None = None,
    *,
    effect: float,
    sd: float | None = None,
    metric: str | None = None,
    margin: float | None = None,
    power: float = POWER,
    tests: int | None = None,
) -> PowerReport:
    """Say how many seeds a study needs, as ``auditkit power`` does.

    Args:
        pilot: A study that says how far seeds spread, signed by a key that this machine trusts.
        effect: Difference to detect, in the metric's unit.
        sd: Without a pilot: standard deviation of the paired differences.
        metric: A metric; by default the primary one of the pilot.
        margin: Also: seeds to show that the effect is below this.
        power: Chance to detect the effect.
        tests: Tests to correct for; by default those of the pilot's plan, or 1.

    Returns:
        What ``auditkit power --json`` writes.

    Raises:
        UsageError: When an argument means nothing.
        PlanError: When the effect cannot be, or the pilot says nothing of it.
        ArtifactError: When the pilot does not verify.
    """
    if (pilot is None) == (sd is None):
        raise UsageError("give either a pilot study or a standard deviation (sd)")
    asked = Asked(
        values.optional(values.text, "metric", metric),
        values.positive("effect", effect),
        values.optional(values.positive, "margin", margin),
        values.positive("power", power),
        values.optional(values.whole, "tests", tests, 1),
    )
    if asked.power >= 1:
        raise values.refused("power", "below 1", power)
    if sd is not None:
        return by_sd(values.positive("sd", sd), asked)
    with ExitStack() as stack:
        return by_pilot(received(stack, values.path("pilot", pilot)), asked, _warn)


@dataclass(frozen=True)
class Asked:
    """What a study shall be able to show; the fields are arguments of :func:`power`."""

    metric: str | None
    effect: float
    margin: float | None
    power: float
    tests: int | None


def by_sd(sd: float, asked: Asked) -> PowerReport:
    """Seeds by a standard deviation that is taken for the true one."""
    statistics = importlib.import_module(_STATISTICS)
    if asked.metric is not None:
        require_metric("metric", asked.metric)
    name = asked.metric or "the metric"
    placebos = PLACEBOS if base_metric(name) in DISTANCE_METRICS else None
    aim = statistics.Aim(name, asked.effect, asked.margin, asked.power, asked.tests or 1, placebos)
    report: PowerReport = statistics.needs_of_sd(aim, sd)
    return report


def by_pilot(path: Path, asked: Asked, warn: Callable[[str], None]) -> PowerReport:
    """Seeds by a pilot.

    Args:
        path: Its manifest.
        asked: What the study shall show.
        warn: Is told what is odd about this machine's trust.
    """
    statistics = importlib.import_module(_STATISTICS)
    trusted, _ = keys_that_count(path.parent, (), (), strict=False, warn=warn)
    read = importlib.import_module(_PILOT).read_pilot(path, VerifyRequest(trusted), asked.metric)
    plan = read.plan
    placebos = plan.placebos if base_metric(read.metric) in DISTANCE_METRICS else None
    aim = statistics.Aim(
        read.metric, asked.effect, asked.margin, asked.power, asked.tests or plan.n_tests, placebos
    )
    report: PowerReport = statistics.needs_of(aim, read.spreads, read.cost, plan.seeds)
    return replace(report, left_out=(*read.zero, *report.left_out))


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=5)  # where auditkit.power was called
