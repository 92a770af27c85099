"""Numbers by which a script counts its steps are found, by how it calls them."""

from __future__ import annotations

from typing import Any

import pytest

from auditkit.observe.state.counters import begun_anew, step_counters


class Trainer:
    """A class of the user's own."""

    n_calls = 0

    def __init__(self, taken: int) -> None:
        self.taken, self.rate, self.done = taken, 7.0, True


class Slotted:
    """It has no dict."""

    __slots__ = ("taken",)

    def __init__(self, taken: int) -> None:
        self.taken = taken


class Curious:
    """Whoever asks it for anything runs its code."""

    def __init__(self, taken: int) -> None:
        object.__setattr__(self, "taken", taken)

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(name)


def found(steps: int, **names: Any) -> dict[str, int]:
    """What is found where a function calls something by these names."""
    arguments = ", ".join(names)
    scope: dict[str, Any] = {"__name__": "script", "ask": step_counters}
    exec(f"def run({arguments}):\n    return ask({steps})", scope)  # noqa: S102 # frames of a script
    numbers: dict[str, int] = scope["run"](**names)
    return {name: value for name, value in numbers.items() if name.partition(".")[0] in names}


def test_locals_and_attributes_that_equal_the_steps_are_found() -> None:
    others = {"size": 32, "rate": 7.0, "flag": True, "text": "7", "many": [7]}
    assert found(7, step=7, previous=6, trainer=Trainer(8), **others) == {
        "step": 7,
        "previous": 6,
        "trainer.taken": 8,
    }


def test_classes_count_too_and_nobodys_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "n_calls", 9)
    names = {"kind": Trainer, "slotted": Slotted(9), "curious": Curious(9)}
    assert found(9, **names) == {"kind.n_calls": 9, "curious.taken": 9}


def test_what_stands_elsewhere_is_told_and_what_is_gone_is_not() -> None:
    taken, same = 0, 4
    noted = {"taken": 4, "same": 4, "batch_index": 3}
    assert begun_anew(noted) == {"taken": (4, taken)}
    assert same == noted["same"]
