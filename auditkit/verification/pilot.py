"""A study as the pilot of another: how far its seeds spread, and what they took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from auditkit.errors import ArtifactError, PlanError
from auditkit.evidence.reader import RunEvidence
from auditkit.files import store
from auditkit.formats import canonical
from auditkit.records.estimate import AS_IS, DistanceEstimate, EstimateTable, SignedEstimate
from auditkit.records.fork_points import marked
from auditkit.records.manifest import StudyManifest
from auditkit.records.metric_names import base_metric
from auditkit.records.plan import DISTANCE_METRICS, StudyPlan
from auditkit.records.power import NoSpread, SeedCost
from auditkit.statistics.estimands import estimate
from auditkit.statistics.outcomes import (
    SeedOutcomes,
    evaluate_metrics,
    table_metric,
    units_of,
)
from auditkit.statistics.power import Spread
from auditkit.verification.authenticity import open_manifest
from auditkit.verification.branch_tables import estimates
from auditkit.verification.pilot_seeds import PilotSeeds
from auditkit.verification.procedure import verify
from auditkit.verification.request import VerifyRequest


@dataclass(frozen=True)
class Pilot:
    """What a study says of the next one.

    Attributes:
        plan: Its plan.
        metric: The metric.
        spreads: One a perturbation and time.
        cost: Of one seed.
        zero: Of which perturbations and times there is nothing to plan with: bits are equal.
    """

    plan: StudyPlan
    metric: str
    spreads: tuple[Spread, ...]
    cost: SeedCost
    zero: tuple[NoSpread, ...]


def read_pilot(path: Path, request: VerifyRequest, metric: str | None) -> Pilot:
    """Read a pilot's outcomes, once its files are what was signed; nothing is replayed.

    Args:
        path: Its manifest.
        request: Whose signature counts.
        metric: A metric; by default the primary one of its plan.

    Raises:
        ArtifactError: When the files are not what a trusted key signed.
        PlanError: When it is no study, or has no such metric.
    """
    manifest = _verified(path, request)[0]
    plan = manifest.plan
    labelled: dict[tuple[str, str], tuple[tuple[float, ...], ...]] = {}

    def estimator(outcomes: Sequence[SeedOutcomes], of_fork: StudyPlan) -> EstimateTable:
        for (name, time), values in _labelled(outcomes, of_fork, metric).items():
            shown = marked(name, of_fork.fork_at) if plan.further_forks else name
            labelled[shown, time] = values
        return estimate(outcomes, of_fork)

    table = estimates(RunEvidence(path.parent, manifest), estimator, {}, {})
    wanted = metric or table.primary_metric
    every: list[SignedEstimate | DistanceEstimate] = [*table.signed, *table.distances]
    rows = [row for row in every if row.metric == wanted and row.variant == AS_IS]
    if not rows:
        known = ", ".join(sorted({row.metric for row in every}))
        raise PlanError(f"the pilot has no metric {wanted!r}", expected=known)
    spreads = tuple(
        Spread(
            row.perturbation,
            row.time,
            _differences(row),
            labelled.get((row.perturbation, row.time), ()),
        )
        for row in rows
        if not row.exactly_zero
    )
    zero = (NoSpread(row.perturbation, row.time, "exactly 0") for row in rows if row.exactly_zero)
    return Pilot(plan, wanted, spreads, _cost(manifest), tuple(zero))


def pilot_seeds(path: Path, request: VerifyRequest) -> PilotSeeds:
    """The seeds of a pilot, once its files are what was signed; nothing is replayed.

    Args:
        path: Its manifest.
        request: Whose signature counts.

    Raises:
        ArtifactError: When the files are not what a trusted key signed.
        PlanError: When it is no study.
    """
    return PilotSeeds.of(*_verified(path, request))


def _verified(path: Path, request: VerifyRequest) -> tuple[StudyManifest, str]:
    """The manifest of a study whose files are what was signed, and the digest of its statement."""
    report = verify(path, replace(request, replay="none", require=None, pilot=None))
    broken = [finding for check in report.checks[:4] for finding in check.findings]
    if broken:
        raise ArtifactError(
            f"the pilot does not verify: {broken[0].message}",
            where=broken[0].where or str(path),
            hint=f"auditkit verify {path} says more",
        )
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
    opened = open_manifest(path, data)
    if not isinstance(opened.manifest, StudyManifest):
        raise PlanError("a pilot is a study, and this is a recording", where=str(path))
    return opened.manifest, opened.statement_sha256 or ""


def _differences(row: SignedEstimate | DistanceEstimate) -> tuple[float, ...]:
    if isinstance(row, SignedEstimate):
        return row.per_seed
    pairs = zip(row.per_seed, row.floor_per_seed, strict=True)
    return tuple(distance - floor for distance, floor in pairs if floor is not None)


def _labelled(
    outcomes: Sequence[SeedOutcomes], plan: StudyPlan, metric: str | None
) -> dict[tuple[str, str], tuple[tuple[float, ...], ...]]:
    """Distances of treatment and placebos from the control by seed, by treatment and time."""
    wanted = metric or outcomes[0].observed.primary(plan)
    if base_metric(wanted) not in DISTANCE_METRICS:
        return {}
    columns = {time: table_metric(wanted, AS_IS, time) for time in plan.probed}
    standing = [each for each in outcomes if each.control.diverged_at is None]
    keys = [key for key, _ in columns.values()]
    if not standing or any(key not in standing[0].control.tables for key in keys):
        return {}  # no such metric, which is said elsewhere
    values = evaluate_metrics(standing, keys, units_of(standing, keys))
    return {
        (name, time): tuple(
            (each.distances[name][column], *(placebo[column] for placebo in each.placebos))
            for each in values
            if column in each.distances.get(name, {})
        )
        for name in plan.treatment_names
        for time, column in columns.items()
    }


def _cost(manifest: StudyManifest) -> SeedCost:
    plan, n_seeds = manifest.plan, len(manifest.seeds)
    began, ended = (
        datetime.fromisoformat(t) for t in (manifest.run.started, manifest.run.finished)
    )
    return SeedCost(
        steps=plan.seed_steps,
        seconds=(ended - began).total_seconds() / n_seeds,
        bytes=sum(file.size for file in manifest.files) // n_seeds,
    )
