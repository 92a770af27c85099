"""The learning-rate schedule as newly built, and the random streams seeded anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from auditkit.errors import NothingToPerturb
from auditkit.formats.seeds import derive_seed
from auditkit.observe.rng.streams import seed_everything
from auditkit.observe.state.components import TrainingObjects, optimizer_family
from auditkit.observe.state.families import groups_component
from auditkit.observe.state.state_dicts import load_state, state_of
from auditkit.observe.values.digests import commitments
from auditkit.perturbations.base import Perturbation, nothing_yet
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import ParameterValue

#: What schedules that cycle the momentum write, besides the rate.
_CYCLED = ("momentum", "betas")


class SchedulerReset(Perturbation):
    """The schedule as newly built, and the rates of the groups what they were then."""

    declaration = DECLARATIONS["scheduler-reset"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Load the state that it had, and set the rates that it computes the next ones from."""
        scheduler, built = objects.scheduler, objects.built
        if scheduler is None:
            raise NothingToPerturb("the program has no scheduler", component="scheduler")
        if built is None or not built.scheduler:
            raise NothingToPerturb(
                "nobody looked at the scheduler when it was built", component="scheduler"
            )
        began = {"scheduler": built.scheduler}
        if commitments({"scheduler": state_of(scheduler, "scheduler")}) == commitments(began):
            raise nothing_yet("the scheduler is as newly built", "scheduler")
        load_state(scheduler, built.scheduler, "scheduler")
        names = ("lr", *(_CYCLED if getattr(scheduler, "cycle_momentum", False) else ()))
        for path, member in optimizer_family(objects).members.items():
            component = groups_component(path)
            if component in built.state:
                then = built.hyper_parameters(component)
                for group, values in zip(member.param_groups, then, strict=False):
                    _set(group, {name: values[name] for name in names if name in values})


def _set(group: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(group.get(name), Tensor):  # others may hold the very tensor
            group[name].copy_(value)
        else:
            group[name] = value


class RngReseed(Perturbation):
    """Every global stream seeded from (seed, ``draw``)."""

    declaration = DECLARATIONS["rng-reseed"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Seed them; data order and per-sample augmentation have streams of their own."""
        seed_everything(derive_seed(seed, "rng-reseed", int(parameters["draw"])))
