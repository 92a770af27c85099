"""The RNG contract of a seed: which random streams exist, how each was seeded, where it stood."""

from __future__ import annotations

from dataclasses import dataclass

#: Streams that per-sample loading derives for a purpose; they have a seed each time and no state.
DERIVED_STREAMS = ("collate", "order", "sample", "worker")

#: What no contract covers, whatever the program.
ALWAYS_UNCOVERED = (
    "os.urandom, secrets, uuid4 and the clock: no program can be replayed that reads them",
    "random numbers drawn inside compiled extensions that keep a state of their own",
)

#: The recipe of a contract of streams that auditkit did not seed.
UNSEEDED = "none"


@dataclass(frozen=True)
class StreamContract:
    """One random stream.

    Attributes:
        stream: Component name: ``rng/python``, ``rng/numpy``, ``rng/torch``, ``rng/cuda:0``,
            ``rng/extras/NAME``; or a derived stream: ``order``, ``sample``, ``collate``.
        seed: The derived 64-bit seed as a decimal string; None where auditkit did not seed it
            (a registered generator, or one seed a sample).
        start: SHA-256 (``sha256/tensor-v1``) of its state before the factory was called; None
            for derived streams.
        fork: The same at t0, for the control.
        end: The same at the horizon, for the control.
    """

    stream: str
    seed: str | None
    start: str | None
    fork: str | None
    end: str | None


@dataclass(frozen=True)
class RngContract:
    """All streams of one seed, and what no stream covers.

    Attributes:
        recipe: How seeds were derived, see ``auditkit.formats.seeds``.
        streams: Sorted by name.
        uncovered: Sources of randomness that are not recorded, for people.
    """

    recipe: str
    streams: tuple[StreamContract, ...]
    uncovered: tuple[str, ...]
