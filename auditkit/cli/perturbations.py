"""``auditkit perturbations``: every perturbation that a plan can name here.

``--json`` prints one object, ``perturbations``: a list of :class:`Known`, plug-ins included.
"""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import click
from rich.console import Console

from auditkit.cli.columns import fold
from auditkit.cli.console import console, print_words
from auditkit.cli.help import Command
from auditkit.formats import canonical, structure
from auditkit.records.declaration import DECLARATIONS, PLUGINS, Declaration
from auditkit.records.parameter import Parameter
from auditkit.records.plan import ParameterValue, PerturbationSpec

_INDENT = "    "


@dataclass(frozen=True)
class KnownParameter:
    """A parameter of a perturbation.

    Attributes:
        name: Its name.
        default: Its value where a plan gives none.
        allowed: The values that it takes, for people.
        choices: The values, where they can be listed.
    """

    name: str
    default: ParameterValue
    allowed: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Known:
    """A perturbation that is known here.

    Attributes:
        name: Its name.
        version: The version that a study of today has.
        kind: ``none``, ``state`` or ``order``.
        summary: What it does.
        needs: What a program must have for it; empty where its author did not say.
        touches: Components that it changes with any of its parameters, or may change.
        parameters: Its parameters.
        source: Where it is described.
        is_plugin: Whether it is somebody else's.
    """

    name: str
    version: int
    kind: str
    summary: str
    needs: str
    touches: tuple[str, ...]
    parameters: tuple[KnownParameter, ...]
    source: str
    is_plugin: bool


@click.command(cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def perturbations(as_json: bool) -> None:
    """List every perturbation: what it does, its parameters, what it changes and needs.

    Installed plug-ins are listed, too. A plan, or `auditkit run --perturb`, names one as NAME or
    NAME:key=value,key=value.
    """
    known = [known_of(declaration) for declaration in _declarations().values()]
    if as_json:
        listed = [structure.to_dict(each) for each in known]
        click.echo(canonical.dumps({"perturbations": listed}).decode("ascii"))
        return
    out = console()
    for each in known:
        _print(out, each)
    print_words(out, ("perturbation", "component", "plug-in"))


def known_of(declaration: Declaration) -> Known:
    """What there is to say of a perturbation."""
    return Known(
        name=declaration.name,
        version=declaration.version,
        kind=declaration.kind,
        summary=declaration.summary,
        needs=declaration.needs,
        touches=_touches(declaration),
        parameters=tuple(
            KnownParameter(name, parameter.default, parameter.allowed, parameter.choices)
            for name, parameter in declaration.parameters.items()
        ),
        source=declaration.source,
        is_plugin=declaration.name not in DECLARATIONS,
    )


def _declarations() -> Mapping[str, Declaration]:
    """Auditkit's own, which need no torch, and those of plug-ins, where there are any."""
    if not importlib.metadata.entry_points(group=PLUGINS):
        return DECLARATIONS
    from auditkit.perturbations.registry import registry  # noqa: PLC0415 # loads torch

    return {name: found.declaration for name, found in registry().items()}


def _touches(declaration: Declaration) -> tuple[str, ...]:
    """Components that it may change, with any choice of its parameters."""
    names = list(declaration.parameters)
    values = [_values(declaration.parameters[name]) for name in names]
    found = {
        component: None
        for chosen in itertools.product(*values)
        for component in declaration.may_touch(
            PerturbationSpec(declaration.name, dict(zip(names, chosen, strict=True)))
        )
    }
    return tuple(found)


def _values(parameter: Parameter) -> tuple[ParameterValue, ...]:
    return parameter.choices or (parameter.default,)


def _print(out: Console, known: Known) -> None:
    name = known.name if not known.is_plugin else f"{known.name} (plug-in)"
    out.print(f"{name}: {known.summary}")
    for line in _lines(known):
        for part in fold(line, out.width - len(_INDENT)):
            out.print(_INDENT + part)
    out.print()


def _lines(known: Known) -> Iterator[str]:
    for parameter in known.parameters:
        allowed = "|".join(parameter.choices) or parameter.allowed
        yield f"{parameter.name}={allowed}, {parameter.default} by default"
    order = "the order inside the window" if known.kind == "order" else "nothing"
    yield f"changes: {', '.join(known.touches) or order}"
    yield f"needs: {known.needs or 'not said by its author'}"
