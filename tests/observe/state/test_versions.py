from __future__ import annotations

import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from auditkit.observe.state import versions
from auditkit.observe.state.versions import Versions, are_kept

needs_versions = pytest.mark.skipif(
    sys.implementation.name != "cpython" or sys.version_info >= (3, 13),
    reason="this Python keeps no versions",
)

WRITES: dict[str, Callable[[dict[Any, Any]], object]] = {
    "value": lambda one: one.__setitem__("a", 2),
    "equal value": lambda one: one.__setitem__("a", 1.0),
    "entry": lambda one: one.__setitem__("c", 2),
    "removed": lambda one: one.__delitem__("a"),
    "popped": lambda one: one.pop("a"),
    "united": lambda one: one.__ior__({"a": 3}),
    "moved": lambda one: one.__setitem__("a", one.pop("a")),
    "emptied": lambda one: one.clear(),
}


@needs_versions
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("kind", [dict, lambda one: defaultdict(list, one)])
def test_a_write_is_seen(write: str, kind: Any) -> None:
    one, other = kind({"a": 1, "b": 2}), {"a": 1}
    known = Versions.of([other, one])
    assert known is not None
    assert one["a"] == 1  # reading is no writing
    assert one.get("z") is None
    assert known.hold()
    WRITES[write](one)
    assert not known.hold()
    known.renew()
    assert known.hold()
    other["a"] = 2
    assert not known.hold()


class Layer:
    def __init__(self) -> None:
        self.training = True


@needs_versions
def test_attributes_are_seen_however_often_they_are_set() -> None:
    layer = Layer()
    known = Versions.of([vars(layer)])
    assert known is not None
    for number in range(300):  # so often that the interpreter makes the assignment quick
        layer.training = number  # type: ignore[assignment]
        assert not known.hold()
        known.renew()
        assert known.hold()


def test_dicts_that_keep_an_order_of_their_own_are_not_judged() -> None:
    assert Versions.of([{}, OrderedDict()]) is None


@pytest.mark.parametrize("python", [(3, 10), (3, 13)])
def test_nothing_is_known_of_other_pythons(
    python: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (*python, 0))
    assert not are_kept.__wrapped__()


@pytest.mark.parametrize("place", [8, 16, 32, 40])
def test_nothing_is_known_where_a_dict_is_laid_out_otherwise(
    place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "_PLACE", place)
    assert not are_kept.__wrapped__()
