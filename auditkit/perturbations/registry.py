"""Find perturbations by name: auditkit's own, and those of installed plug-ins."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from functools import cache

from auditkit.errors import UnknownPerturbation
from auditkit.perturbations.base import Perturbation
from auditkit.perturbations.batchnorm import BatchNormReset
from auditkit.perturbations.optimizer_resets import (
    AdamReset,
    MomentumReset,
    OptimizerReset,
    SecondMomentReset,
)
from auditkit.perturbations.order import (
    Carry,
    OrderReverse,
    OrderShuffle,
    OrderSwap,
    OrderWithReplacement,
)
from auditkit.perturbations.own import adopted
from auditkit.perturbations.ulp import Ulp
from auditkit.perturbations.version_1 import AdamReset1, OptimizerReset1
from auditkit.records.declaration import DECLARATIONS, PLUGINS, Declaration

_OWN: tuple[type[Perturbation], ...] = (
    Carry,
    Ulp,
    MomentumReset,
    AdamReset,
    SecondMomentReset,
    OptimizerReset,
    BatchNormReset,
    OrderReverse,
    OrderShuffle,
    OrderSwap,
    OrderWithReplacement,
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
        found[name] = plug_in
    return found


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
    found = {**adopted(), **registry()}
    if name not in found:
        raise UnknownPerturbation(
            f"unknown perturbation {name!r}", expected=", ".join(sorted(found))
        )
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
