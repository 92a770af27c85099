"""Find random generators that no snapshot would hold, and name them.

What the program's objects reach is searched. A generator that lies there is no gap as long as
nobody draws from it, so it is measured, where all of it runs in one process: whoever moves is
refused. A search may miss what hides well; the replica then drifts from the control.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from auditkit.errors import UncapturedState
from auditkit.formats.quote import public_class_of
from auditkit.observe.loader.iterables import is_batch_stream
from auditkit.observe.loader.samplers import sampler_generators
from auditkit.observe.rng.streams import (
    Generator,
    generator_leaves,
    has_state,
    is_generator,
    is_global_generator,
)
from auditkit.observe.state.components import TrainingObjects
from auditkit.observe.state.environments import held_by
from auditkit.observe.state.reach import reachable
from auditkit.observe.values.digests import digest_leaves
from auditkit.records.digest import EVIDENCE_RECIPE


@dataclass(frozen=True)
class PrivateGenerator:
    """A generator that the program holds and that no component records.

    Attributes:
        path: Where it is.
        generator: It.
        hint: How to register it.
        start: Digest of its state when it was found.
    """

    path: str
    generator: Generator
    hint: str
    start: bytes

    def refuse(self) -> UncapturedState:
        """The error to raise."""
        kind = public_class_of(self.generator)
        return UncapturedState(
            f"{self.path} is a {kind} whose state no snapshot would hold",
            component="rng",
            hint=self.hint,
        )

    def has_moved(self) -> bool:
        """Whether somebody drew from it."""
        return _digest(self.generator) != self.start


def private_generators(
    objects: TrainingObjects, loader: DataLoader[Any], functions: Mapping[str, Any]
) -> tuple[PrivateGenerator, ...]:
    """Generators that the program holds, to be watched.

    Args:
        objects: The training objects; their extras are the registered ones.
        loader: The loader; generators of its samplers are kept with the data position.
        functions: The program's callables by name (loss, step ...), whose closures are searched.

    Raises:
        UncapturedState: Naming one that cannot be watched: worker processes draw from copies of
            it, or it has no state.
    """
    found = tuple(_search(objects, loader, functions))
    for private in found:
        in_workers = private.path.startswith("loader.") and loader.num_workers
        if in_workers or not private.start:
            raise private.refuse()
    return found


def refuse_moved_generators(generators: Iterable[PrivateGenerator]) -> None:
    """Refuse generators that somebody drew from.

    Raises:
        UncapturedState: Naming the first one and how to register it.
    """
    for private in generators:
        if private.has_moved():
            raise private.refuse()


class HeldGenerators:
    """Generators that a loop's objects hold and that no component records.

    A loop may also put another one in the place of one (``self.rng = Random(epoch)``), so they are
    looked for anew whenever they are asked about. What worker processes draw from are copies that
    begin each epoch as the one here stands, and an epoch that is resumed is loaded again from its
    start: they need not be captured. (Persistent workers keep theirs; no checkpoint of a later
    epoch is taken of these.)

    Args:
        objects: The training objects; their extras are the registered ones.
        loader: The loader; generators of its samplers are kept with the data position.

    Raises:
        UncapturedState: Naming one that has no state.
    """

    def __init__(self, objects: TrainingObjects, loader: DataLoader[Any]) -> None:
        self._objects, self._loader = objects, loader
        self._starts: dict[str, bytes] = {}
        for private in _search(objects, loader, {}):
            if not private.start:
                raise _advised(private).refuse()
            self._starts[private.path] = private.start

    def moved(self) -> PrivateGenerator | None:
        """One that is in another state than when it was first found, if there is any."""
        for private in _search(self._objects, self._loader, {}):
            if self._starts.setdefault(private.path, private.start) != private.start:
                return _advised(private)
        return None


def _advised(private: PrivateGenerator) -> PrivateGenerator:
    """The same with what to do where a loop is recorded."""
    return replace(private, hint=_register(_name(private.path)))


def _search(
    objects: TrainingObjects, loader: DataLoader[Any], functions: Mapping[str, Any]
) -> Iterator[PrivateGenerator]:
    known: list[object] = list(sampler_generators(loader).values())
    # What a registered object holds is that object's own business.
    known.extend(extra for extra in objects.extras.values() if not isinstance(extra, nn.Module))
    known.extend(held_by(objects.extras.values()))
    roots = search_roots(objects, loader, functions)
    for path, value in reachable(roots, known):
        if is_generator(value) and not is_global_generator(value):
            yield PrivateGenerator(path, value, _registration_hint(path, loader), _digest(value))


def search_roots(
    objects: TrainingObjects, loader: DataLoader[Any], functions: Mapping[str, Any]
) -> dict[str, Any]:
    """Where a search through a program begins, by path."""
    roots: dict[str, Any] = {}
    for root, module in module_roots(objects).items():
        # Each layer by itself: models are nested deeper than a search goes.
        for name, layer in module.named_modules():
            roots[f"{root}.{name}" if name else root] = layer
    roots["optimizer"] = objects.optimizer
    if is_batch_stream(loader):
        roots["loader"] = loader.dataset.loader  # type: ignore[attr-defined]
    else:
        for name in ("dataset", "collate_fn", "worker_init_fn", "sampler", "batch_sampler"):
            roots[f"loader.{name}"] = getattr(loader, name)
    roots.update(functions)
    return roots


def _digest(generator: Generator) -> bytes:
    if not has_state(generator):
        return b""
    return digest_leaves(EVIDENCE_RECIPE, generator_leaves(generator))


def module_roots(objects: TrainingObjects) -> dict[str, nn.Module]:
    """Model, averaged copies and further models, by path."""
    return {
        "model": objects.model,
        **{f"averaged[{name!r}]": module for name, module in objects.averaged.items()},
        **{
            f"extras[{name!r}]": extra
            for name, extra in objects.extras.items()
            if isinstance(extra, nn.Module)
        },
    }


def _registration_hint(path: str, loader: DataLoader[Any]) -> str:
    name, in_loader = _name(path), path.startswith("loader.")
    following = f"extras={{{name!r}: auditkit.PerSample(<that generator>)}}"
    if in_loader and loader.num_workers:
        return (
            "worker processes draw from copies that cannot be read; draw from random, "
            f"numpy.random or torch, or, in a study, let it be seeded for every sample: {following}"
        )
    hint = _register(name)
    if not in_loader or is_batch_stream(loader):
        return hint
    return (
        f"{hint}; so it follows the position, and a study that puts samples in another order gives "
        f"them other numbers; or let it follow the sample, in a study: {following}"
    )


def _name(path: str) -> str:
    """The name at the end of a path, to be registered by: ``rng`` of ``forward's global rng``."""
    last = path.rpartition(" ")[2].rpartition(".")[2]
    return last.partition("[")[0] or "generator"


def _register(name: str) -> str:
    return f"register it: extras={{{name!r}: <that generator>}}"
