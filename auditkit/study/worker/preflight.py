"""Preflight: everything that a study will ask of a program, asked after its first steps.

A branch that cannot be made is found out after the trunk and the branches before it, which may be
hours. So before anything else a program is built, trained for two steps and, on a copy of that
state, perturbed in every way that the plan names; the probe is looked at, BatchNorm recalibrated,
a snapshot taken. An optimizer that has not stepped by then (gradients are accumulated), and what
is still what it would become (a schedule, a queue), is asked again later, at most at t0.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from auditkit.errors import AuditError, NothingToPerturb, PlanError
from auditkit.formats.outcome_names import DISTANCE_COLUMNS, RECALIBRATED
from auditkit.formats.run_files import trace_to_tensors
from auditkit.observe.loader.driver import Delivery
from auditkit.observe.state.components import State
from auditkit.observe.state.restoring import restore
from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.digests import commitments, digest_leaves
from auditkit.perturbations.registry import perturbation_of
from auditkit.program.difficulty import require_difficulty
from auditkit.program.observables import require_primary
from auditkit.program.session import Session
from auditkit.records.causal_break import VACUOUS
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.digest import EVIDENCE_RECIPE
from auditkit.records.plan import PerturbationSpec, StudyPlan
from auditkit.records.preflight import Cost
from auditkit.study.stages.auditor import Auditor
from auditkit.study.stages.evaluator import Tables, evaluate_probe
from auditkit.study.stages.forker import read_fork
from auditkit.study.stages.perturber import perturb
from auditkit.study.stages.snapshotter import Snapshot
from auditkit.study.worker.callbacks import StepReporter, TrunkCallback
from auditkit.study.worker.causal_break import require_breakable
from auditkit.study.worker.data_changes import try_change
from auditkit.study.worker.declared_changes import perturb_as_declared
from auditkit.study.worker.job_files import require_indices, require_kept
from auditkit.study.worker.recalibration import kept_bytes
from auditkit.study.worker.segments import require_segments, try_segments
from auditkit.study.worker.yoking import require_said, require_yokable

#: The first steps warm up and are not timed.
_WARM_STEPS = 3

#: Steps after which perturbations are tried, the later ones for optimizers that step late.
_ATTEMPTS = (2, 8, 32, 64)

#: The one causal break that may find nothing to change.
VACUOUS_BREAK = f"causal_break {VACUOUS}"


def trial_steps(plan: StudyPlan, timed: int) -> int:
    """How many steps a preflight trains, to time so many of them.

    No more than the trunk has, where that is enough: a schedule may end at the horizon.
    """
    return min(_WARM_STEPS + timed, max(plan.fork_at, _WARM_STEPS), plan.horizon)


class PreflightCallback(TrunkCallback):
    """Trains as the trunk does, and tries the perturbations in between.

    Args:
        session: The live program.
        plan: The plan.
        report_step: Called after every step.
        nudged_after: The step whose state nudges are tried on; None for no trial of them.

    Attributes:
        nudged: That state; None until the step is over.
    """

    def __init__(
        self,
        session: Session,
        plan: StudyPlan,
        report_step: StepReporter,
        nudged_after: int | None = None,
    ) -> None:
        super().__init__(session, None, self._note_time)
        self._nudged_after = nudged_after
        self.nudged: Snapshot | None = None
        require_primary(session.program, plan)
        require_breakable(session.program, plan)
        require_segments(session, plan)
        self._study = plan
        self._report = report_step
        self._waiting = dict(_asked(plan))
        self._refused: dict[str, AuditError] = {}
        self._began: bytes | None = None
        self._asked_at = 0
        self._timestamps: list[float] = []
        self._delivered: Any = None

    def on_boundary(self, step: int, state: State) -> None:
        """Ask for whatever was not decided yet."""
        super().on_boundary(step, state)
        if self._began is None:
            self._began = _weights(self._session)
        if step - 1 == self._nudged_after:
            self.nudged = self.freeze(state)
        if self._waiting and step - 1 in self._attempts and step - 1 > self._asked_at:
            self._asked_at = step - 1
            self._attempt(step - 1, state)

    def on_batch(self, step: int, delivery: Delivery, leaves: Leaves) -> None:
        """Keep the batch, to change it."""
        super().on_batch(step, delivery, leaves)
        replaced = delivery.delivered is not None
        self._delivered = delivery.delivered if replaced else delivery.batch
        if step == 1:
            try_segments(self._study.segments, self._delivered)

    @property
    def _attempts(self) -> set[int]:
        return {min(step, self._study.fork_at) for step in _ATTEMPTS}

    @property
    def next_attempt(self) -> int | None:
        """The step after which something has to be asked again; None where all is decided."""
        later = [step for step in self._attempts if step > self._asked_at]
        return min(later) if later and self._waiting else None

    def require_possible(self) -> tuple[str, ...]:
        """What is still undecided, a line each.

        Raises:
            PlanError: When something cannot be done to this program.
        """
        if self._refused:
            lines = [f"{name}: {error.message}" for name, error in self._refused.items()]
            hints = dict.fromkeys(error.hint for error in self._refused.values() if error.hint)
            raise PlanError(
                f"this program cannot be perturbed as planned: {'; '.join(lines)}",
                where=f"after {self._asked_at} steps",
                hint="; ".join(hints) or None,
            )
        return tuple(
            f"{name} found nothing to change after {self._asked_at} steps; whether it fits is seen "
            f"at step {self._study.fork_at}"
            for name in self._waiting
        )

    def cost(self, auditor: Auditor, start_seconds: float, build_seconds: float) -> Cost:
        """What the steps cost, and a snapshot and the probe at their end.

        Args:
            auditor: Its rows.
            start_seconds: Processor time of importing the program.
            build_seconds: Time that its factory took.
        """
        begin = time.perf_counter()
        snapshot = self.freeze()
        frozen = time.perf_counter() - begin
        begin = time.perf_counter()
        commitments(self._session.state())
        tables = evaluate_probe(self._session, self._first_batches)
        evaluated = time.perf_counter() - begin
        rows = trace_to_tensors(auditor.trace())
        return Cost(
            step_seconds=self._step_seconds(),
            start_seconds=start_seconds,
            build_seconds=build_seconds,
            branch_seconds=2 * frozen + (1 + len(self._study.probed)) * evaluated,
            snapshot_bytes=kept_bytes(self._session, snapshot),
            row_bytes=sum(tensor.n_bytes for tensor in rows.values()) // auditor.n_rows,
            **_sizes(tables),
        )

    def _step_seconds(self) -> float:
        steps = np.diff(self._timestamps)
        warm = min(_WARM_STEPS - 1, len(steps) - 1)
        return statistics.median(steps[max(warm, 0) :].tolist()) if len(steps) else 0.0

    def _note_time(self, step: int) -> None:
        self._timestamps.append(time.perf_counter())
        self._report(step)

    def _attempt(self, n_steps: int, state: State) -> None:
        """Apply everything that is waiting, each to the state as it stands, which stays."""
        decides = n_steps == self._study.fork_at or _weights(self._session) != self._began
        snapshot = self.freeze(state)
        evaluate_probe(self._session, self._first_batches)
        for name, spec in list(self._waiting.items()):
            try:
                _apply(self._session, spec, self._first_batches)
                require_said(self._session, spec)
                require_difficulty(self._session, spec, self.order[-1:])
                try_change(self._session, spec, n_steps, self._delivered)
            except NothingToPerturb as error:
                if not decides or (error.for_now and n_steps < self._study.fork_at):
                    continue
                if name != VACUOUS_BREAK:
                    self._refused[name] = error
            except AuditError as error:
                self._refused[name] = error
            finally:
                fork = read_fork(snapshot.tensors, snapshot.meta)
                restore(self._session.objects, fork.state)
            del self._waiting[name]


def _sizes(tables: Tables) -> dict[str, Any]:
    """Rows and classes of the first table, and what a branch keeps at one time in all."""
    first = next(iter(tables.values()))
    by_position = [len(table) for name, table in tables.items() if name.endswith(":predicted")]
    n_bytes = sum(table.nbytes for table in tables.values())
    n_bytes += 8 * len(DISTANCE_COLUMNS) * sum(by_position)
    is_whole = set(tables) <= {"", RECALIBRATED}
    return {
        "n_probe": len(first),
        "n_classes": first.shape[1] if first.ndim == 2 else 1,
        "outcome_bytes": None if is_whole else n_bytes,
    }


def _asked(plan: StudyPlan) -> list[tuple[str, PerturbationSpec]]:
    """Everything that branches are perturbed by, once each."""
    found = [(spec.typed, spec) for spec in plan.perturbations]
    if plan.causal_break is not None:
        found.append((f"causal_break {plan.causal_break.typed}", plan.causal_break))
    if plan.placebos:
        found.append(("a placebo", PerturbationSpec("ulp", {"scale": plan.placebo_scale})))
    return found


def _apply(session: Session, spec: PerturbationSpec, recalibration: list[Any]) -> None:
    if perturbation_of(spec.name).declaration.kind == "order":
        require_indices(session, [spec.name])
        require_kept(session, spec)
    require_yokable(session, spec)
    if all(part.name in DECLARATIONS for part in spec.parts):
        perturb(session, spec, recalibration=recalibration)
    else:
        perturb_as_declared(session, spec, recalibration)


def _weights(session: Session) -> bytes:
    """Digest of what the optimizer trains: it has stepped once that is another."""
    groups = session.objects.optimizer.param_groups
    weights = [weight for group in groups for weight in group["params"]]
    leaves = {str(number): weight.detach() for number, weight in enumerate(weights)}
    return digest_leaves(EVIDENCE_RECIPE, leaves)
