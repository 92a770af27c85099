"""A live program under study: its objects, its loader, its seed.

A session is what the stages of the pipeline hand to each other while they run; nothing of it
is written down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch.nn.parameter import is_lazy

from auditkit.errors import ProgramError
from auditkit.formats.ordering import Batch
from auditkit.observe.loader.consumption import StepDriver
from auditkit.observe.loader.driver import LoaderDriver
from auditkit.observe.machine.distributed import refuse_sharded_study
from auditkit.observe.rng.streams import (
    Generator,
    GlobalStreams,
    capture_streams,
    seed_everything,
)
from auditkit.observe.state.components import State, StateReader, TrainingObjects, as_built
from auditkit.observe.state.hidden import HiddenValues
from auditkit.observe.state.hooks import hooks_by_name
from auditkit.observe.state.uncaptured import (
    PrivateGenerator,
    module_roots,
    private_generators,
    refuse_moved_generators,
    search_roots,
)
from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.digests import commitments
from auditkit.program.program import LoadedFactory, Program
from auditkit.program.supply import Supply
from auditkit.records.plan import StudyPlan
from auditkit.records.sharding import Sharding


class DataPosition(Protocol):
    """A loader that can tell where it stands, and go on from there."""

    @property
    def iterable(self) -> bool:
        """Whether the dataset is iterable-style: batches without indices."""

    @property
    def per_sample(self) -> bool:
        """Whether loading draws from derived streams only."""

    def pin_order(self, control: Sequence[Batch], delivered: Sequence[Batch], step: int) -> None:
        """Deliver given batches while the loader's own sampler must yield the control's."""

    def capture(self) -> Leaves:
        """The position as a component."""

    def restore(self, leaves: Leaves) -> None:
        """Go on from a captured position."""

    def close(self) -> None:
        """Leave the loader as it was."""


@dataclass(frozen=True)
class TrainingSession:
    """Live objects and a data position whose state can be read and written.

    Attributes:
        objects: The stateful objects, with what they were when they were built.
        driver: The loader.
        auxiliary: Further loaders by name.
    """

    objects: TrainingObjects
    driver: DataPosition
    auxiliary: Mapping[str, DataPosition] = field(default_factory=dict)
    _reader: StateReader = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_reader", StateReader(self.objects))

    def state(self, streams: GlobalStreams | None = None) -> State:
        """The training state as live views, without the data position."""
        return self._reader.read(streams)

    def sharding(self) -> Sharding:
        """Where in the whole lies what this process holds of sharded tensors."""
        return self._reader.sharding()

    def streams(self) -> GlobalStreams:
        """The global streams as they stand; draws nothing."""
        return self._reader.streams()

    def attributes(self, *, strict: bool = False) -> State:
        """Plain attributes that training changed, as components.

        Args:
            strict: Whether what cannot be captured is refused, and not left out.
        """
        built = self.objects.built
        return {} if built is None else built.attributes.changed(strict=strict)

    def positions(self) -> dict[str, Leaves]:
        """The data positions as sections: ``loader``, and ``loader/NAME`` of further ones."""
        found = {"loader": self.driver.capture()}
        found.update(
            {f"loader/{name}": loader.capture() for name, loader in self.auxiliary.items()}
        )
        return found

    def close(self) -> None:
        """Leave the loader as it was; its workers are stopped."""
        self.driver.close()


@dataclass(frozen=True, kw_only=True)
class Session(TrainingSession):
    """A live program.

    Attributes:
        program: What the factory returned.
        seed: The study seed.
        stream_seeds: Derived seed of every global stream; empty where auditkit seeded none.
        stream_starts: ``sha256/tensor-v1`` of every global stream before the factory ran.
        generators: Those that no component records; nobody may draw from them.
        rebuild: Builds the program's objects anew, from the same seed; None of a script.
        supply: What becomes of a batch between the loader and the step.
    """

    program: Program
    seed: int
    stream_seeds: Mapping[str, int]
    stream_starts: Mapping[str, str]
    generators: tuple[PrivateGenerator, ...] = ()
    rebuild: Callable[[], TrainingObjects] | None = None
    supply: Supply = field(default_factory=Supply)

    def state(self, streams: GlobalStreams | None = None) -> State:
        """The training state as live views, plain attributes included.

        Raises:
            UncapturedState: When somebody drew from a generator that no component records.
        """
        refuse_moved_generators(self.generators)
        state, attributes = super().state(streams), self._reader.attributes()
        return {**state, **attributes} if attributes else state


def _functions(program: Program) -> dict[str, Any]:
    """What training calls, by name."""
    found = {
        name: function
        for name in ("loss", "step", "on_epoch_end", "augment")
        if (function := getattr(program, name)) is not None
    }
    return found | {f"data_changes[{name!r}]": fn for name, fn in program.data_changes.items()}


def hidden_values(session: Session) -> HiddenValues:
    """What the program's code keeps by itself, to be compared with later."""
    objects, program = session.objects, session.program
    roots = search_roots(objects, program.data_loader, _functions(program))
    # The last ones: a method of a layer's own is that layer's.
    roots |= hooks_by_name(module_roots(objects), objects.optimizer)
    registered = module_roots(objects).values()
    return HiddenValues(roots, [program.loader, *objects.extras.values()], registered)


def _driver(
    program: Program,
    seed: int,
    plan: StudyPlan,
    following: Mapping[str, Generator],
    registered: Mapping[str, Generator],
) -> LoaderDriver | StepDriver:
    if program.loader is None:
        return StepDriver(plan.augmentation_rng, program.steps_per_epoch)
    return LoaderDriver(program.data_loader, seed, plan.augmentation_rng, following, registered)


def open_session(
    factory: LoadedFactory, arguments: Mapping[str, str], plan: StudyPlan, seed: int
) -> Session:
    """Seed every global stream, call the factory, and take the loader over.

    Raises:
        ProgramError: When the factory returns something else than a program.
        ProgramFailed: When it raises.
        UncapturedState: When the program holds generators that cannot be watched.
        UnsupportedLoader: When its loader cannot be recorded.
    """
    seeds = seed_everything(seed)
    starts = commitments(capture_streams().leaves())
    program = factory.build(seed, arguments)
    for name, parameter in program.model.named_parameters():
        if is_lazy(parameter):
            raise ProgramError(
                f"the model's parameter {name} has no shape yet",
                hint="call the model once on a batch in the factory",
            )
    refuse_sharded_study(program.model)
    functions = {**_functions(program), "make_program": factory.make}
    objects = as_built(program.objects)
    generators = private_generators(objects, program.data_loader, functions)
    seeds_samples = plan.augmentation_rng == "per-sample" and program.loader is not None
    following = program.sample_generators if seeds_samples else {}
    if following:  # seeded anew for every sample, they have no state to keep
        others = {name: extra for name, extra in objects.extras.items() if name not in following}
        objects = replace(objects, extras=others)
    return Session(
        generators=generators,
        supply=Supply.of(program, seed),
        program=program,
        objects=objects,
        driver=_driver(program, seed, plan, following, objects.generators),
        seed=seed,
        stream_seeds=seeds,
        stream_starts=starts,
        rebuild=lambda: _rebuilt(factory, arguments, seed),
    )


def _rebuilt(factory: LoadedFactory, arguments: Mapping[str, str], seed: int) -> TrainingObjects:
    """What the factory makes, called again; the global streams stay where they are."""
    streams = capture_streams()
    try:
        seed_everything(seed)
        return factory.build(seed, arguments).objects
    finally:
        streams.restore()
