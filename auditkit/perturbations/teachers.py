"""A teacher set back: to its student's weights, or to what it was when newly built (source S5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from auditkit.errors import NothingToPerturb
from auditkit.observe.state.components import TrainingObjects
from auditkit.observe.state.named_groups import group_tensors
from auditkit.perturbations.base import Material, Perturbation
from auditkit.perturbations.copying import copy_weights, inner, tensors_of
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import ParameterValue

Tensors = Mapping[str, Tensor]


class TeacherReset(Perturbation):
    """A group, an averaged copy or a module among the extras := student, or as newly built."""

    declaration = DECLARATIONS["teacher-reset"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """As below, with nothing to build anew."""
        self.apply_with(objects, parameters, seed, Material())

    def apply_with(
        self,
        objects: TrainingObjects,
        parameters: Mapping[str, ParameterValue],
        seed: int,
        material: Material,
    ) -> None:
        """Copy the weights over."""
        name = str(parameters["name"])
        find = _finder(objects, name)
        target, component = find(objects), _component(objects, name)
        if parameters.get("to") == "built":
            source = find(material.rebuilt("teacher-reset:to=built"))
            copy_weights(target, source, component, "what it was built with")
            return
        path = str(parameters.get("student", ""))
        found = _student(objects, target, path, component)
        copy_weights(target, found, component, "its student's weights already")


def _finder(objects: TrainingObjects, name: str) -> Callable[[TrainingObjects], Tensors]:
    """How the teacher of that name is found among a program's objects."""
    found: list[Callable[[TrainingObjects], Tensors]] = []
    if name in objects.averaged:
        found.append(lambda of: tensors_of(of.averaged[name]))
    if isinstance(objects.extras.get(name), nn.Module):
        found.append(lambda of: tensors_of(of.extras[name]))  # type: ignore[arg-type]
    if name in objects.groups:
        found.append(lambda of: group_tensors(of.model, of.groups, name))
    if len(found) == 1:
        return found[0]
    modules = [key for key, extra in objects.extras.items() if isinstance(extra, nn.Module)]
    known = ", ".join(sorted({*objects.averaged, *modules, *objects.groups})) or "none"
    many = "several teachers are" if found else "no teacher is"
    raise NothingToPerturb(
        f"{many} called {name!r}",
        component=f"extras/{name}",
        hint=f"groups, averages and modules among extras: {known}; name the part of the model "
        "that it is: Program(groups={'teacher': 'teacher.*'})",
    )


def _component(objects: TrainingObjects, name: str) -> str:
    if name in objects.averaged:
        return f"averaged/{name}"
    return f"params/{name}" if name in objects.groups else f"extras/{name}"


def _student(objects: TrainingObjects, teacher: Tensors, path: str, component: str) -> Tensors:
    """The part of the model that has the teacher's weights by name and shape.

    Returns:
        Its tensors by the teacher's names.
    """
    modules = dict(objects.model.named_modules())
    if path and path not in modules:
        raise NothingToPerturb(
            f"the model has no part {path!r}",
            component=component,
            hint=f"parts: {', '.join(list(modules)[1:13])}",
        )
    chosen = {path: modules[path]} if path else modules
    own = {id(tensor) for tensor in teacher.values()}
    found: dict[tuple[int, ...], tuple[str, Tensors]] = {}  # a part may be the whole
    for prefix in dict.fromkeys((_common_prefix(teacher), "module.", "")):
        names = {name: name.removeprefix(prefix) for name in teacher}
        for place, module in chosen.items():
            tensors = tensors_of(inner(module))
            if not own.isdisjoint(map(id, tensors.values())):
                continue
            matched = _matched(teacher, names, tensors, dict(inner(module).named_parameters()))
            if matched is not None:
                found.setdefault(tuple(map(id, matched.values())), (place, matched))
    if len(found) == 1:
        return next(iter(found.values()))[1]
    places = ", ".join(place or "the whole model" for place, _ in found.values()) or "none"
    raise NothingToPerturb(
        f"{component}: which part of the model is its student? With its names and shapes: {places}",
        component=component,
        hint="say which: student=PART, as in student=encoder_q; or to=built",
    )


def _matched(
    teacher: Tensors, names: Mapping[str, str], tensors: Tensors, parameters: Tensors
) -> dict[str, Tensor] | None:
    """A module's tensors by the teacher's names, where its parameters are the teacher's."""
    found = {}
    for name, tensor in teacher.items():
        other = tensors.get(names[name])
        if other is None and name == "n_averaged":  # the wrapper's, of which no model has one
            found[name] = tensor
            continue
        if other is None or (other.shape, other.dtype) != (tensor.shape, tensor.dtype):
            return None
        found[name] = other
    return found if parameters.keys() <= set(names.values()) else None


def _common_prefix(names: Tensors) -> str:
    parts = [name.split(".")[:-1] for name in names]
    shared: list[str] = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return "".join(f"{part}." for part in shared)
