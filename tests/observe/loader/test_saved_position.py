"""What a snapshot lacks of a loader's position, or holds otherwise, is refused by its entry."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from tiny_programs import Numbers
from torch.utils.data import DataLoader

from auditkit.errors import FormatError, RestoreMismatch
from auditkit.observe.loader.consumption import StepDriver
from auditkit.observe.loader.driver import LoaderDriver
from auditkit.observe.loader.recorded_loader import RecordedLoader
from auditkit.observe.rng.streams import capture_streams
from auditkit.observe.values.codec import Leaves, flatten, unflatten


def driver() -> LoaderDriver:
    made = LoaderDriver(DataLoader(Numbers(), batch_size=2, shuffle=True), 3, "inherit")
    made.begin_epoch()
    made.next(capture_streams())
    return made


class Unguarded:
    """What a recorded loader reports to here."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def recorded() -> RecordedLoader:
    made = RecordedLoader(DataLoader(Numbers(), batch_size=2, shuffle=True))
    made.boundary = Unguarded()
    iter(made.loader)
    return made


LOADERS: dict[str, Callable[[], Any]] = {
    "driver": driver,
    "recorded": recorded,
    "none": lambda: StepDriver("per-sample", None),
}


def edited(leaves: Leaves, path: tuple[Any, ...], value: Any) -> Leaves:
    """A position with another entry; without it where that is ``...``."""
    tree: Any = copy.deepcopy(unflatten(leaves))
    inner = tree
    for name in path[:-1]:
        inner = inner[name]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return flatten(tree, where="loader")


@pytest.mark.parametrize(
    ("kind", "path", "value", "says"),
    [
        *((kind, ("epoch",), ..., "lacks 'epoch'") for kind in LOADERS),
        *((kind, ("position",), "1", "'position' is something else") for kind in LOADERS),
        *((kind, ("position",), -1, "no position in a loader") for kind in LOADERS),
        *((kind, ("epoch",), True, "'epoch' is something else") for kind in LOADERS),
        ("driver", ("samplers",), ..., "lacks 'samplers'"),
        ("driver", ("samplers",), [], "'samplers' is something else"),
        ("driver", ("generators",), {"mine": {}}, "no generator 'mine' is registered"),
        ("driver", ("generators",), 3, "'generators' is something else"),
        ("driver", ("attributes",), 3, "'attributes' is something else"),
        ("driver", ("epoch-start rng/torch",), ..., "random streams are incomplete"),
        ("driver", ("epoch-start rng/torch",), 3, "random streams are incomplete"),
        ("recorded", ("start",), ..., "lacks 'start'"),
        ("recorded", ("start", "calls"), ..., "lacks start: 'calls'"),
        ("recorded", ("start", "streams"), 3, "start: 'streams' is something else"),
        ("recorded", ("start", "calls"), {"a": {}}, "calls: 'call' is something else"),
        ("recorded", ("start", "calls"), {0: 1}, "calls: 'streams' is something else"),
        ("recorded", ("round",), 3, "'round' is something else"),
        ("recorded", ("wrapper",), ..., "lacks 'wrapper'"),
        ("recorded", ("over",), {"samplers": {}}, "lacks over: 'attributes'"),
    ],
)
def test_an_entry_that_is_lacking_or_something_else_is_named(
    kind: str, path: tuple[Any, ...], value: Any, says: str
) -> None:
    loader = LOADERS[kind]()
    changed = edited(loader.capture(), path, value)
    for call in ("restore", "seek") if kind == "recorded" else ("restore",):
        with pytest.raises(RestoreMismatch) as refused:
            getattr(loader, call)(changed)
        assert says in str(refused.value)
    loader.close()


@pytest.mark.parametrize("kind", LOADERS)
def test_what_is_no_tree_is_no_position(kind: str) -> None:
    loader = LOADERS[kind]()
    for leaves, error in ((flatten([1], where="loader"), RestoreMismatch), ({}, FormatError)):
        with pytest.raises(error):
            loader.restore(leaves)
    loader.close()
