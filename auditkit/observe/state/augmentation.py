"""Whether a data set keeps the per-sample promise: asked of a few samples, where they are loaded.

What a data set draws from may exist in a worker process only, made there when it is first needed.
So the question is put there: workers of their own load the same few samples twice, in two orders,
and each says what the samples look like and which generators it found that moved. Nothing of
this process changes: where batches are loaded without workers, a fork of it is asked.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from auditkit.formats.quote import public_class_of
from auditkit.observe.loader.refusals import is_iterable_style
from auditkit.observe.rng.per_sample import PerSampleDataset, PerWorkerInit, SampleStreams
from auditkit.observe.rng.per_sample import sample_digest as digest_of
from auditkit.observe.rng.streams import (
    Generator,
    generator_leaves,
    has_state,
    is_generator,
    is_global_generator,
)
from auditkit.observe.state.reach import reachable
from auditkit.observe.values.digests import digest_leaves
from auditkit.records.digest import ABSENT, EVIDENCE_RECIPE

#: Samples that are loaded, each twice or more.
_SAMPLES = 4

#: Seconds after which a worker is given up.
_TIMEOUT = 120

#: The same where the program has none: a fork may lack the threads of its parent, and wait for
#: them.
_FORK_TIMEOUT = 20

#: Generators by path: what they are, and the digest of their state.
_States = dict[str, tuple[str, bytes]]


@dataclass(frozen=True)
class BrokenPromise:
    """A sample that looked otherwise when it was loaded again.

    Attributes:
        index: Its index.
        generators: Those that moved beside the global ones, with what they are, by path below the
            loader; empty where none was found.
    """

    index: int
    generators: Mapping[str, str]


def examine(
    loader: DataLoader[Any], seed: int, generators: Mapping[str, Generator]
) -> BrokenPromise | None:
    """Load a few samples in two orders, in workers of their own.

    Args:
        loader: The program's loader; it is left as it is.
        seed: The study seed.
        generators: What follows the sample beside the global streams, by name.

    Returns:
        The first sample that does not look the same; None where all do, or where they cannot be
        loaded so: then only what is measured while training can say it.
    """
    dataset: Any = loader.dataset
    try:
        indices = list(range(min(len(dataset), _SAMPLES)))
    except Exception:  # it has no length
        return None
    if is_iterable_style(loader) or not indices or not _can_ask(loader):
        return None
    batches = [indices, indices[::-1], indices[::-1], indices]
    with suppress(Exception):  # whatever the data set raises, training will raise, too
        found = list(_asked(loader, seed, generators, batches))
        return _first_difference(found, batches)
    return None


def _can_ask(loader: DataLoader[Any]) -> bool:
    if loader.num_workers:
        return True
    forks = "fork" in multiprocessing.get_all_start_methods()
    return forks and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]


def _asked(
    loader: DataLoader[Any],
    seed: int,
    generators: Mapping[str, Generator],
    batches: list[list[int]],
) -> Any:
    wrapped = PerSampleDataset(loader.dataset, SampleStreams(seed, generators))
    init = loader.worker_init_fn
    return DataLoader(
        wrapped,
        batch_sampler=[[(0, index) for index in batch] for batch in batches],
        num_workers=2 if loader.num_workers > 1 else 1,
        collate_fn=_Examiner(wrapped, init),
        worker_init_fn=None if init is None else PerWorkerInit(init, seed),
        multiprocessing_context=loader.multiprocessing_context if loader.num_workers else "fork",
        timeout=loader.timeout or (_TIMEOUT if loader.num_workers else _FORK_TIMEOUT),
        generator=torch.Generator(),  # so that nothing is drawn from the global stream
    )


class _Examiner:
    """Stands in for a ``collate_fn``: what the samples look like, and what was drawn from."""

    def __init__(self, dataset: PerSampleDataset, init: Any) -> None:
        self._dataset, self._init = dataset, init
        self._before: _States = {}

    def __call__(self, samples: list[Any]) -> tuple[list[bytes], dict[str, str]]:
        digests = [digest_of(sample) for sample in samples]
        before, self._before = self._before, _states(self._dataset, self._init)
        moved = {
            path: kind
            for path, (kind, state) in self._before.items()
            if path not in before or before[path][1] != state
        }
        return digests, moved


def _states(dataset: PerSampleDataset, init: Any) -> _States:
    """Generators that are within reach now, but for those that follow the sample."""
    roots = {"loader.dataset": dataset._auditkit_inner, "loader.worker_init_fn": init}
    seen = dict(reachable(roots, ()))
    states: _States = {}
    for path, value in seen.items():
        follows = any(value is one for one in dataset._auditkit_streams.generators.values())
        if not is_generator(value) or is_global_generator(value) or follows:
            continue
        owner = seen.get(path.rpartition(".")[0])
        held = "" if owner is None else f", held by {public_class_of(owner)}"
        digest = (
            digest_leaves(EVIDENCE_RECIPE, generator_leaves(value)) if has_state(value) else b""
        )
        states[path] = (f"a {public_class_of(value)}{held}", digest)
    return states


def _first_difference(
    found: list[tuple[list[bytes], dict[str, str]]], batches: list[list[int]]
) -> BrokenPromise | None:
    looks: dict[int, bytes] = {}
    for (digests, _), batch in zip(found, batches, strict=True):
        for index, digest in zip(batch, digests, strict=True):
            if digest != ABSENT and looks.setdefault(index, digest) != digest:
                # A generator that was there before it was first looked at has moved later, too.
                last: dict[str, str] = {}
                for _, moved in found[len(found) // 2 :]:
                    last.update(moved)
                return BrokenPromise(index, last)
    return None
