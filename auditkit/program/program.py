"""The program: the one thing that a user writes for a study.

A program is a factory ``make_program(seed) -> Program``. For equal arguments it must build the
same objects; auditkit seeds every global stream before it is called.
"""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from auditkit.errors import AuditError, ProgramError, ProgramFailed
from auditkit.formats.quote import class_of
from auditkit.observe.loader.iterables import TAKEN, as_data_loader, is_loader, without_batches
from auditkit.observe.machine.code import import_file, import_module
from auditkit.observe.machine.imports import noted_opens
from auditkit.observe.rng.per_sample import PerSample
from auditkit.observe.rng.streams import Generator
from auditkit.observe.state.components import Stateful, TrainingObjects
from auditkit.observe.state.named_groups import Groups, Patterns, group_patterns
from auditkit.perturbations.own import adopt
from auditkit.perturbations.registry import registry
from auditkit.program.arguments import check_arguments, kind_of_failure, lacking_options
from auditkit.program.checked_kinds import as_loss, check_kinds, require_loss
from auditkit.program.data_source import check_data_source
from auditkit.program.observables import (
    Measure,
    check_observables,
    measures_by_name,
    observed,
    probes_by_name,
)
from auditkit.program.probe import Probe
from auditkit.program.typed_arguments import typed
from auditkit.records.observed import Observed
from auditkit.records.plan import StudyPlan

#: Where the sources of auditkit lie, and those of Python's own library.
_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
_STANDARD = f"{Path(os.__file__).parent}{os.sep}"

Batch = Any
Loss = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class Program:
    """Everything that is trained, with what, on what, and how it is judged.

    Attributes:
        model: The model.
        optimizer: Its optimizer.
        loader: A ``torch.utils.data.DataLoader``, or anything else whose ``iter()`` gives an
            iterator over the batches of one epoch, a new one each time; or None, where ``step``
            makes or finds its own data and says by :func:`auditkit.consume` what it consumes.
        loss: ``loss(model, batch)`` gives the scalar training loss. It is also called, without
            training, to recalibrate BatchNorm, so it must not count its calls, or there is
            ``recalibrate``. May be left out with a ``step`` of its own; recalibration is then
            left out, too, unless there is ``recalibrate``.
        probe: The examples on which branches are compared.
        probes: The same by name, where there are several; in place of ``probe``.
        measures: Numbers of the program's own by name, functions of the program or
            :class:`~auditkit.program.observables.Measure`; with or without a probe.
        scheduler: Learning-rate scheduler, stepped after each optimizer step or each epoch.
        scheduler_interval: ``step`` or ``epoch``.
        scaler: ``torch.amp.GradScaler`` for mixed precision.
        averaged: Averaged copies by name; those with ``update_parameters`` (such as
            ``torch.optim.swa_utils.AveragedModel``) are updated after each optimizer step.
        extras: Further stateful objects by name, see
            :class:`auditkit.observe.state.components.TrainingObjects`; and generators that follow
            the sample and not the position, as ``auditkit.PerSample(generator)``.
        step: ``step(program, batch, t)`` replaces the default step of batch number t (from 1)
            and returns the loss, a float, or None. The batch is None without a loader. It also
            steps schedulers (but at an epoch's end) and averages.
        accumulate: Batches whose gradients are summed up before each optimizer step; not with a
            ``step`` of the program's own.
        clip_grad_norm: Largest gradient norm, or None; as ``accumulate``.
        on_epoch_end: ``on_epoch_end(program, epoch)``, called after each epoch (from 0).
        recalibrate: ``recalibrate(model, batch)`` calls the model on a batch, for BatchNorm's
            statistics; what it returns is dropped. By default ``loss`` does that.
        data_version: The data set's own digest or version, recorded as the program states it.
        groups: Parts of the model that are components of their own: patterns (``fnmatch``) of
            parameter and buffer names by group, as ``{"teacher": "encoder_k.*"}``; or
            ``"children"``, a group for each child of the model.
        data_from: ``loader``: every branch is delivered the control's samples. ``model``: which
            samples the loader yields depends on the model (hard-example mining, active learning),
            so that a treatment's own course makes other data, and its effect is a total one.
        augment: ``augment(batch, step, generator)`` makes of every batch that the loader delivers
            what the step consumes; it may depend on the step (a schedule), and draws from the
            generator or the global streams, which are seeded for it.
        data_changes: ``change(batch, step, generator)`` by name, for the perturbation
            ``data-change:name=NAME``.
        steps_per_epoch: Without a loader, the steps after which an epoch ends.
        difficulty: How hard a sample is, for ``order-curriculum``: by its index, or a function.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loader: Any
    loss: Loss | None = None
    probe: Probe | None = None
    scheduler: Stateful | None = None
    scheduler_interval: Literal["step", "epoch"] = "step"
    scaler: Stateful | None = None
    averaged: Mapping[str, nn.Module] = field(default_factory=dict)
    extras: Mapping[str, Stateful | Generator | PerSample] = field(default_factory=dict)
    step: Callable[[Program, Batch, int], Tensor | float | None] | None = None
    accumulate: int = 1
    clip_grad_norm: float | None = None
    on_epoch_end: Callable[[Program, int], None] | None = None
    recalibrate: Callable[[nn.Module, Batch], object] | None = None
    data_version: str | None = None
    groups: Groups = field(default_factory=dict)
    data_from: Literal["loader", "model"] = "loader"
    steps_per_epoch: int | None = None
    augment: Callable[[Batch, int, torch.Generator], Batch] | None = None
    data_changes: Mapping[str, Callable[[Batch, int, torch.Generator], Batch]] = field(
        default_factory=dict
    )
    probes: Mapping[str, Probe] = field(default_factory=dict)
    measures: Mapping[str, Measure | Callable[[Program], Any]] = field(default_factory=dict)
    difficulty: Any = None

    def __post_init__(self) -> None:
        check_kinds(self)
        check_data_source(self)
        check_observables(self.probe, self.probes, self.measures)
        object.__setattr__(self, "_measures", measures_by_name(self.measures))
        object.__setattr__(self, "_data_loader", _data_loader(self.loader))
        if self.loss is None and self.step is None:
            raise ProgramError("Program needs loss=, or step= for a step of its own")
        stepped_by_default = self.step is None or self.scheduler_interval == "epoch"
        if isinstance(self.scheduler, ReduceLROnPlateau) and stepped_by_default:
            raise ProgramError(
                "ReduceLROnPlateau must be given a metric",
                hint="step it in a step= of your own, with scheduler_interval='step'",
            )
        object.__setattr__(self, "_patterns", group_patterns(self.model, self.groups))
        self._check_names()

    def _check_names(self) -> None:
        """Refuse a probe of no average, and an optimizer of another model."""
        for probe in self.named_probes.values():
            if probe.of not in (None, *self.averaged):
                raise ProgramError(
                    "Probe.of is no averaged copy of this program",
                    expected=", ".join(sorted(self.averaged)) or "averaged={...}",
                    found=repr(probe.of),
                )
        known = {id(p) for p in self.model.parameters()}
        for extra in (*self.averaged.values(), *self.extras.values()):
            if isinstance(extra, nn.Module):
                known |= {id(p) for p in extra.parameters()}
        optimized = (p for group in self.optimizer.param_groups for p in group["params"])
        if not any(id(p) in known for p in optimized):
            raise ProgramError("the optimizer holds no parameter of the model")

    @property
    def data_loader(self) -> DataLoader[Any]:
        """The loader, or one that passes on the batches of one that is no DataLoader."""
        found: DataLoader[Any] = self.__dict__["_data_loader"]
        return found

    @property
    def named_probes(self) -> dict[str, Probe]:
        """Every probe; one that has no name under an empty one."""
        return probes_by_name(self.probe, self.probes)

    @property
    def named_measures(self) -> dict[str, Measure]:
        """Every measure."""
        found: dict[str, Measure] = self.__dict__["_measures"]
        return found

    @property
    def observed(self) -> Observed:
        """What branches are compared on, as the manifest says it."""
        return observed(self.named_probes, self.named_measures)

    def probed(self, probe: Probe) -> nn.Module:
        """What a probe asks: the model, or an averaged copy of it."""
        return self.model if probe.of is None else self.averaged[probe.of]

    @property
    def objects(self) -> TrainingObjects:
        """The objects that hold training state."""
        return TrainingObjects(
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            scaler=self.scaler,
            averaged=self.averaged,
            extras=self.extras,  # type: ignore[arg-type]  # which takes generators out of it
            groups=self._group_patterns,
        )

    @property
    def _group_patterns(self) -> Patterns:
        found: Patterns = self.__dict__["_patterns"]
        return found

    @property
    def sample_generators(self) -> dict[str, Generator]:
        """Generators that follow the sample, by name."""
        return {
            name: extra.generator
            for name, extra in self.extras.items()
            if isinstance(extra, PerSample)
        }

    def train_on(self, batch: Batch, t: int) -> float | None:
        """Train on batch number ``t`` (from 1).

        Returns:
            The loss; None where a custom step gives none.
        """
        if self.step is not None:
            return as_loss(self.step(self, batch, t), "step")
        if self.loss is not None:
            return as_loss(self._default_step(self.loss, batch, t), "loss")
        raise ProgramError("Program needs loss=, or step= for a step of its own")

    def end_epoch(self, epoch: int) -> None:
        """Do what is due after an epoch (from 0)."""
        if self.scheduler is not None and self.scheduler_interval == "epoch":
            self._step_scheduler()
        if self.on_epoch_end is not None:
            self.on_epoch_end(self, epoch)

    def _default_step(self, loss_of: Loss, batch: Batch, t: int) -> Tensor:
        scaler: Any = self.scaler
        loss = loss_of(self.model, batch)
        require_loss(loss)
        part = loss / self.accumulate if self.accumulate > 1 else loss
        (part if scaler is None else scaler.scale(part)).backward()
        if t % self.accumulate == 0:
            self._update(scaler)
        return loss

    def _update(self, scaler: Any) -> None:
        if self.clip_grad_norm is not None:
            if scaler is not None:
                scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_grad_norm)
        if scaler is not None:
            scaler.step(self.optimizer)
            scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.scheduler is not None and self.scheduler_interval == "step":
            self._step_scheduler()
        for average in self.averaged.values():
            update = getattr(average, "update_parameters", None)
            if update is not None:
                update(self.model)

    def _step_scheduler(self) -> None:
        scheduler: Any = self.scheduler
        scheduler.step()


def _data_loader(loader: object) -> DataLoader[Any]:
    if loader is None:
        return without_batches()
    if not is_loader(loader):
        once = ", which can be iterated once" if isinstance(loader, Iterator) else ""
        raise ProgramError(
            "Program.loader has the wrong type",
            expected=TAKEN,
            found=f"{class_of(loader)}{once}",
        )
    return as_data_loader(loader)


@dataclass(frozen=True)
class LoadedFactory:
    """A factory and where it came from.

    Attributes:
        make: The factory.
        module: The module that defines it.
        name: Its name there.
        plan: The module's ``STUDY``, or None.
    """

    make: Callable[..., Program]
    module: ModuleType
    name: str
    plan: StudyPlan | None

    def build(self, seed: int, arguments: Mapping[str, str]) -> Program:
        """Call the factory.

        Raises:
            UnknownArgument: When it takes other arguments.
            ProgramError: When one is lacking or of another type, or it returns something else.
            DataMissing: When it finds no file where an argument says that data lie.
            ProgramFailed: When it raises anything else.
        """
        parameters = inspect.signature(self.make).parameters
        check_arguments(self.name, parameters, arguments)
        try:
            with noted_opens():
                program = self.make(seed, **typed(self.name, parameters, arguments))
        except AuditError:
            raise
        except Exception as error:
            lacking = lacking_options(parameters, arguments, error)
            kind, hint = kind_of_failure(lacking, arguments, error)
            failure = program_failure(error, f"the factory {self.name}", hint, kind)
            failure.lacking = lacking
            raise failure from error
        if not isinstance(program, Program):
            raise ProgramError(
                f"the factory {self.name} returned no Program",
                expected="auditkit.Program",
                found=class_of(program),
            )
        return program


def program_failure(
    error: Exception, what: str, hint: str | None = None, kind: type[AuditError] = ProgramFailed
) -> AuditError:
    """An error of the user's program, as one line with its place."""
    frames = traceback.extract_tb(error.__traceback__)
    # Where the user's own code stood; the frames below it are a library's.
    user_frames = [frame for frame in frames if not _is_library_file(frame.filename)] or frames
    last = user_frames[-1] if user_frames else None
    place = f"{Path(last.filename).name}:{last.lineno}" if last is not None else None
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{Path(error.filename).name}:{error.lineno}"
    return kind(f"{what} raised {type(error).__name__}: {error}", where=place, hint=hint)


def _is_library_file(filename: str) -> bool:
    """Whether a frame is of a package, of Python, of auditkit, or of generated code.

    Only the text is looked at: a traceback may have thousands of frames.
    """
    in_package = filename.startswith((_PACKAGE, _STANDARD))
    return filename.startswith("<") or in_package or "site-packages" in Path(filename).parts


def load_factory(target: str, folder: Path | None = None) -> LoadedFactory:
    """Load a factory from ``FILE.py``, ``FILE.py:NAME`` or ``package.module:NAME``.

    Args:
        target: Where it is; NAME is ``make_program`` where none is given.
        folder: Where ``FILE.py`` lies; the working folder by default. It is put first on
            ``sys.path``, so that a program can import its neighbours.

    Raises:
        ProgramError: When the file, module or name does not exist.
        ProgramFailed: When importing it raises.
    """
    source, _, name = target.partition(":")
    name = name or "make_program"
    try:
        with noted_opens():
            from_file = source.endswith(".py")
            module = (import_file if from_file else import_module)(source, folder)
    except AuditError:
        raise
    except Exception as error:
        raise program_failure(error, f"importing {source}") from error
    make = getattr(module, name, None)
    if not callable(make):
        raise ProgramError(f"{source} has no function {name!r}", hint="name one: FILE.py:FACTORY")
    plan = getattr(module, "STUDY", None)
    if plan is not None and not isinstance(plan, StudyPlan):
        raise ProgramError("STUDY must be an auditkit.StudyPlan", found=type(plan).__name__)
    adopt(list(vars(module).values()), plan, registry)
    return LoadedFactory(make, module, name, plan)
