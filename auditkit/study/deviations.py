"""Where a study deviates from its plan, in lines that name exactly what does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from auditkit.formats.group_values import GROUPS, hyper_parameters
from auditkit.formats.quote import clipped, clipped_apart
from auditkit.records.manifest import CodeFile, ProgramRecord
from auditkit.records.plan import PerturbationSpec, StudyPlan
from auditkit.records.plan_values import spelled_seeds
from auditkit.records.registration import DataIdentity


def plan_deviations(planned: StudyPlan, found: StudyPlan) -> Iterator[str]:
    """What differs between two plans, one line each."""
    for item in fields(StudyPlan):
        here, there = getattr(planned, item.name), getattr(found, item.name)
        if here == there:
            continue
        if item.name == "seeds":
            yield from _list_deviations("plan, seeds", here, there, spelled_seeds)
        elif item.name == "perturbations":
            yield from _list_deviations("plan, perturbations", here, there, _typed)
        elif item.name == "own_perturbations":
            yield from _list_deviations("plan, the program's own perturbations", here, there, repr)
        elif item.name == "causal_break":
            here, there = (side.typed if side else "none" for side in (here, there))
            yield f"plan, causal_break: {here} was planned, {there} was run"
        elif item.name == "segments":
            here, there = (side.told if side else "nothing" for side in (here, there))
            yield f"plan, segments: {here} was planned, {there} was run"
        elif item.name == "margins":
            here, there = ({k: str(v) for k, v in side.items()} for side in (here, there))
            yield from _mapping_deviations("plan, margins", here, there)
        else:
            yield f"plan, {item.name}: {here} was planned, {there} was run"


def program_deviations(
    planned: ProgramRecord,
    *,
    arguments: Mapping[str, str],
    description: Mapping[str, str],
    code: tuple[CodeFile, ...],
) -> Iterator[str]:
    """What differs between the planned program and another, one line each."""
    planned_files = {file.name: file.sha256 for file in planned.code}
    files = {file.name: file.sha256 for file in code}
    for name in sorted(planned_files.keys() | files.keys()):
        if name not in planned_files:
            yield f"code/{name}: is no part of the plan (it may be imported late)"
        elif name not in files:
            yield f"code/{name}: was planned and is not there"
        elif planned_files[name] != files[name]:
            yield f"code/{name}: is another file than was planned"
    yield from argument_deviations(planned, arguments)
    yield from _description_deviations(planned.description, description)


def argument_deviations(planned: ProgramRecord, arguments: Mapping[str, str]) -> Iterator[str]:
    """Arguments of the factory that are not the planned ones."""
    yield from _mapping_deviations("argument", planned.arguments, arguments)


def data_deviations(planned: DataIdentity, found: DataIdentity) -> Iterator[str]:
    """What differs between the planned data and others, one line each."""
    for name, text in (
        ("dataset_sha256", "the dataset"),
        ("probe_sha256", "the probe"),
        ("declared", "the declared version"),
    ):
        if getattr(planned, name) != getattr(found, name):
            yield f"data: {text} is another than was planned"
    yield from _mapping_deviations("data", planned.loader, found.loader)


def initial_deviations(
    planned: Mapping[str, str], found: Mapping[str, str], *, streams: bool = True
) -> Iterator[str]:
    """Components that are not as built when the plan was made.

    Args:
        planned: SHA-256 by component.
        found: The same, of another moment before step 1.
        streams: Whether random streams are compared: a loader may draw before its first batch.
    """
    for name in sorted(planned.keys() | found.keys()):
        if planned.get(name) != found.get(name) and (streams or not name.startswith("rng/")):
            yield f"initial state, {name}: is another than was planned"


def _description_deviations(planned: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    here, there = hyper_parameters(planned), hyper_parameters(found)
    for full in sorted(here.keys() | there.keys()):
        if here.get(full) != there.get(full):
            place, _, name = full.partition("].")
            group = "" if place == f"{GROUPS}[0" else f" ({place}])"
            change = f"{here.get(full, 'absent')} -> {there.get(full, 'absent')}"
            yield f"program, hyper-parameters: {name} {change}{group}"
    if here != there:
        planned, found = (
            {k: v for k, v in each.items() if k != "hyper-parameters"} for each in (planned, found)
        )
    yield from _mapping_deviations("program", planned, found)


def _list_deviations(
    what: str, planned: Sequence[Any], found: Sequence[Any], spell: Callable[[Sequence[Any]], str]
) -> Iterator[str]:
    """What of two lists, which differ, is in one of them only."""
    left_out = [item for item in planned if item not in found]
    added = [item for item in found if item not in planned]
    if left_out:
        yield f"{what} planned and not run: {clipped(spell(left_out))}"
    if added:
        yield f"{what} run and not planned: {clipped(spell(added))}"
    if not left_out and not added:
        yield f"{what}: {_differing(spell(planned), spell(found))}, which is another order"


def _typed(perturbations: Sequence[PerturbationSpec]) -> str:
    return "; ".join(spec.typed for spec in perturbations)


def _mapping_deviations(
    what: str, planned: Mapping[str, str], found: Mapping[str, str]
) -> Iterator[str]:
    for name in sorted(planned.keys() | found.keys()):
        here, there = planned.get(name, "nothing"), found.get(name, "nothing")
        if here != there:
            yield f"{what}, {name}: {_differing(here, there)}"


def _differing(planned: str, found: str) -> str:
    here, there = clipped_apart(planned, found)
    return f"{here} was planned, {there} was run"
