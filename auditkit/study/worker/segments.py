"""What is held and measured while segments A and B are trained, as the plan's ``segments`` says.

BatchNorm's layers are in evaluation mode while a step runs, and as they were between steps, so that
no snapshot or evidence is of a model that was prepared for it. The momentum is looked at where the
optimizer is about to step for the first time in B: there it holds the history, and the gradient is
B's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from auditkit.errors import PlanError, ProgramError
from auditkit.formats.ordering import Batch
from auditkit.formats.outcome_names import ALIGNMENT
from auditkit.observe.loader.driver import Delivery
from auditkit.observe.state.modules import batchnorm_layers
from auditkit.perturbations.data import labels_of
from auditkit.program.data_source import data_source
from auditkit.program.session import Session
from auditkit.records.memory_declarations import FIRST_MOMENTS
from auditkit.records.plan import StudyPlan
from auditkit.records.segments import SegmentPlan, overlap_fault


class SegmentWatch:
    """Prepares the steps of A and B, and looks at them.

    Args:
        session: The live program.
        plan: Its ``segments`` say what is asked for; None, or a plan without them, for nothing.

    Attributes:
        found: The alignment, float64 ``(1,)``; nothing where there is no momentum.
    """

    def __init__(self, session: Session, plan: StudyPlan | None) -> None:
        self._session = session
        self._plan = plan
        self._asked = None if plan is None else plan.segments
        self._held: list[tuple[nn.Module, bool]] = []
        self._before: list[Tensor] = []
        self._hook: RemovableHandle | None = None
        self._classes: list[dict[int, int]] = [{}, {}]
        self.found: dict[str, NDArray[Any]] = {}

    def on_batch(self, step: int, delivery: Delivery) -> None:
        """Prepare a step."""
        plan, asked = self._plan, self._asked
        if plan is None or asked is None or step <= plan.fork_at:
            return
        if asked.same_classes and delivery.order is not None:
            given = delivery.batch if delivery.delivered is None else delivery.delivered
            self.note_classes(step, delivery.order, given, plan)
        if asked.hold_batchnorm:
            layers = batchnorm_layers(self._session.program.model)
            self._held = [(layer, layer.training) for layer in layers]
            self._before = [one.detach().clone() for one in _statistics(layers)]
            for layer in layers:
                layer.training = False
        if asked.alignment and step == plan.window_end + 1:
            self._hook = register_optimizer_step_pre_hook(self._look)

    def note_classes(self, step: int, order: Batch, given: Any, plan: StudyPlan) -> None:
        """Keep the class of every sample of a step's batch."""
        known = self._classes[step > plan.window_end]
        known.update(zip(order[:, 1].tolist(), labels_of(given).flatten().tolist(), strict=False))

    def on_step_end(self, step: int) -> None:
        """Put layers back as they were.

        Raises:
            ProgramError: When the step changed statistics that are held.
        """
        layers = [layer for layer, _ in self._held]
        now = list(_statistics(layers))
        if not all(map(torch.equal, self._before, now)):
            raise ProgramError(
                "the step changed BatchNorm's running statistics, which the plan holds from t0 on",
                step=step,
                component="batchnorm",
                hint="model.train() in a step or loss of your own takes the layers out of "
                "evaluation mode: call it where the model is built; or leave hold_batchnorm out",
            )
        for layer, training in self._held:
            layer.training = training
        self._held, self._before = [], []

    def close(self) -> None:
        """No optimizer stepped in B, or all is over."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def require_planned(self, order: list[Batch]) -> None:
        """Refuse segments that are not those that the plan says.

        Args:
            order: int64 ``(B, 2)`` of every step from step 1 on.

        Raises:
            PlanError: When B has another share of A's indices, or other classes.
        """
        plan, asked = self._plan, self._asked
        if plan is None or asked is None:
            return
        first, second = segment_indices(order, plan)
        text = overlap_fault(asked, first, second)
        here, there = (Counter(classes.values()) for classes in self._classes)
        if text is None and asked.same_classes and here != there:
            label = min(one for one in {*here, *there} if here[one] != there[one])
            text = f"segment A has {here[label]} samples of class {label}, and B {there[label]}"
        if text is not None:
            raise PlanError(
                f"segments: {text}",
                hint="the loader decides it: auditkit.Segments draws them as planned where it is "
                f"given fork_at={plan.fork_at}, steps={plan.window}, and the plan's share and "
                "classes",
            )

    def _look(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if optimizer is not self._session.program.optimizer:
            return
        self.close()
        value = cosine(optimizer)
        if value is not None:
            self.found = {ALIGNMENT: np.array([value], dtype=np.float64)}


def require_segments(session: Session, plan: StudyPlan) -> None:
    """Refuse segments that this program cannot have.

    Raises:
        PlanError: When something is said of indices, and its loader has none.
    """
    asked = plan.segments
    if asked is None:
        return
    by_index = data_source(session.program) == "loader" and not session.driver.iterable
    if (asked.overlap is not None or asked.same_classes) and not by_index:
        raise PlanError(
            "segments: overlap and same_classes are of indices, and this program's loader has none",
            hint="use a map-style data set, or leave them out",
        )


def try_segments(asked: SegmentPlan | None, delivered: Any) -> None:
    """Look for the labels of a batch, where they are needed.

    Raises:
        NothingToPerturb: When it has none.
    """
    if asked is not None and asked.same_classes:
        labels_of(delivered)


def segment_indices(order: list[Batch], plan: StudyPlan) -> tuple[set[int], set[int]]:
    """The indices of A and of B."""
    parts = order[plan.fork_at : plan.window_end], order[plan.window_end : plan.horizon]
    first, second = ({int(index) for batch in part for _, index in batch} for part in parts)
    return first, second


def cosine(optimizer: Optimizer) -> float | None:
    """Of momentum and gradient, over all parameters that have both; None where one is 0.

    Momentum is SGD's ``momentum_buffer``, or the first moment of Adam and its kin.
    """
    inner = momentum = gradient = 0.0
    for group in optimizer.param_groups:
        for weight in group["params"]:
            slot = _first_moment(optimizer.state.get(weight, {}))
            if slot is None or weight.grad is None or weight.grad.is_sparse:
                continue
            here, there = (each.detach().double().flatten() for each in (slot, weight.grad))
            inner += float((here * there).sum())
            momentum += float((here * here).sum())
            gradient += float((there * there).sum())
    value = inner / (momentum * gradient) ** 0.5 if momentum * gradient > 0 else float("nan")
    return min(max(value, -1.0), 1.0) if np.isfinite(value) else None


def _first_moment(state: Mapping[str, Any]) -> Tensor | None:
    found = (state.get(name) for name in FIRST_MOMENTS)
    return next((slot for slot in found if isinstance(slot, Tensor)), None)


def _statistics(layers: list[nn.Module]) -> list[Tensor]:
    return [each for layer in layers for each in layer.buffers(recurse=False)]
