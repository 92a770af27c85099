"""A live program under study: its objects, its loader, its seed.

A session is what the stages of the pipeline hand to each other while they run; nothing of it
is written down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from torch.nn.parameter import is_lazy

from auditkit.errors import ProgramError
from auditkit.formats.ordering import Batch
from auditkit.observe.loader.driver import LoaderDriver
from auditkit.observe.rng.streams import GlobalStreams, capture_streams, seed_everything
from auditkit.observe.state.components import State, StateReader, TrainingObjects
from auditkit.observe.state.uncaptured import plain_attributes, refuse_unregistered_generators
from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.digests import commitments
from auditkit.program.program import LoadedFactory, Program
from auditkit.records.plan import StudyPlan


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
        objects: The stateful objects.
        driver: The loader.
        attributes: Plain attributes as they were at the start, see
            :func:`auditkit.observe.state.uncaptured.plain_attributes`.
        auxiliary: Further loaders by name.
    """

    objects: TrainingObjects
    driver: DataPosition
    attributes: Mapping[str, object]
    auxiliary: Mapping[str, DataPosition] = field(default_factory=dict)
    _reader: StateReader = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_reader", StateReader(self.objects))

    def state(self, streams: GlobalStreams | None = None) -> State:
        """The training state as live views, without the data position."""
        return self._reader.read(streams)

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
    """

    program: Program
    seed: int
    stream_seeds: Mapping[str, int]
    stream_starts: Mapping[str, str]


def open_session(
    factory: LoadedFactory, arguments: Mapping[str, str], plan: StudyPlan, seed: int
) -> Session:
    """Seed every global stream, call the factory, and take the loader over.

    Raises:
        ProgramError: When the factory returns something else than a program.
        ProgramFailed: When it raises.
        UncapturedState: When the program holds generators that no snapshot would hold.
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
    functions = {
        name: function
        for name in ("loss", "step", "on_epoch_end")
        if (function := getattr(program, name)) is not None
    }
    functions["make_program"] = factory.make
    objects = program.objects
    refuse_unregistered_generators(objects, program.loader, functions)
    following = program.sample_generators if plan.augmentation_rng == "per-sample" else {}
    if following:  # seeded anew for every sample, they have no state to keep
        others = {name: extra for name, extra in objects.extras.items() if name not in following}
        objects = replace(objects, extras=others)
    return Session(
        program=program,
        objects=objects,
        driver=LoaderDriver(program.loader, seed, plan.augmentation_rng, following),
        seed=seed,
        stream_seeds=seeds,
        stream_starts=starts,
        attributes=plain_attributes(objects),
    )
