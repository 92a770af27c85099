"""Find perturbations by name: auditkit's own, and those of installed plug-ins."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from auditkit.errors import StoreError, UnknownPerturbation
from auditkit.files import store
from auditkit.perturbations.averages import AverageReset, AverageRestart
from auditkit.perturbations.base import Perturbation
from auditkit.perturbations.batchnorm import BatchNormRecalibrate, BatchNormReset
from auditkit.perturbations.composed import Composed
from auditkit.perturbations.data import (
    AugmentationOff,
    DataChange,
    DataPerturbation,
    LabelNoise,
    StageShift,
)
from auditkit.perturbations.optimizer_resets import (
    AdamReset,
    MomentumReset,
    OptimizerReset,
    SecondMomentReset,
)
from auditkit.perturbations.order import (
    Carry,
    OrderCurriculum,
    OrderReverse,
    OrderShuffle,
    OrderSwap,
    OrderWithReplacement,
)
from auditkit.perturbations.own import adopted
from auditkit.perturbations.queues import QueueClear, QueueShuffle, QueueStale
from auditkit.perturbations.scales import MomentumScale, SecondMomentScale
from auditkit.perturbations.schedules import RngReseed, SchedulerReset
from auditkit.perturbations.teachers import TeacherReset
from auditkit.perturbations.ulp import Ulp
from auditkit.perturbations.version_1 import AdamReset1, OptimizerReset1
from auditkit.records.composition import SIGN, versions_of
from auditkit.records.declaration import (
    DECLARATIONS,
    PLUGINS,
    Declaration,
    unknown_perturbation,
)
from auditkit.records.plug_in import PlugIn

_OWN: tuple[type[Perturbation], ...] = (
    Carry,
    Ulp,
    MomentumReset,
    AdamReset,
    SecondMomentReset,
    OptimizerReset,
    BatchNormReset,
    BatchNormRecalibrate,
    MomentumScale,
    SecondMomentScale,
    AverageReset,
    AverageRestart,
    TeacherReset,
    QueueClear,
    QueueShuffle,
    QueueStale,
    SchedulerReset,
    RngReseed,
    OrderReverse,
    OrderShuffle,
    OrderSwap,
    OrderWithReplacement,
    OrderCurriculum,
    LabelNoise,
    AugmentationOff,
    StageShift,
    DataChange,
)

#: What recorded studies of earlier builds replay with.
_EARLIER: tuple[type[Perturbation], ...] = (AdamReset1, OptimizerReset1)


@cache
def registry() -> Mapping[str, Perturbation]:
    """Every known perturbation by name.

    Raises:
        UnknownPerturbation: When a plug-in is no perturbation or takes a name that is taken.
    """
    found = {kind.declaration.name: kind() for kind in _OWN}
    for entry in importlib.metadata.entry_points(group=PLUGINS):
        plug_in = _plug_in(entry)
        name = plug_in.declaration.name
        if name in found or name in DECLARATIONS:
            raise UnknownPerturbation(f"plug-in {entry.name} takes the name {name!r} again")
        if plug_in.declaration.kind == "order":
            raise UnknownPerturbation(
                f"plug-in {entry.name} is of kind order, which only auditkit's own may be",
                hint="a plug-in changes the state at t0 (kind state), or nothing",
            )
        if (plug_in.declaration.kind == "data") != isinstance(plug_in, DataPerturbation):
            raise UnknownPerturbation(
                f"plug-in {entry.name} is of kind {plug_in.declaration.kind}",
                hint="kind data, and no other, is a subclass of DataPerturbation",
            )
        found[name] = plug_in
    return found


def look_up_plug_ins() -> None:
    """Know from here on that there is none, also in forks; any that there is, each loads itself."""
    if not importlib.metadata.entry_points(group=PLUGINS):
        registry()


def installed_plug_ins() -> Iterator[PlugIn]:
    """Where the code of each installed plug-in lies, and what it is."""
    for entry in importlib.metadata.entry_points(group=PLUGINS):
        plug_in = _plug_in(entry)
        distribution, kind = getattr(entry, "dist", None), type(plug_in)
        try:
            source = inspect.getsourcefile(kind)
            data = None if source is None else store.read_bytes(Path(source), what="source")
        except (TypeError, OSError, StoreError):  # made in memory
            data = None
        yield PlugIn(
            name=plug_in.declaration.name,
            distribution="" if distribution is None else distribution.name,
            version="" if distribution is None else distribution.version,
            module=kind.__module__,
            sha256=None if data is None else hashlib.sha256(data).hexdigest(),
        )


def _plug_in(entry: importlib.metadata.EntryPoint) -> Perturbation:
    try:
        kind = entry.load()
        if isinstance(kind, type) and issubclass(kind, Perturbation):
            plug_in = kind()
            if isinstance(plug_in.declaration, Declaration):
                return plug_in
    except Exception as error:  # whatever somebody else's module raises is reported as ours
        raise UnknownPerturbation(
            f"plug-in {entry.name} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    raise UnknownPerturbation(f"plug-in {entry.name} is no Perturbation with a declaration")


def perturbation_of(name: str, version: int | None = None) -> Perturbation:
    """Look up a perturbation.

    Args:
        name: Its name.
        version: Of it; None for the current one.

    Raises:
        UnknownPerturbation: When there is none of that name and version.
    """
    names = name.split(SIGN)
    if len(names) > 1:
        versions = [None] * len(names) if version is None else versions_of(version, len(names))
        return Composed([perturbation_of(*pair) for pair in zip(names, versions, strict=True)])
    found = {**adopted(), **registry()}
    if name not in found:
        raise unknown_perturbation(name, found)
    current = found[name]
    if version in (None, current.declaration.version):
        return current
    for kind in _EARLIER:
        if (kind.declaration.name, kind.declaration.version) == (name, version):
            return kind()
    raise UnknownPerturbation(
        f"no version {version} of the perturbation {name} is known here",
        expected=current.declaration.version,
    )
