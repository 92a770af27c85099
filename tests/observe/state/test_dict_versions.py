"""Every write to a dict is seen, and what cannot be seen is not asked."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import nn

from auditkit.observe.state import dict_versions
from auditkit.observe.state.dict_versions import DictVersions

WRITES: dict[str, Callable[[Any], object]] = {
    "item": lambda held: held.__setitem__("a", 2),
    "equal": lambda held: held.__setitem__("a", True),
    "new": lambda held: held.__setitem__("c", 2),
    "gone": lambda held: held.pop("a"),
    "order": lambda held: held.__setitem__("a", held.pop("a")),
    "all": lambda held: held.clear(),
    "union": lambda held: held.__ior__({"a": 3}),
}


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    dict_versions._is_known_good.cache_clear()
    yield
    dict_versions._is_known_good.cache_clear()


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("make", [dict, lambda held: defaultdict(int, held)])
def test_every_write_is_seen(write: str, make: Callable[[Any], Any]) -> None:
    held, other = make({"a": 1, "b": 2}), {"a": 1}
    versions = DictVersions([other, held])
    assert versions.hold()
    assert versions.hold()
    WRITES[write](held)
    assert not versions.hold()
    versions.renew()
    assert versions.hold()


def test_attributes_are_seen_however_they_are_set() -> None:
    layer = nn.Linear(2, 2)
    for write in (
        lambda n: setattr(layer, "own", n),
        lambda n: vars(layer).update(own=-n),
        lambda _: layer.eval() if layer.training else layer.train(),
        lambda _: delattr(layer, "own"),
    ):
        for n in range(1, 40):
            layer.own = 0  # type: ignore[assignment]
            versions = DictVersions([vars(layer)])
            assert versions.hold()
            write(n)
            assert not versions.hold()


def test_whoever_always_writes_what_is_there_is_not_asked_long() -> None:
    held = {"a": 1}
    versions = DictVersions([held])
    for n in range(dict_versions._PATIENCE):
        assert versions._is_asked
        held["b"] = n
        assert not versions.hold()
        versions.renew()
    assert not versions._is_asked
    assert not versions.hold()
    versions = DictVersions([held])
    for n in range(9):  # of what changed something each time
        held["b"] = n
        assert not versions.hold()
        versions.renew(in_vain=False)
        assert versions.hold()


def test_where_a_write_may_go_unseen_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not DictVersions([OrderedDict(a=1)]).hold()  # another order is no write to it
    unseen: tuple[Any, ...] = (None, lambda _: 1, len, lambda _: object())
    for version in unseen:
        monkeypatch.setattr(dict_versions, "_version", version)
        dict_versions._is_known_good.cache_clear()
        assert not DictVersions([{"a": 1}]).hold()
