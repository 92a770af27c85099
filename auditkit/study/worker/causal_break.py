"""The causal break of a broken branch: the plan's reset, applied when its window has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from auditkit.errors import NothingToPerturb, PlanError
from auditkit.observe.loader.driver import Delivery
from auditkit.observe.state.components import State
from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.digests import commitments
from auditkit.perturbations.registry import perturbation_of
from auditkit.program.data_source import data_source
from auditkit.program.program import Program
from auditkit.program.session import Session
from auditkit.records.causal_break import BROKEN, VACUOUS, BreakRecord
from auditkit.records.job import Job
from auditkit.records.plan import StudyPlan
from auditkit.study.stages.holder import StepCallback
from auditkit.study.stages.perturber import perturb


class Breaking:
    """Applies the causal break after the step t0+W, and passes everything on.

    The branch is evaluated at t0+W first, so that what is measured there is the history alone.

    Args:
        inner: What else is called while the branch is held.
        job: Its plan names the break.
        session: The live branch.
        name: The branch; one that is not broken is left alone.
        recalibration: The control's first batches.

    Attributes:
        record: What was done; None where nothing was yet.
    """

    def __init__(
        self,
        inner: StepCallback,
        job: Job,
        session: Session,
        name: str,
        recalibration: Sequence[Any] = (),
    ) -> None:
        self._inner, self._session, self._recalibration = inner, session, recalibration
        self._version = job.version_of(BROKEN)
        self._plan = job.plan if name.endswith(BROKEN) else None
        self.record: BreakRecord | None = None

    def on_boundary(self, step: int, state: State) -> None:
        """Pass it on."""
        self._inner.on_boundary(step, state)

    def on_batch(self, step: int, delivery: Delivery, leaves: Leaves) -> None:
        """Pass it on."""
        self._inner.on_batch(step, delivery, leaves)

    def on_step_end(self, step: int, loss: float | None) -> None:
        """Pass it on; then break, where the window has ended."""
        self._inner.on_step_end(step, loss)
        if self._plan is not None and step == self._plan.window_end:
            self.record = self._break(self._plan)

    def _break(self, plan: StudyPlan) -> BreakRecord:
        spec = plan.causal_break
        assert spec is not None  # noqa: S101 # else no branch is broken
        declaration = perturbation_of(spec.name, self._version).declaration
        reset: tuple[str, ...] = ()
        try:
            reset = perturb(self._session, spec, self._version, self._recalibration)
        except NothingToPerturb:
            if spec.name != VACUOUS:
                raise
        return BreakRecord(declaration.version, commitments(self._session.state()), reset)


def require_breakable(program: Program, plan: StudyPlan) -> None:
    """Refuse a causal break where a branch that is broken would be given other data.

    Raises:
        PlanError: When no loader delivers the control's batches.
    """
    if plan.causal_break is not None and data_source(program) != "loader":
        raise PlanError(
            f"causal_break: {plan.causal_break.typed} leads to other data where a program's own "
            "course makes them, and the second segment must be the same for all",
            hint="leave it out; it is for programs whose loader does not depend on the model",
        )
