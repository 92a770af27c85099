"""Whether what somebody calls a scheduler, a scaler, averages or extras can be that.

A study's program and a recorder's loop are given the same objects; each raises an error of its own
for what is found here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from auditkit.formats.quote import class_of
from auditkit.observe.state.components import Stateful
from auditkit.records.plan_values import shown

#: Most characters of the name of an average or extra, which becomes part of a component's.
_MOST = 200

_STATEFUL = "an object with state_dict and load_state_dict"


@dataclass(frozen=True)
class WrongObject:
    """What is not of its kind.

    Attributes:
        name: What it was given as: ``scheduler``, ``averaged['ema']``, a name in ``extras``.
        expected: What would be.
        found: What it is.
    """

    name: str
    expected: str
    found: str


def wrong_object(
    *, scheduler: object, scaler: object, averaged: Any, extras: Any
) -> WrongObject | None:
    """The first that is not of its kind; None where all are.

    Args:
        scheduler: None, or with its state.
        scaler: None, or with its state.
        averaged: Modules by name.
        extras: Objects by name; of what kind each is, is seen where their state is captured.
    """
    for kind, value in (("scheduler", scheduler), ("scaler", scaler)):
        if value is not None and (isinstance(value, type) or not isinstance(value, Stateful)):
            return WrongObject(kind, _STATEFUL, _told(value))
    for kind, given in (("averaged", averaged), ("extras", extras)):
        # A ModuleDict holds modules by name and calls itself no mapping.
        if not isinstance(given, (Mapping, nn.ModuleDict)):
            return WrongObject(kind, f"a dict, as {kind}={{'name': object}}", class_of(given))
        for name, value in given.items():
            if not _is_name(name):
                expected = f"texts of 1 to {_MOST} characters"
                return WrongObject(f"a name in {kind}", expected, shown(name))
            if kind == "averaged" and not isinstance(value, nn.Module):
                return WrongObject(f"averaged[{name!r}]", "torch.nn.Module", _told(value))
            if isinstance(value, type):
                return WrongObject(f"extras[{name!r}]", "an object of it", _told(value))
    return None


def _is_name(name: object) -> bool:
    if not isinstance(name, str) or not 1 <= len(name) <= _MOST:
        return False
    try:
        name.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True


def _told(value: object) -> str:
    return f"the class {value.__qualname__}" if isinstance(value, type) else class_of(value)
