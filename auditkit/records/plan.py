"""The study plan: what is compared with what, when, and over which seeds."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, Never

from auditkit.errors import PlanError
from auditkit.records import plan_steps, plan_values
from auditkit.records.causal_break import broken, check_break, unbroken
from auditkit.records.digest import EVIDENCE_RECIPE, EVIDENCE_RECIPES
from auditkit.records.given_perturbations import MAX_PERTURBATIONS, given_perturbations
from auditkit.records.metric_names import base_metric, is_measure, is_well_formed
from auditkit.records.metric_ranges import RANGES, rounded
from auditkit.records.output_kinds import KINDS
from auditkit.records.own_perturbation import OwnPerturbation, each_once
from auditkit.records.parameter import ParameterValue
from auditkit.records.perturbation_spec import PerturbationSpec, as_typed
from auditkit.records.plan_values import shown
from auditkit.records.segments import SegmentPlan, check_segments

#: Those of other modules are looked for here, too.
__all__ = [
    "AUGMENTATION_RNG",
    "AUTO",
    "CONFIRMATORY",
    "DISTANCE_METRICS",
    "LEFT_OUT_IF_DEFAULT",
    "RANGES",
    "SIGNED_METRICS",
    "ParameterValue",
    "PerturbationSpec",
    "Role",
    "StudyPlan",
    "as_typed",
    "rounded",
]

#: Metrics that a plan can name as primary, with the kind of estimand they get.
SIGNED_METRICS = tuple(name for kind in KINDS.values() for name in kind.signed)
DISTANCE_METRICS = tuple(name for kind in KINDS.values() for name in kind.distances)

#: Metadata of a field that is not written where it has its default: a plan without it has the bytes
#: that it had before there was such a field.
LEFT_OUT_IF_DEFAULT: Mapping[str, bool] = MappingProxyType({"left out if default": True})

#: Names of the times at which effects are tested; further ones are called ``t0+N``.
CONFIRMATORY = ("t0+W", "T")

AUGMENTATION_RNG = ("per-sample", "inherit")

#: A ``placebo_scale`` that is chosen before the study runs; no manifest holds it.
AUTO = "auto"

#: Largest numbers that a plan may hold: a forged plan must not cost memory.
_LIMITS = {
    "fork_at": 10**9,
    "window": 10**9,
    "horizon": 10**9,
    "threads": 4096,
    "placebos": 1000,
    "placebo_scale": 2**31,
    "evidence_every": 10**9,
}

#: Most seeds, perturbations and further steps of a plan, for the same reason.
_MAX_SEEDS = 10_000
_MAX_FURTHER = 100
_MAX_FORKS = 100

Role = Literal["control", "replica", "placebo", "treatment", "broken"]


def require_metric(name: str, metric: str) -> None:
    """Require a text to name a metric, or a measure.

    Args:
        name: Where it was given.
        metric: The text.

    Raises:
        PlanError: When there is no such metric.
    """
    known = (*SIGNED_METRICS, *DISTANCE_METRICS)
    is_known = is_measure(metric) or base_metric(metric) in known
    if not is_known or not is_well_formed(metric):
        raise PlanError(
            f"{name}: unknown metric {shown(metric)}",
            expected=f"{', '.join(known)}, PROBE/ and one of these, or measures/NAME",
        )


@dataclass(frozen=True, init=False)
class StudyPlan:
    """A Branch-and-Hold study (survey arXiv 2601.21624, section on Branch-and-Hold).

    A step is one batch of the training loader; all times count steps from the start of training.

    Attributes:
        fork_at: t0, the step after which the state is forked; or several, ascending: one trunk a
            seed, and from each of them a control, its replica, placebos and treatments.
        window: W, in steps; effects are measured at t0+W ...
        horizon: ... and at T, an absolute step.
        seeds: One paired comparison a seed.
        perturbations: Names (``"momentum-reset"``, ``"adam-reset:moments=m"``) or specs; in a study
            file also what :func:`auditkit.perturb` gave, and objects and classes of perturbations.
        placebos: K, placebo branches a seed (the noise floor).
        placebo_scale: Size of a placebo's nudge, in units in the last place; or ``"auto"``, the
            smallest power of 16 that grows in a short trial, which the study then records.
        primary_metric: The metric whose tests are corrected with Holm's method; all others
            are exploratory. Of a program with several probes it is the first one's, or
            ``PROBE/METRIC``; a measure is ``measures/NAME``.
        margins: Equivalence margin by metric, in the metric's own unit; smaller than the metric's
            range, see :data:`RANGES`.
        threads: Intra-op threads; part of the contract because they change bits.
        augmentation_rng: ``per-sample`` or ``inherit``, see the manual page random-numbers.
        probe_at: Further steps between t0 and T, ascending, after which branches are evaluated,
            for effects over time; what is measured there is exploratory.
        evidence_every: Steps between rows that hold the state; order and batch are in every row,
            and the state is in those of every time at which branches are evaluated.
        own_perturbations: Declarations of those perturbations that are the program's own.
        further_forks: Forks after the first one, where ``fork_at`` was given several.
        causal_break: A reset that is applied at t0+W in a second copy of every branch.
        segments: What is held and measured of segments A (the window) and B (what follows).
        evidence_digest: Recipe of the state's digests in every row; order and batch keep theirs.

    Raises:
        PlanError: When the numbers contradict each other.
    """

    fork_at: int
    window: int
    horizon: int
    seeds: tuple[int, ...]
    perturbations: tuple[PerturbationSpec, ...]
    placebos: int = 3
    placebo_scale: int | str = 1
    primary_metric: str = "tv"
    margins: dict[str, float] = field(default_factory=dict)
    threads: int = 1
    augmentation_rng: str = "per-sample"
    probe_at: tuple[int, ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)
    evidence_every: int = field(default=1, metadata=LEFT_OUT_IF_DEFAULT)
    own_perturbations: tuple[OwnPerturbation, ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)
    further_forks: tuple[int, ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)
    causal_break: PerturbationSpec | None = field(default=None, metadata=LEFT_OUT_IF_DEFAULT)
    segments: SegmentPlan | None = field(default=None, metadata=LEFT_OUT_IF_DEFAULT)
    evidence_digest: str = field(default=EVIDENCE_RECIPE, metadata=LEFT_OUT_IF_DEFAULT)

    def __init__(  # noqa: PLR0913, PLR0917 # one argument a field, as a dataclass has it
        self,
        fork_at: int | Iterable[int],
        window: int,
        horizon: int,
        seeds: Iterable[int],
        perturbations: Iterable[Any],
        placebos: int = 3,
        placebo_scale: int | str = 1,
        primary_metric: str = "tv",
        margins: Mapping[str, float] | None = None,
        threads: int = 1,
        augmentation_rng: str = "per-sample",
        probe_at: Iterable[int] = (),
        evidence_every: int = 1,
        own_perturbations: Iterable[OwnPerturbation] = (),
        further_forks: Iterable[int] = (),
        causal_break: Any = None,
        segments: SegmentPlan | None = None,
        evidence_digest: str = EVIDENCE_RECIPE,
        **unknown: Never,
    ) -> None:
        """Take any iterables, and names of perturbations. A seed of 1.5 is a mistake, not 1."""
        plan_values.refuse_unknown(unknown, (item.name for item in fields(self)))
        specs, objects = given_perturbations(perturbations)
        breaks, of_break = given_perturbations(causal_break, "causal_break")
        first, more = plan_values.first_and_more("fork_at", fork_at, _MAX_FORKS)
        values: dict[str, object] = {
            "fork_at": first,
            "window": window,
            "horizon": horizon,
            "seeds": plan_values.whole_numbers("seeds", seeds, _MAX_SEEDS),
            "perturbations": specs,
            "placebos": placebos,
            "placebo_scale": placebo_scale,
            "primary_metric": plan_values.text("primary_metric", primary_metric),
            "margins": plan_values.numbers_by_name("margins", margins),
            "threads": threads,
            "augmentation_rng": plan_values.text("augmentation_rng", augmentation_rng),
            "probe_at": plan_values.whole_numbers("probe_at", probe_at, _MAX_FURTHER),
            "evidence_every": evidence_every,
            "own_perturbations": each_once(
                plan_values.items("own_perturbations", own_perturbations, MAX_PERTURBATIONS),
                (objects | of_break).values(),
            ),
            "further_forks": plan_values.whole_numbers(
                "further_forks", more or further_forks, _MAX_FORKS
            ),
            "causal_break": breaks[0] if breaks else None,
            "segments": segments,
            "evidence_digest": plan_values.text("evidence_digest", evidence_digest),
        }
        # Without a placebo there is no noise floor, and check 9 could never pass.
        for name, most in _LIMITS.items():
            if name != "placebo_scale" or not plan_values.equals(placebo_scale, AUTO):
                values[name] = plan_values.whole(name, values[name], most)
        # The last is no field: a plan is data, and these are what the study file holds beside it.
        for name, value in {**values, "_objects": tuple(objects | of_break)}.items():
            object.__setattr__(self, name, value)  # frozen: the only way to fill it here
        self._check()

    def _check(self) -> None:
        plan_steps.check_steps(self.forks, self.window, self.horizon, self.probe_at)
        plan_steps.check_several(self.forks, self.probe_at, self.evidence_every)
        check_break(self.causal_break is not None, self.forks, self.window_end, self.horizon)
        check_segments(self.segments, self.forks, self.window_end, self.horizon)
        if not self.seeds:
            raise PlanError("seeds: a study needs at least one seed")
        if len(set(self.seeds)) != len(self.seeds):
            raise PlanError(
                "seeds: a seed is given twice: pairs of equal seeds are no replication",
                found=shown(next(one for one in self.seeds if self.seeds.count(one) > 1)),
            )
        if any(seed < 0 or seed >= 2**63 for seed in self.seeds):
            raise PlanError("seeds must lie in 0 .. 2**63-1", found=shown(self.seeds))
        if self.evidence_digest not in EVIDENCE_RECIPES:
            raise PlanError(
                f"unknown evidence_digest {shown(self.evidence_digest)}",
                expected=" or ".join(EVIDENCE_RECIPES),
            )
        self._check_names()

    def _check_names(self) -> None:
        if not self.perturbations:
            raise PlanError("perturbations: a study needs at least one perturbation")
        names = [spec.branch_name for spec in self.perturbations]
        taken = [*names, *self.broken_names]
        if twice := [
            spec.typed for spec in self.perturbations if taken.count(spec.branch_name) > 1
        ]:
            raise PlanError("perturbations: a perturbation is given twice", found=twice[0])
        named = [("primary_metric", self.primary_metric), *(("margins", m) for m in self.margins)]
        for name, metric in named:
            require_metric(name, metric)
        self._check_margins()
        if self.augmentation_rng not in AUGMENTATION_RNG:
            raise PlanError(
                f"unknown augmentation_rng {shown(self.augmentation_rng)}",
                expected=" or ".join(AUGMENTATION_RNG),
            )

    def _check_margins(self) -> None:
        # Against a margin that no difference can exceed, everything would be equivalent.
        for metric, margin in self.margins.items():
            if not margin > 0:
                raise PlanError("margins: a margin must be positive", found=shown(margin))
            if is_measure(metric) or base_metric(metric) not in RANGES:
                continue  # the program knows its range; or there is none
            if not margin < RANGES[base_metric(metric)]:
                raise PlanError(
                    f"margins: a margin of {shown(margin)} for {metric} cannot fail: values of "
                    f"{metric} lie within {RANGES[base_metric(metric)]:g} of each other"
                )

    def with_perturbations(self, specs: Iterable[PerturbationSpec]) -> StudyPlan:
        """The same plan with other perturbations."""
        return self.changed(perturbations=tuple(specs))

    def changed(self, **values: Any) -> StudyPlan:
        """The same plan with other values of some fields."""
        own = {item.name: getattr(self, item.name) for item in fields(self)}
        if "fork_at" in values:
            own["further_forks"] = ()  # they are of the forks that are replaced
        return StudyPlan(**{**own, **values})

    @property
    def objects(self) -> tuple[object, ...]:
        """Perturbations that the plan was given as objects, where it was made in a study file."""
        found: tuple[object, ...] = self.__dict__.get("_objects", ())
        return found

    @property
    def forks(self) -> tuple[int, ...]:
        """Every step after which the state is forked."""
        return (self.fork_at, *self.further_forks)

    def at(self, fork: int) -> StudyPlan:
        """The plan of one of its forks, as a study of that fork alone would have it."""
        return self.changed(fork_at=fork) if self.further_forks else self

    @property
    def window_end(self) -> int:
        """The step t0+W."""
        return self.fork_at + self.window

    @property
    def times(self) -> dict[str, int]:
        """Steps after which effects are tested: the window's end and the horizon."""
        return dict(zip(CONFIRMATORY, (self.window_end, self.horizon), strict=True))

    @property
    def n_tests(self) -> int:
        """Tests of the primary metric, which are corrected together."""
        return len(self.times) * len(self.perturbations) * len(self.forks)

    @property
    def seed_steps(self) -> int:
        """Training steps of one seed: trunk and control, then every other branch."""
        others = len(self.branch_names) - 1
        return self.horizon + others * sum(self.horizon - fork for fork in self.forks)

    @property
    def probed(self) -> dict[str, int]:
        """All steps after which branches are evaluated, by name and in their order."""
        further = {f"t0+{step - self.fork_at}": step for step in self.probe_at}
        return dict(sorted({**self.times, **further}.items(), key=lambda item: item[1]))

    @functools.cached_property
    def stated(self) -> frozenset[int]:
        """Steps whose rows hold the state whatever :attr:`evidence_every` is.

        Of a time that is evaluated they are the rows on both sides of its step.
        """
        around = (row for step in self.probed.values() for row in (step, step + 1))
        return frozenset((1, self.fork_at + 1, *around))

    def has_state(self, step: int) -> bool:
        """Whether the row of a step holds the state before it."""
        return (step - 1) % self.evidence_every == 0 or step in self.stated

    @property
    def evidence_note(self) -> str:
        """What is unusual about the state's evidence, for people; empty where nothing is."""
        sparse = f"every {self.evidence_every} steps and at the plan's times"
        how = "" if self.evidence_every == 1 else f" {sparse}"
        if self.evidence_digest != EVIDENCE_RECIPE:
            how += f" by {self.evidence_digest}"
        return f"the state is in evidence{how}" if how else ""

    @property
    def treatment_names(self) -> tuple[str, ...]:
        """Branch names of the treatments, in the plan's order."""
        return tuple(spec.branch_name for spec in self.perturbations)

    @property
    def placebo_names(self) -> tuple[str, ...]:
        """Branch names of the placebos."""
        return tuple(f"placebo-{k}" for k in range(self.placebos))

    def branch(self, name: str) -> tuple[Role, PerturbationSpec | None]:
        """Role and perturbation of a branch, by its name.

        Raises:
            PlanError: When the plan has no such branch.
        """
        if name in ("control", "replica"):
            return ("control" if name == "control" else "replica"), None
        if name in self.placebo_names:
            draw = self.placebo_names.index(name)
            return "placebo", PerturbationSpec("ulp", {"scale": self.placebo_scale, "draw": draw})
        for spec in self.perturbations:
            if spec.branch_name == name:
                return "treatment", spec
        if name in self.broken_names:
            return "broken", self.branch(unbroken(name))[1]
        raise PlanError(f"the plan has no branch {name!r}")

    @property
    def branch_names(self) -> tuple[str, ...]:
        """Every branch a seed has, in the order in which they are run."""
        others = (*self.placebo_names, *self.treatment_names, *self.broken_names)
        return ("control", "replica", *others)

    @property
    def broken_names(self) -> tuple[str, ...]:
        """Branches in which the causal break is applied; none without one."""
        names = ("control", *self.placebo_names, *self.treatment_names)
        return () if self.causal_break is None else tuple(map(broken, names))

    @property
    def specs(self) -> tuple[PerturbationSpec, ...]:
        """Every perturbation that the plan names, the causal break included."""
        return (*self.perturbations, *filter(None, (self.causal_break,)))
