"""What ``--arg`` gives is text; a factory that says it takes a number or a bool is given one.

The text is what is recorded, and a replay makes the same of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from auditkit.errors import ProgramError
from auditkit.formats.quote import brief

_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

#: What makes a value of a text, raising where it is none, and how such texts look.
_MADE: Mapping[type, tuple[Callable[[str], object], str]] = MappingProxyType(
    {
        int: (int, "a whole number"),
        float: (float, "a number"),
        bool: (lambda text: _BOOLS[text.lower()], "true or false"),
    }
)


def typed(
    factory: str, parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments as a factory declares them: by annotation, and without one by default.

    Args:
        factory: Its name.
        parameters: What it takes.
        arguments: What it would be given. What is declared as something else stays text.

    Raises:
        ProgramError: When a text is none of what is declared.
    """
    return {
        name: _value(factory, name, _declared(parameters.get(name)), value)
        for name, value in arguments.items()
    }


def _declared(parameter: inspect.Parameter | None) -> type | None:
    """The type of a parameter, where it is one that text can be made into."""
    if parameter is None:
        return None
    declared = parameter.annotation
    if declared is inspect.Parameter.empty:
        declared = type(parameter.default)
    return next((kind for kind in _MADE if declared in (kind, kind.__name__)), None)


def _value(factory: str, name: str, kind: type | None, value: Any) -> Any:
    if kind is None or not isinstance(value, str):
        return value
    make, expected = _MADE[kind]
    try:
        return make(value)
    except (ValueError, KeyError):
        raise ProgramError(
            f"--arg {name}={brief(value)}: the factory {factory} takes {kind.__name__}",
            expected=expected,
            found=brief(value),
            hint=f"annotate it as {name}: str to be given the text",
        ) from None
