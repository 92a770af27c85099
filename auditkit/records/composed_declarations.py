"""What a composition of perturbations is: the union of what its parts declare."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from auditkit.errors import UnknownPerturbation
from auditkit.records.composition import SIGN, joined_version, of_part
from auditkit.records.declaration import Declaration, declaration_of
from auditkit.records.parameter import ParameterValue

Patterns = Callable[[Mapping[str, ParameterValue]], tuple[str, ...]]

#: Kinds that can be applied one after the other, at t0.
_AT_FORK = ("none", "state")


def composed(name: str, declarations: Mapping[str, Declaration]) -> Declaration:
    """The declaration of a composition, earlier versions of its parts included.

    Raises:
        UnknownPerturbation: When a part is unknown, or of a kind that does not compose.
    """
    parts = [declaration_of(part, declarations) for part in name.split(SIGN)]
    for part in parts:
        if part.kind not in _AT_FORK:
            raise UnknownPerturbation(
                f"{name}: {part.name} is of kind {part.kind}, which does not compose",
                expected="perturbations that change the state at t0",
                hint="give them as two perturbations",
            )
    every = itertools.product(*((part, *part.earlier) for part in parts))
    current, *earlier = map(compose, every)
    return compose(parts, tuple(earlier)) if earlier else current


def compose(parts: Sequence[Declaration], earlier: tuple[Declaration, ...] = ()) -> Declaration:
    """The declaration of given versions of the parts."""
    names = [part.name for part in parts]
    return Declaration(
        SIGN.join(names),
        joined_version([part.version for part in parts]),
        "state" if any(part.kind == "state" for part in parts) else "none",
        f"{', then '.join(names)}",
        "; ".join(dict.fromkeys(part.source for part in parts)),
        {f"{part.name}.{key}": one for part in parts for key, one in part.parameters.items()},
        touched=_union([(part.name, part.touched) for part in parts]),
        allowed=_union([(part.name, part.allowed) for part in parts]),
        earlier=earlier,
        cleared=_union([(part.name, part.cleared) for part in parts]),
        needs="; ".join(part.needs for part in parts if part.needs),
    )


def _union(of_parts: Sequence[tuple[str, Patterns]]) -> Patterns:
    def patterns(parameters: Mapping[str, ParameterValue]) -> tuple[str, ...]:
        found = (each(of_part(name, parameters)) for name, each in of_parts)
        return tuple(dict.fromkeys(itertools.chain.from_iterable(found)))

    return patterns
