"""Designs: fields of a plan, and arguments of the factory, that belong together under one name.

The regimes are the rows of Table 1 of arXiv 2601.16563. What a plan cannot hold (learning rate,
augmentations, which indices are drawn) is given to the factory by name; what it makes of it is the
program's own affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from auditkit.cli.options import decimal_number, parse_arguments
from auditkit.errors import UsageError
from auditkit.formats.quote import brief
from auditkit.records.causal_break import VACUOUS
from auditkit.records.segments import SegmentPlan

BACK_FLOW = "back-flow"

#: What ``--segments`` and ``--causal-break`` are where the program's plan has one, and this none.
NONE = "none"

#: What a design sets in place of a program's own plan, as the manual calls it.
_SET = {"window": "W", "horizon": "T", "perturbations": "the treatment", "segments": "the segments"}

_FLAGS = ("same_classes", "hold_batchnorm", "alignment")

#: Among the fields of a plan that options give: what is none of them.
DESIGN = "design"


@dataclass(frozen=True)
class Regime:
    """A row of the table.

    Attributes:
        steps: k, the steps of a history, and of the second segment.
        lr: Learning rate of these steps.
        momentum: Of SGD.
        history: Augmentation of history A.
        other: Of history A'.
        segment: Of the second segment B.
        overlap: Share of the indices of A that B has, too.
        same_classes: Whether both have the same classes.
    """

    steps: int
    lr: str
    momentum: str
    history: str
    other: str
    segment: str
    overlap: str
    same_classes: str

    @property
    def treatment(self) -> str:
        """The perturbation that makes A' of A; A and A' are one in the negative control."""
        return "carry" if self.other == self.history else f"data-change:name={self.other}"

    @property
    def arguments(self) -> dict[str, str]:
        """What the factory is given."""
        names = ("steps", "lr", "momentum", "history", "segment", "overlap", "same_classes")
        return {name: str(getattr(self, name)) for name in names}

    @property
    def segments(self) -> SegmentPlan:
        """What the plan says of A and B; the paper holds BatchNorm's statistics in both."""
        same = self.same_classes == "yes"
        return SegmentPlan(
            float(self.overlap), same_classes=same, hold_batchnorm=True, alignment=True
        )


REGIMES: Mapping[str, Regime] = MappingProxyType(
    {
        "standard": Regime(3, "0.02", "0.9", "weak", "color", "weak", "0.5", "yes"),
        "resonant-strong": Regime(6, "0.03", "0.99", "color", "blur", "weak", "1.0", "yes"),
        "resonant-mid": Regime(6, "0.03", "0.95", "color", "blur", "weak", "0.75", "yes"),
        "orthogonal": Regime(6, "0.03", "0.99", "color", "blur", "blur", "0", "no"),
        "negative": Regime(1, "0.005", "0", "none", "none", "none", "0", "no"),
    }
)


@dataclass(frozen=True)
class Design:
    """A design that was asked for.

    Attributes:
        regime: The regime, or None for the design alone.
    """

    regime: Regime | None = None

    @property
    def arguments(self) -> dict[str, str]:
        """What the factory is given, unless an ``--arg`` says otherwise."""
        return {} if self.regime is None else self.regime.arguments

    def filled(self, base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a plan.

        Args:
            base: Those of the program's own plan.
            given: Those that options give, which come before everything else.
        """
        values = {**base, "causal_break": base.get("causal_break") or VACUOUS}
        if self.regime is not None:
            values |= {"window": self.regime.steps, "perturbations": (self.regime.treatment,)}
            values |= {"segments": self.regime.segments}
        values |= given
        fork, window = values.get("fork_at"), values.get("window")
        if "horizon" not in given and isinstance(fork, int) and isinstance(window, int):
            values["horizon"] = fork + 2 * window
        return values


def replaced(base: Mapping[str, Any], values: Mapping[str, Any], given: Iterable[str]) -> str:
    """What a design sets in place of a program's own plan, in a line; "" where it is nothing.

    Args:
        base: The fields of that plan.
        values: Those with the design.
        given: The fields that options give, which are not the design's affair.
    """
    fields = [name for name in _SET if name not in given and base.get(name) is not None]
    told = [(name, _told(values[name]), _told(base[name])) for name in fields]
    return ", ".join(
        f"{_SET[name]} to {now} in place of the plan's {before}"
        for name, now, before in told
        if now != before
    )


def _told(value: Any) -> str:
    if isinstance(value, SegmentPlan):
        return f"({value.told})"
    if isinstance(value, tuple):
        return ", ".join(str(getattr(one, "typed", one)) for one in value)
    return str(value)


def factory_arguments(given: Mapping[str, Any], items: Iterable[str]) -> dict[str, str]:
    """What the factory is given by ``--arg``, and besides by a design.

    Raises:
        UsageError: On an item that is no argument.
    """
    design: Design = given.get(DESIGN, Design())
    return {**design.arguments, **parse_arguments(items)}


def refuse_design(given: Mapping[str, Any], with_what: str) -> None:
    """Refuse a design where the plan is not made here.

    Raises:
        UsageError: When one was given.
    """
    if DESIGN in given:
        raise UsageError(f"--design and {with_what} exclude each other")


def parse_segments(text: str) -> SegmentPlan | None:
    """Read ``overlap=0.75,same-classes,hold-batchnorm,alignment``, or ``none``.

    Raises:
        UsageError: On a word that is none of these, or that comes twice.
    """
    if text == NONE:
        return None
    values: dict[str, Any] = {}
    for word in text.split(","):
        name, equals, number = word.strip().partition("=")
        field, value = name.replace("-", "_"), decimal_number(number)
        if field in _FLAGS and not equals and field not in values:
            values[field] = True
        elif name == "overlap" and value is not None and field not in values:
            values[field] = value
        else:
            raise UsageError(
                f"--segments {brief(text)}: {brief(word)} says nothing",
                expected="overlap=NUMBER, same-classes, hold-batchnorm, alignment, each once; none",
            )
    return SegmentPlan(**values)


def parse_design(text: str) -> Design:
    """Read ``back-flow`` or ``back-flow:REGIME``.

    Raises:
        UsageError: On a design or a regime that there is not.
    """
    name, colon, regime = text.partition(":")
    if name != BACK_FLOW:
        raise UsageError(f"--design {brief(text)}: there is no such design", expected=BACK_FLOW)
    if not colon:
        return Design()
    if regime not in REGIMES:
        raise UsageError(
            f"--design {brief(text)}: there is no such regime", expected=", ".join(REGIMES)
        )
    return Design(REGIMES[regime])
