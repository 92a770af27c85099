"""Which loaders cannot be recorded, and which positions of one cannot be gone back to."""

from __future__ import annotations

import gc
from collections.abc import Collection
from typing import Any

from torch.utils.data import DataLoader, IterDataPipe, MapDataPipe
from torch.utils.data.dataloader import _BaseDataLoaderIter, _DatasetKind

from auditkit.errors import UnsupportedLoader
from auditkit.formats.quote import class_of
from auditkit.observe.loader.iteration import Iteration
from auditkit.observe.loader.proxies import is_swapped


def is_iterable_style(loader: DataLoader[Any]) -> bool:
    """Whether batches come from an IterableDataset, without indices."""
    return bool(loader._dataset_kind == _DatasetKind.Iterable)


def refuse_unsupported(loader: object) -> None:
    """Refuse what cannot be recorded.

    Raises:
        UnsupportedLoader: With the reason, and what to use in its place.
    """
    if not isinstance(loader, DataLoader):
        raise UnsupportedLoader(
            f"{class_of(loader)} is no torch.utils.data.DataLoader",
            hint="wrap the data in a Dataset or IterableDataset and a DataLoader",
        )
    if isinstance(loader.dataset, (IterDataPipe, MapDataPipe)):
        raise UnsupportedLoader(
            f"{type(loader.dataset).__name__} is a DataPipe, which torch shuffles and shards in "
            "ways of its own",
            hint="use a Dataset or an IterableDataset",
        )
    if not getattr(loader, "in_order", True):
        raise UnsupportedLoader(
            "a DataLoader with in_order=False delivers in an order that no seed fixes",
            hint="use in_order=True",
        )


def refuse_without_class(loader: object) -> None:
    """Refuse a loader that cannot tell when it is iterated, as a list of batches.

    Raises:
        UnsupportedLoader: When its class cannot be exchanged.
    """
    if not hasattr(loader, "__dict__"):
        raise UnsupportedLoader(
            f"nothing can be told of when a {type(loader).__name__} is iterated",
            expected="an object of a class with attributes",
            hint="a list of batches: DataLoader(batches, batch_size=None)",
        )


def refuse_own_state(loader: Any) -> None:
    """Refuse a loader that was put to a position of its own.

    Raises:
        UnsupportedLoader: When its next iteration begins there.
    """
    if getattr(loader, "next_iter_state", None) is not None:
        raise UnsupportedLoader(
            f"{type(loader).__name__}.load_state_dict was called: the batches before that state "
            "are in no recording",
            hint="go on with Recorder.resume, which puts the loader back as well",
        )


def refuse_running(loader: DataLoader[Any]) -> None:
    """Refuse a loader of which an iteration is under way: its batches would pass unseen.

    Raises:
        UnsupportedLoader: When there is one.
    """
    if is_swapped(loader):
        raise UnsupportedLoader("this DataLoader is already being recorded")
    running = getattr(loader, "_iterator", None) is not None
    kinds = _with_subclasses(_BaseDataLoaderIter)
    for found in gc.get_objects() if not running else ():
        # By type: looking at some objects' __class__ makes them warn or import.
        if type(found) in kinds and found._dataset is loader.dataset:
            indices = vars(found).get("_index_sampler")
            running |= indices is loader._index_sampler and not _is_over(found)
    if running:
        raise UnsupportedLoader(
            "the DataLoader is being iterated already",
            hint="wrap it before the loop, and before persistent workers have started",
        )


def _with_subclasses(kind: type) -> set[type]:
    return {kind}.union(*map(_with_subclasses, kind.__subclasses__()))


def _is_over(iterator: Any) -> bool:
    try:
        return bool(iterator._num_yielded >= len(iterator))
    except TypeError:  # an iterable dataset without a length
        return False


def refuse_position(
    base: DataLoader[Any], epoch: int, unfinished: Collection[Iteration], current: Iteration
) -> None:
    """Refuse a position that cannot be gone back to exactly.

    Args:
        base: The loader.
        epoch: Number of the iteration.
        unfinished: Iterations that are alive, were asked for a batch, and have more of them.
        current: The one that was asked last.

    Raises:
        UnsupportedLoader: With the reason.
    """
    reason, hint = None, None
    if epoch > 0 and base.persistent_workers and base.num_workers:
        reason = (
            "persistent workers keep random state from epoch to epoch that no snapshot can read"
        )
        hint = "use persistent_workers=False, or fork in the first epoch"
    elif current.load_failed:
        reason = "loading a batch of this epoch raised"
    elif is_iterable_style(base) and current.start.overflowed:
        reason = "loading drew from the global streams more often than can be kept"
        hint = "load with num_workers=1, or draw from a registered generator"
    elif len(unfinished) > (current in unfinished):
        gc.collect()  # an iterator that was left may hang in a circle
        if len(unfinished) > (current in unfinished):
            reason = "the loader is iterated twice at once"
    if reason is not None:
        raise UnsupportedLoader(reason, where=f"epoch {epoch}", hint=hint)
