"""A parameter of a perturbation: its default, and the values that it takes."""

from __future__ import annotations

import re
from dataclasses import dataclass

ParameterValue = str | int

#: One spelling a number, since each is a branch of its own.
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,8})(\.[0-9]{0,8}[1-9])?", re.ASCII)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a perturbation.

    Attributes:
        default: Its value where a plan names none.
        choices: Allowed strings; empty for whole numbers.
        minimum: Least allowed whole number.
        text: Whether any string is allowed.
        optional: Whether its default is implied: a perturbation with it has the name and the
            branch that it had before there was the parameter.
        decimal: Whether decimal numbers of 0 and more are allowed, each in one spelling: ``0.5``.
    """

    default: ParameterValue
    choices: tuple[str, ...] = ()
    minimum: int = 0
    text: bool = False
    optional: bool = False
    decimal: bool = False

    def accepts(self, value: ParameterValue) -> bool:
        """Whether ``value`` may be given."""
        if self.text:
            return isinstance(value, str)
        if self.decimal:
            return not isinstance(value, bool) and bool(_DECIMAL.fullmatch(str(value)))
        if self.choices:
            return value in self.choices
        return isinstance(value, int) and not isinstance(value, bool) and value >= self.minimum

    def implies(self, value: ParameterValue) -> bool:
        """Whether a value goes without saying."""
        return self.optional and value == self.default

    @property
    def allowed(self) -> str:
        """The allowed values, for messages."""
        if self.text:
            return "a name"
        if self.decimal:
            return "a number of 0 or more, as 2 or 0.5"
        return " or ".join(self.choices) or f"a whole number of at least {self.minimum}"
