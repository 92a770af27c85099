"""Averaged copies of a model set back: to its weights, or to begin anew (sources S1 and S5)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from auditkit.errors import NothingToPerturb
from auditkit.observe.state.components import TrainingObjects
from auditkit.perturbations.base import Perturbation, nothing_yet
from auditkit.perturbations.copying import copy_weights, inner, same_form, tensors_of
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import ParameterValue


class AverageReset(Perturbation):
    """The average := the model's weights and buffers now; how often it was updated stays."""

    declaration = DECLARATIONS["average-reset"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Copy the model into it."""
        name, average = _average(objects, parameters)
        target, source = tensors_of(inner(average)), tensors_of(objects.model)
        if not same_form(target, source):
            raise NothingToPerturb(
                f"the averaged copy {name} has other names or shapes than the model",
                component=f"averaged/{name}",
            )
        copy_weights(target, source, f"averaged/{name}", "the model's weights already")


class AverageRestart(Perturbation):
    """``n_averaged`` := 0: the next update takes the model's weights whole."""

    declaration = DECLARATIONS["average-restart"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Set the count to 0."""
        name, average = _average(objects, parameters)
        count = getattr(average, "n_averaged", None)
        if not isinstance(count, Tensor):
            raise NothingToPerturb(
                f"the averaged copy {name} keeps no count n_averaged",
                component=f"averaged/{name}",
                hint="average-reset fits",
            )
        if not count.count_nonzero():
            raise nothing_yet("n_averaged is 0 already", f"averaged/{name}")
        count.zero_()


def _average(
    objects: TrainingObjects, parameters: Mapping[str, ParameterValue]
) -> tuple[str, nn.Module]:
    names, name = sorted(objects.averaged), str(parameters.get("name", ""))
    if not names:
        raise NothingToPerturb(
            "the program has no averaged copy",
            component="averaged",
            hint="register it: Program(averaged={'ema': ema})",
        )
    if not name and len(names) > 1:
        raise NothingToPerturb(
            f"the program has several averaged copies: {', '.join(names)}",
            component="averaged",
            hint=f"say which: name={names[0]}",
        )
    name = name or names[0]
    if name not in objects.averaged:
        raise NothingToPerturb(
            f"the program has no averaged copy {name!r}",
            component=f"averaged/{name}",
            hint=f"it has {', '.join(names)}",
        )
    return name, objects.averaged[name]
