"""Two marks of a value differ where it has moved, and are the same where it has not."""

from __future__ import annotations

import array
import contextvars
import ctypes
import functools
import hashlib
import io
import itertools
import mmap
import multiprocessing
import sqlite3
import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from auditkit.observe.state.marks import Marks


def variable() -> Any:
    made: contextvars.ContextVar[int] = contextvars.ContextVar("n", default=0)
    return made


def cached() -> Any:
    return functools.lru_cache(lambda n: n)


def connection() -> Any:
    made = sqlite3.connect(":memory:")
    made.execute("create table t(n int)")
    return made


def setting(name: Any, value: Any) -> Callable[[Any], Any]:
    return lambda held: held.__setitem__(name, value)


MOVES: list[tuple[str, Callable[[], Any], Callable[[Any], Any]]] = [
    ("bytearray", lambda: bytearray(4), setting(0, 1)),
    ("array", lambda: array.array("d", [0.0]), setting(0, 1.0)),
    ("mmap", lambda: mmap.mmap(-1, 16), setting(0, 1)),
    ("ctypes array", ctypes.c_double * 2, setting(1, 1.0)),
    ("ctypes number", lambda: ctypes.c_int(0), lambda held: setattr(held, "value", 1)),
    (
        "shared number",
        lambda: multiprocessing.Value("i", 0),
        lambda held: setattr(held, "value", 1),
    ),
    ("bytes io", lambda: io.BytesIO(b"abc"), lambda held: held.read(1)),
    ("text io", lambda: io.StringIO("abc"), lambda held: held.read(1)),
    ("cache", cached, lambda held: held(1)),
    ("database", connection, lambda held: held.execute("insert into t values (1)")),
    ("hash", hashlib.sha256, lambda held: held.update(b"x")),
    ("variable", variable, lambda held: held.set(1)),
    ("thread's own", threading.local, lambda held: setattr(held, "n", 1)),
    ("range", lambda: iter(range(3)), next),
    ("dict", lambda: iter({1: 2}), next),
    ("enumerate", lambda: enumerate([1, 2]), next),
    ("zip", lambda: zip([1, 2], [3, 4], strict=False), next),
    ("chain", lambda: itertools.chain([1, 2], [3]), next),
    ("islice", lambda: itertools.islice(itertools.count(), 9), next),
    ("counter", Counter, lambda held: held.update([1])),
    ("ordered", OrderedDict, setting(1, 2)),
    ("array of numpy", lambda: np.zeros(999), setting(0, 1)),
    ("tensor", lambda: torch.zeros(999), lambda held: held.numpy().fill(1)),
    ("bfloat16", lambda: torch.zeros(3, dtype=torch.bfloat16), lambda held: held.data.fill_(1)),
    ("layer", lambda: torch.nn.Linear(2, 2), lambda held: held.bias.data.fill_(7)),
]


@pytest.mark.parametrize(("make", "move"), [m[1:] for m in MOVES], ids=[m[0] for m in MOVES])
def test_what_has_moved_has_another_mark(
    make: Callable[[], Any], move: Callable[[Any], Any]
) -> None:
    held, marks = make(), Marks()
    before = marks.of([held])
    assert before == marks.of([held])
    assert marks.of(held) is not None
    move(held)
    assert marks.of([held]) != before


@pytest.mark.parametrize(
    "value",
    [
        io.TextIOWrapper(io.BytesIO(b"a\nb")).detach(),
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2, device="meta"),
        torch.zeros(0),
        torch.zeros(2, 3).t(),
        torch.zeros(2, dtype=torch.complex64).conj(),
        np.array([object()]),
        hashlib.shake_128(),
        memoryview(b"ab"),
        threading.Lock(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_it_is_there_is_a_mark_or_none(value: Any) -> None:
    assert Marks().of(value) == Marks().of(value)


ASKED: list[str] = []


class Sequence:
    def __len__(self) -> int:
        ASKED.append("__len__")
        raise RuntimeError

    def __getitem__(self, place: int) -> int:
        return place


class File(io.RawIOBase):
    def tell(self) -> int:
        ASKED.append("tell")
        return len(ASKED)


class Told(torch.Tensor):
    @classmethod
    def __torch_function__(cls, *call: Any, **more: Any) -> Any:
        ASKED.append("__torch_function__")
        return super().__torch_function__(*call, **more)  # type: ignore[no-untyped-call]


class Array(np.ndarray[Any, Any]):
    def __array_finalize__(self, other: object) -> None:
        ASKED.append("__array_finalize__")


class Database(sqlite3.Connection):
    @property
    def total_changes(self) -> int:
        ASKED.append("total_changes")
        return len(ASKED)


class Layer(torch.nn.Linear):
    def parameters(self, recurse: bool = True) -> Any:
        ASKED.append("parameters")
        return super().parameters(recurse)

    named_parameters = buffers = named_buffers = modules = named_modules = parameters  # type: ignore[assignment]


@pytest.mark.parametrize(
    "value",
    [
        iter(Sequence()),
        enumerate(Sequence()),  # type: ignore[arg-type]
        File(),
        torch.ones(3).as_subclass(Told),
        np.ones(3).view(Array),
        sqlite3.connect(":memory:", factory=Database),
        Layer(2, 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_nobody_is_asked(value: Any) -> None:
    ASKED.clear()
    assert Marks().of(value) == Marks().of(value)
    assert not ASKED


def closed() -> Any:
    made = sqlite3.connect(":memory:")
    made.close()
    return made


def freed() -> Any:
    made = torch.ones(4)
    made.untyped_storage().resize_(0)
    return made


@pytest.mark.parametrize(
    "value",
    [
        closed(),
        freed(),
        torch.nn.LazyLinear(3),
        torch.nn.Linear.__new__(torch.nn.Linear),
    ],
    ids=["closed", "freed", "lazy", "empty"],
)
def test_what_cannot_be_read_ends_nothing(value: Any) -> None:
    marks = Marks()
    assert marks.of([value, 1]) == marks.of([value, 1]) != marks.of([value, 2])


def test_layers_in_layers_are_seen_each_once() -> None:
    inner = torch.nn.Linear(1, 1)
    held = torch.nn.Sequential(inner, torch.nn.Sequential(inner))
    before = Marks().of(held)
    assert isinstance(before, tuple)
    assert len(before) == 3
    inner.bias.data.fill_(7)
    assert Marks().of(held) != before


def test_a_proxy_of_what_is_gone_is_not_asked() -> None:
    held = torch.nn.Linear(1, 1)
    proxy = weakref.proxy(held)
    del held
    assert Marks().of({"there": proxy}) == Marks().of({"there": proxy})


def test_a_closed_file_has_a_mark() -> None:
    held = io.BytesIO(b"ab")
    before = Marks().of(held)
    held.close()
    assert Marks().of(held) != before
