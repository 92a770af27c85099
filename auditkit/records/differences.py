"""Columns of a row that differ: the class of the difference, and which of them comes first.

What is named first is chosen by what can have caused what: the order before the batches, these
before the settings (``modules``, ``param_groups``, ``scheduler``, ``scaler``), then the random
streams, then the weights and all that follows from them, the loss last. Two exceptions, since a row
holds the state from which its order and batch were then drawn: where a process began with other
random streams, these come before order and batch; and so where a later row has other streams. No
random stream makes another setting: settings come first then, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from auditkit.records.evidence import CONSUMED

_SETTINGS = ("modules", "param_groups", "scheduler", "scaler")

_KINDS = {"order": "order drift", "batch": "data drift", "rng": "RNG drift", "steps": "length"}


def kind_of(component: str) -> str:
    """The class of a difference."""
    return _KINDS.get(component.partition("/")[0], "state drift")


def precedence(component: str, *, drawn: bool = False) -> tuple[int, str]:
    """Sorts the components of one row: the likely cause first.

    Args:
        component: The component.
        drawn: Whether the row's random streams differ, so that what it consumed can be due to
            them.
    """
    kind = component.partition("/")[0]
    if kind in CONSUMED:
        return CONSUMED.index(kind) + 4 * drawn, component
    if kind in _SETTINGS:
        return 2, component
    return {"rng": 3, "loss": 9}.get(kind, 8), component


def by_cause(step: int, components: Iterable[str], starts: Collection[str] = ()) -> list[str]:
    """The components of one row that differ, the likely cause first.

    Args:
        step: Of the row.
        components: What differs in it.
        starts: Random streams in which the processes began differently.
    """
    names = list(components)
    drawn = step > 1 and any(name.startswith("rng/") for name in names)

    def key(name: str) -> tuple[int, int, str]:
        is_setting = bool(starts) and name.partition("/")[0] in _SETTINGS
        return (0 if is_setting else 1 if name in starts else 2, *precedence(name, drawn=drawn))

    return sorted(names, key=key)


# Why a loop that goes on from a checkpoint may differ from the one that took it

_REASONS = {
    "order drift": "the sampler, its batch sampler or the data set holds what no checkpoint does "
    "(weights, a batch size, a list that grows), or the loop requests a batch before it has "
    "trained on the one in hand",
    "data drift": "data set, transforms or collate_fn draw from a generator, or hold a counter, "
    "that no checkpoint holds; or the data are others now",
    "RNG drift": "something draws by a counter, a generator or a further loader that no "
    "checkpoint holds",
    "scheduler": "it is stepped with a number that begins anew (a loss or a metric that the loop "
    "sums up over the epoch), or by a counter of the loop",
    "settings": "a scheduler that is not registered, or a counter of the loop, sets it",
    "state drift": "the step used what no checkpoint holds: a generator or counter of the loop, "
    "an optimizer inside the optimizer, a further model",
}

_REMEDIES = {
    "order drift": "extras={NAME: an object with state_dict and load_state_dict}",
    "data drift": "extras={NAME: generator}",
    "RNG drift": "extras={NAME: generator}, or a further loader by position",
    "scheduler": "extras={NAME: an object with state_dict and load_state_dict that keeps the "
    "sums}, or count with rec.step, rec.epochs and rec.enumerate",
    "settings": "scheduler=, or count with rec.step, rec.epochs and rec.enumerate",
    "state drift": "further models and optimizers by position, generators and counters by "
    "extras={NAME: object}",
}


def resume_reason(component: str) -> str:
    """What a resume most likely lacked where this component is the first that differs."""
    return _REASONS[_key(component)]


def resume_remedy(component: str) -> str:
    """What to give to ``wrap`` then."""
    return _REMEDIES[_key(component)]


def _key(component: str) -> str:
    if component == "scheduler":  # which is registered, or it were no component
        return component
    if component.partition("/")[0] in _SETTINGS:
        return "settings"
    kind = kind_of(component)
    return kind if kind in _REASONS else "order drift"
