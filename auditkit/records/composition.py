"""Perturbations that are applied one after the other, ``a+b``, as one name with all parameters.

The parameter ``moments`` of ``adam-reset`` in ``adam-reset+batchnorm-reset`` is
``adam-reset.moments``. The versions of the parts are the digits of one number in base 1000.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from auditkit.errors import PlanError
from auditkit.records.parameter import ParameterValue

SIGN = "+"

#: Most parts: their versions make a whole number that JSON holds exactly.
_MOST = 4
_BASE = 1000

#: The sign before another name, and not inside the value of a parameter, as far as can be told.
_BEFORE_NAME = re.compile(r"\+(?=[a-z][a-z0-9-]*(?:[:+]|--|$))")

Part = tuple[str, dict[str, ParameterValue]]


def texts(text: str) -> list[str]:
    """The parts of a perturbation as it is typed, or of a branch's name."""
    return _BEFORE_NAME.split(text)


def joined(parts: Sequence[Part]) -> Part:
    """Name and parameters of a composition.

    Raises:
        PlanError: When one perturbation stands in it twice, or there are too many.
    """
    names = [name for name, _ in parts]
    if len(set(names)) != len(names):
        raise PlanError(f"{SIGN.join(names)}: a perturbation is composed with itself")
    if len(names) > _MOST:
        raise PlanError(f"{SIGN.join(names)}: at most {_MOST} perturbations are composed")
    values = {f"{name}.{key}": value for name, given in parts for key, value in given.items()}
    return SIGN.join(names), values


def parts(name: str, parameters: Mapping[str, ParameterValue]) -> list[Part]:
    """Inverse of :func:`joined`; of what is no composition, itself."""
    names = name.split(SIGN)
    if len(names) == 1:
        return [(name, dict(parameters))]
    return [(one, of_part(one, parameters)) for one in names]


def of_part(name: str, parameters: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
    """The parameters of one part."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): value
        for key, value in parameters.items()
        if key.startswith(prefix)
    }


def joined_version(versions: Sequence[int]) -> int:
    """The version of a composition: 2 and 1 are 2001."""
    number = 0
    for version in versions:
        number = number * _BASE + version
    return number


def versions_of(version: int, n_parts: int) -> list[int]:
    """Inverse of :func:`joined_version`."""
    found = []
    for _ in range(n_parts):
        version, last = divmod(version, _BASE)
        found.append(last)
    return found[::-1]
