"""What a search finds through the functions of a program."""

from __future__ import annotations

import random
import weakref
from typing import Any

from auditkit.observe.state.reach import reachable

COIN = random.Random(1)
SHARED = [COIN]


def tossed() -> float:
    return COIN.random()


def tossed_by_another() -> float:
    return tossed() + len(SHARED)


def found_from(**roots: Any) -> dict[str, Any]:
    return dict(reachable(roots, ()))


def test_a_global_is_found_through_the_functions_that_name_it() -> None:
    found = found_from(f=tossed_by_another)
    assert [path for path, value in found.items() if value is COIN] == [
        "f's global tossed's global COIN"
    ]
    assert found["f's global SHARED"] is SHARED


def test_what_two_functions_name_is_found_once_by_the_nearest_path() -> None:
    found = found_from(f=tossed_by_another, g=tossed)
    assert [path for path, value in found.items() if value is COIN] == ["g's global COIN"]
    assert [path for path, value in found.items() if value is tossed] == ["g"]


class Outside:
    """As a proxy of a request, outside of one."""

    __slots__ = ("__weakref__", "held")

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError


def test_proxies_of_what_is_gone_are_not_asked() -> None:
    gone = weakref.proxy(Outside())
    values = {"gone": gone, "outside": Outside(), "held": [Outside()]}
    found = [path for path, _ in reachable(values, ())]
    assert {"gone", "outside", "held[0]"} <= {*found}


class Refusing(list[Any]):
    def __iter__(self) -> Any:
        raise AssertionError


class Answering(dict[str, Any]):
    def items(self) -> Any:
        raise AssertionError


def test_containers_of_other_classes_are_looked_into_and_not_asked() -> None:
    found = found_from(a=Refusing([COIN]), b=Answering(seed=SHARED))
    assert found["a[0]"] is COIN
    assert found["b['seed']"] is SHARED
