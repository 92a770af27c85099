"""What a study is asked to be, by its program, its plan and its folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from auditkit.engines.spec import EngineSpec
from auditkit.errors import PlanError
from auditkit.formats.ordering import moves_nothing, order_spec
from auditkit.formats.redaction import redact_text
from auditkit.records.composed_declarations import composed
from auditkit.records.declaration import Declaration, declaration_of
from auditkit.records.fork_points import require_one_fork
from auditkit.records.job import ProgramSource
from auditkit.records.plan import StudyPlan
from auditkit.records.plan_values import spelled_seeds
from auditkit.records.planned_declarations import declarations_of, refuse_shadows, resolved_break
from auditkit.records.preflight import Preflight
from auditkit.study.extension import EarlierStudy
from auditkit.study.script_workers import SEED


@dataclass(frozen=True)
class StudyRequest:
    """What to run.

    Attributes:
        program: Where the factory is.
        plan: The plan, perturbations resolved (see :func:`resolve`).
        out: The run's folder.
        jobs: Processes at work at a time: of seeds, and where fewer are left, of branches.
        resume: Whether to finish an interrupted run.
        command: The user's own command, where the program is a script with a Recorder in it;
            see :func:`script_source`.
        plan_file: The signed plan (:mod:`auditkit.study.planning`) that the study is bound to.
        preflight: What was found out about the program, where it was tried already.
        earlier: The finished study that seeds are added to.
        engine: Has the jobs done on other machines (:mod:`auditkit.engines`); None for here.
        position_recipe: By which recipe other seeds of it were looked at; None for the current.
    """

    program: ProgramSource
    plan: StudyPlan
    out: Path
    jobs: int = 1
    resume: bool = False
    command: tuple[str, ...] = ()
    plan_file: bytes | None = None
    preflight: Preflight | None = None
    earlier: EarlierStudy | None = None
    engine: EngineSpec | None = None
    position_recipe: int | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that are run: of the plan's, those that no earlier study had."""
        known = () if self.earlier is None else self.earlier.manifest.plan.seeds
        return tuple(seed for seed in self.plan.seeds if seed not in known)

    @property
    def branches_at_once(self) -> bool:
        """Whether branches of one seed may be at work beside each other, given processes enough."""
        return not self.command and self.engine is None


def script_source(command: Sequence[str], plan: StudyPlan, folder: Path) -> ProgramSource:
    """The program that a user's own command is.

    Args:
        command: The command; ``{seed}`` in it stands for the study seed.
        plan: The plan.
        folder: Where it runs.

    Raises:
        PlanError: When several seeds would run the same command, there are several forks, a
            causal break or segments, or the state is not to be in every row, as it is where a
            Recorder cuts them.
    """
    require_one_fork(plan, "a study of a script")
    if plan.causal_break is not None:
        raise PlanError(
            "causal_break: a script's own loop is not stopped at the window's end to reset it",
            hint="write it as a program (auditkit explain study)",
        )
    if plan.segments is not None:
        raise PlanError(
            "segments: in a script's own loop nothing is held or measured between the steps",
            hint="write it as a program (auditkit explain study)",
        )
    if plan.evidence_every != 1:
        raise PlanError(
            "evidence_every: a script has evidence of every step", found=plan.evidence_every
        )
    if len(plan.seeds) > 1 and not any(SEED in part for part in command):
        raise PlanError(
            f"{len(plan.seeds)} seeds, and the command is the same for all",
            hint=f"give the script its seed: -- python train.py --seed {SEED}",
        )
    return ProgramSource(shlex.join(map(redact_text, command)), str(folder), {})


def resolve(plan: StudyPlan, declarations: Mapping[str, Declaration]) -> StudyPlan:
    """Fill in the parameters of every perturbation; own ones that it does not name are left out.

    Raises:
        UnknownPerturbation: On a name, parameter or value that no declaration has.
        PlanError: When two perturbations turn out to be the same, one leaves the order of a
            window's batches as it is, or one would change the data of a plan that cannot keep them.
    """
    refuse_shadows(plan, declarations)
    declarations = declarations_of(plan, declarations)
    for spec in plan.specs:
        if len(spec.parts) > 1:  # says which part does not fit
            composed(spec.name, declarations)
    specs = [declaration_of(spec.name, declarations).resolve(spec) for spec in plan.perturbations]
    kinds = {name: declaration.kind for name, declaration in declarations.items()}
    for spec in filter(None, (order_spec(spec, kinds) for spec in specs)):
        still = [seed for seed in plan.seeds if moves_nothing(spec, plan.window, seed)]
        if still:
            raise PlanError(
                f"{spec.typed} leaves the window's {plan.window} batches in their order for "
                f"seed {spelled_seeds(still)}",
                hint="a longer --window, another draw=, other seeds, or unit=sample",
            )
    causal_break = resolved_break(plan.causal_break, declarations)
    every = (*specs, *filter(None, (causal_break,)))
    names = {part.name for spec in every for part in spec.parts}
    idle = sorted(name for name in names if kinds.get(name) == "none" and name != "carry")
    if idle:
        raise PlanError(
            f"{idle[0]} declares that it changes nothing", hint="carry is the branch that does not"
        )
    changing = sorted(name for name in names if kinds.get(name) == "data")
    if changing and plan.augmentation_rng == "inherit":
        raise PlanError(
            f"{changing[0]} changes data: under augmentation_rng='inherit', as in a script, "
            "nothing tells whether other bytes than the window's were changed",
            hint="augmentation_rng='per-sample', which a program with a factory has by default",
        )
    if "rng-reseed" in names and plan.augmentation_rng == "inherit":
        raise PlanError(
            "rng-reseed: data order and augmentation draw from the global streams under "
            "augmentation_rng='inherit', and must stay the control's",
            hint="augmentation_rng='per-sample', which a program with a factory has by default",
        )
    own = [one for one in plan.own_perturbations if one.name in names]
    return plan.changed(perturbations=specs, own_perturbations=own, causal_break=causal_break)
