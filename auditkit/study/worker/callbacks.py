"""Callbacks of a branch that is held: snapshot at t0, probe and commitments at every time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from auditkit.errors import OrderDrift, ProbeDisturbance, ProgramError, RestoreMismatch
from auditkit.formats.ordering import Batch
from auditkit.formats.outcome_names import is_by_position, labels_name, targets_name
from auditkit.formats.run_files import Outcome
from auditkit.observe.loader.driver import Delivery
from auditkit.observe.state.components import State
from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.digests import commitments, digest_leaves
from auditkit.program.data_source import data_source
from auditkit.program.reference import Reference, References, reference_name
from auditkit.program.session import Session
from auditkit.records.digest import EVIDENCE_BYTES, EVIDENCE_RECIPE
from auditkit.records.observed import POSITION_RECIPE, Observed
from auditkit.records.plan import StudyPlan
from auditkit.study.stages.describer import describe, evaluation_digests
from auditkit.study.stages.evaluator import (
    RECALIBRATION_BATCHES,
    evaluate_probe,
    has_non_finite,
    needs_recalibration,
)
from auditkit.study.stages.snapshotter import Snapshot, freeze, recalibration_batch
from auditkit.study.worker.segments import SegmentWatch
from auditkit.study.worker.shared_looks import SharedLooks

StepReporter = Callable[[int], None]

#: From so many bytes on, no further batch is kept for recalibration, where batches are kept whole.
MOST_RECALIBRATION_BYTES = 2**30


class BranchCallback:
    """Evaluates one branch.

    Args:
        session: The live branch.
        plan: When to evaluate.
        recalibration: Batches for BatchNorm recalibration.
        content: For an iterable dataset, the control's 16-byte order evidence a step from
            step 1 on; None otherwise. It is what the branch must consume, unless its own course
            makes its data.
        report_step: Called after every step.
        references: Where the control left what large tables are compared with, if it has any.
        position_recipe: How what is kept of such tables is computed; None for the current way.

    Attributes:
        digests: Commitments by time and component.
        order: int64 ``(B, 2)`` of every step consumed.
        samples: Digests of the samples of every step that they were measured of.
        diverged_at: First step whose loss or probabilities are not finite.
        evaluated_on: Commitments to the probe and to the recalibration batches.
        segments: What the plan holds and measures of its segments.
    """

    def __init__(
        self,
        session: Session,
        plan: StudyPlan | None,
        recalibration: list[Any],
        content: bytes | None,
        report_step: StepReporter,
        references: References | None = None,
        position_recipe: int | None = None,
    ) -> None:
        self._session = session
        self._plan = plan
        self._times = {} if plan is None else plan.probed
        self._recalibration = recalibration
        is_held = data_source(session.program) == "loader"
        self._content = content if is_held else None
        self._report_step = report_step
        self._references = references
        self._recipe = position_recipe or POSITION_RECIPE
        self._tables: dict[str, NDArray[Any]] = {}
        self.segments = SegmentWatch(session, plan)
        self.digests: dict[str, dict[str, str]] = {}
        self.order: list[Batch] = []
        self.samples: list[list[bytes]] = []
        self.diverged_at: int | None = None
        self.evaluated_on: dict[str, str] = {}

    def on_boundary(self, step: int, state: State) -> None:
        """Evaluate at t0, where the branch begins."""
        if self._plan is not None and step == self._plan.fork_at + 1:
            self._evaluate("t0", step - 1, state)

    def on_batch(self, step: int, delivery: Delivery, leaves: Leaves) -> None:
        """Keep the order; compare an iterable dataset with the control's content."""
        self.segments.on_batch(step, delivery)
        if delivery.samples is not None:
            self.samples.append(delivery.samples)
        if delivery.order is not None:
            self.order.append(delivery.order)
            return
        self.order.append(np.empty((0, 2), dtype=np.int64))
        if self._content is None:
            return
        offset = (step - 1) * EVIDENCE_BYTES
        expected = self._content[offset : offset + EVIDENCE_BYTES]
        found = digest_leaves(EVIDENCE_RECIPE, leaves)
        if expected and expected != found:
            raise OrderDrift(
                "the iterable dataset yielded another batch than for the control",
                step=step,
                component="order",
                expected=expected.hex(),
                found=found.hex(),
                hint="its order must depend on nothing but the epoch",
            )

    def on_step_end(self, step: int, loss: float | None) -> None:
        """Evaluate at the plan's times; note divergence."""
        self._report_step(step)
        self.segments.on_step_end(step)
        # the trunk is no branch: what it has left behind at t0 is evaluated in every one alike
        is_branch = self._plan is None or step > self._plan.fork_at
        if is_branch and loss is not None and not math.isfinite(loss) and self.diverged_at is None:
            self.diverged_at = step
        for name, time in self._times.items():
            if step == time:
                self._evaluate(name, step, self._session.state())

    def outcome(self) -> Outcome:
        """Probe results at every time."""
        probes = self._session.program.named_probes
        labels = {name: probe.known_labels.numpy() for name, probe in probes.items()}
        unnamed = labels.pop("", np.empty(0, dtype=np.int64))
        named = {labels_name(name): each for name, each in labels.items() if each.size}
        targets = {
            targets_name(name): probe.targets.numpy()
            for name, probe in probes.items()
            if probe.targets is not None
        }
        return Outcome(unnamed, {**named, **targets, **self._tables, **self.segments.found})

    def _evaluate(self, name: str, step: int, state: State) -> None:
        # Commitments first: evaluating moves no bit of the state, but it allocates.
        self.digests[name] = commitments(state)
        self._check_probe(step)
        tables = self._look(name)
        for suffix, table in tables.items():
            self._tables[f"{name}{suffix}"] = table
        if has_non_finite(tables) and self.diverged_at is None:
            self.diverged_at = step

    def _look(self, time: str) -> dict[str, NDArray[Any]]:
        """Evaluate; what is compared by position is set beside the control at this time."""
        references, is_compared = self._references, time in self._times
        control = references.read(time) if references is not None and is_compared else None
        tables = self._tables_beside(control)
        if is_compared and control is None and any(map(is_by_position, tables)):
            raise RestoreMismatch(
                f"the control left nothing at {time} to compare the probe with",
                expected=reference_name(time),
            )
        return tables

    def _tables_beside(self, reference: Reference | None) -> dict[str, NDArray[Any]]:
        return evaluate_probe(self._session, self._recalibration, reference, self._recipe)

    def _check_probe(self, step: int) -> None:
        """Outcomes of one branch at all times are of the same examples."""
        found = evaluation_digests(self._session, self._recalibration)
        if self.evaluated_on and self.evaluated_on != found:
            changed = [name for name in found if found[name] != self.evaluated_on.get(name)]
            raise ProbeDisturbance(
                "the probe is not what it was when the branch began",
                step=step,
                component=f"probe {changed[0]}",
                hint="give Probe(...) copies that nothing else writes to",
            )
        self.evaluated_on = found


class TrunkCallback(BranchCallback):
    """Evaluates trunk and control, and takes the snapshot in between.

    Args:
        session: The live program.
        plan: When to evaluate.
        report_step: Called after every step.
        references: Where to leave what branches with large tables are compared with.
        position_recipe: As of a branch.

    Attributes:
        initial: Commitments before step 1, the first epoch begun.
        made: The same before the first epoch, which under inherited augmentation draws.
        description: The program before step 1: a scheduler changes hyper-parameters.
        left: Names of the working files with what branches are compared with.
        looks: What was looked at last; forks of one trunk have one.
    """

    def __init__(
        self,
        session: Session,
        plan: StudyPlan | None,
        report_step: StepReporter,
        references: References | None = None,
        position_recipe: int | None = None,
    ) -> None:
        super().__init__(session, plan, [], None, report_step, references, position_recipe)
        self._first_batches: list[Any] = []
        self._first_bytes = 0
        self._snapshot: Snapshot | None = None
        self.initial: dict[str, str] = {}
        self.made: dict[str, str] = {}
        self.description = describe(session)
        self.left: tuple[str, ...] = ()
        self.looks = SharedLooks()

    @property
    def recalibration(self) -> list[Any]:
        """The batches that BatchNorm is recalibrated on."""
        return self._recalibration

    @property
    def observed(self) -> Observed:
        """What branches are compared on, and how it was computed."""
        observed = self._session.program.observed
        if not any(map(is_by_position, self._tables)):
            return observed
        return replace(observed, position_recipe=self._recipe)

    @property
    def snapshot(self) -> Snapshot:
        """The fork.

        Raises:
            ProgramError: When training never reached it.
        """
        if self._snapshot is None:
            raise ProgramError("training ended before the fork")
        return self._snapshot

    def on_boundary(self, step: int, state: State) -> None:
        """Commit to the start; freeze at t0."""
        if step == 1:
            self.initial = commitments(state)
            self.made = self.made or self.initial
        if self._plan is not None and step == self._plan.fork_at + 1:
            self._recalibration = list(self._first_batches)
            self._snapshot = freeze(self._session, state, self._recalibration)
        super().on_boundary(step, state)
        if self._snapshot is not None and not self._snapshot.known:
            # the control's commitments at t0 are of the very state that was frozen
            self._snapshot = replace(self._snapshot, known=self.digests["t0"])

    def on_batch(self, step: int, delivery: Delivery, leaves: Leaves) -> None:
        """Keep the order and the first batches."""
        super().on_batch(step, delivery, leaves)
        missing = len(self._first_batches) < RECALIBRATION_BATCHES and self._snapshot is None
        if missing and not self.is_full and needs_recalibration(self._session):
            self._first_batches.append(recalibration_batch(leaves))
            self._first_bytes += sum(
                leaf.nbytes for leaf in leaves.values() if isinstance(leaf, Tensor)
            )

    @property
    def is_full(self) -> bool:
        """Whether batches that no indices give again take as much room as they may."""
        by_index = getattr(self._session.driver, "loads_by_index", False)
        return not by_index and self._first_bytes >= MOST_RECALIBRATION_BYTES

    def _look(self, time: str) -> dict[str, NDArray[Any]]:
        left = self._references if time in self._times else None
        given = (self.digests[time], self.evaluated_on)
        wanted = None if left is None else Reference()
        tables, control = self.looks.at(given, wanted, self._tables_beside)
        if left is not None and control is not None and control.weights:
            self.left += (left.write(time, control),)
        return tables

    def freeze(self, state: State | None = None) -> Snapshot:
        """A snapshot of this moment, or of the state at a boundary."""
        now = self._session.state() if state is None else state
        return freeze(self._session, now, self._first_batches)


class ModuleCallback:
    """Digests every module's input and output, and every gradient, during one step.

    An input is digested before its module runs, which may overwrite it. A module that holds others
    begins before them and ends after them: where the input of an inner one is the first thing
    that differs, the code of the outer one made it. Gradients are seen as they are accumulated
    (full backward hooks fail on in-place operations). Hooks return None: a value would replace
    what they are given.

    Attributes:
        entries: Name and digest in the order in which things happened.
    """

    def __init__(
        self,
        model: nn.Module,
        step: int,
        report_step: StepReporter,
        segments: SegmentWatch | None = None,
    ) -> None:
        self._model, self._segments = model, segments
        self._step = step
        self._report_step = report_step
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self.entries: list[tuple[str, str]] = []

    def on_boundary(self, step: int, state: State) -> None:
        """Nothing to do."""

    def on_batch(self, step: int, delivery: Delivery, leaves: Leaves) -> None:
        """Attach the hooks when the step begins."""
        if self._segments is not None:
            self._segments.on_batch(step, delivery)
        if step == self._step:
            self._note("<batch>", leaves)
            self._attach()

    def on_step_end(self, step: int, loss: float | None) -> None:
        """Remove the hooks."""
        self._report_step(step)
        if self._segments is not None:
            self._segments.on_step_end(step)
        for handle in self._hooks:
            handle.remove()
        self._hooks.clear()

    def _attach(self) -> None:
        for name, module in self._model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # compiled code takes no hooks from here
            label = f"{name or '<model>'} ({type(module).__name__})"
            self._hooks += [
                module.register_forward_pre_hook(self._input_hook(label), with_kwargs=True),
                module.register_forward_hook(self._output_hook(label)),
            ]
        for name, parameter in self._model.named_parameters():
            if parameter.requires_grad:
                hook = parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    self._gradient_hook(name)
                )
                self._hooks.append(hook)

    def _input_hook(self, label: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, named: Any) -> None:
            self._note(f"{label} input", _tensors([inputs, named]))

        return hook

    def _output_hook(self, label: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._note(f"{label} output", _tensors(output))

        return hook

    def _gradient_hook(self, name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            if parameter.grad is not None:
                self._note(f"gradient of {name}", {"grad": parameter.grad})

        return hook

    def _note(self, label: str, leaves: Leaves) -> None:
        self.entries.append((label, digest_leaves(EVIDENCE_RECIPE, leaves).hex()))


def _tensors(value: Any) -> Leaves:
    """The tensors in a module's input or output; anything else has no digest."""
    found: dict[str, Tensor | bytes] = {}
    queue = [("", value)]
    while queue:
        path, item = queue.pop()
        if isinstance(item, Tensor):
            found[path] = item.detach()
        elif isinstance(item, (list, tuple)):
            queue.extend((f"{path}.{i}", part) for i, part in enumerate(item))
        elif isinstance(item, dict):
            queue.extend((f"{path}.{key}", part) for key, part in item.items())
    return found
