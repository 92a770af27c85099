"""A ring buffer's digest is that of the whole, and what goes past it is found."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from auditkit.errors import AuditError, RestoreMismatch, UncapturedState, UsageError
from auditkit.extras import RingBuffer
from auditkit.formats import word_mix
from auditkit.formats.recipes import digests_raw, evidence_recipe
from auditkit.formats.snapshot_file import raw_components
from auditkit.observe.state.components import StateReader, TrainingObjects, capture
from auditkit.observe.state.restoring import restore
from auditkit.observe.values import ring_leaves
from auditkit.observe.values.codec import pack, unpack
from auditkit.observe.values.digests import StateDigester, commitments, digest_leaves
from auditkit.observe.values.word_sums import WordSummer
from auditkit.records.digest import EVIDENCE_RECIPE, MIX_RECIPE


def memory(capacity: int = 300) -> RingBuffer:
    return RingBuffer.zeros(
        capacity,
        obs=((3,), "float32"),
        done=((), "bool"),
        action=((), torch.int64),
        frame=((9, 8), torch.uint8),
    )


def row(n: int) -> dict[str, Any]:
    return {
        "obs": [n, n + 1, n + 2],
        "done": n % 2 == 0,
        "action": n,
        "frame": torch.full((9, 8), n % 256),
    }


def rows(n: int, count: int) -> dict[str, Any]:
    parts = [row(n + k) for k in range(max(count, 1))]
    return {name: np.array([np.asarray(part[name]) for part in parts])[:count] for name in parts[0]}


def whole(ring: RingBuffer) -> bytes:
    return digest_leaves(MIX_RECIPE, ring.leaves)


@settings(max_examples=15)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 9)),
            st.tuples(st.just("extend"), st.integers(0, 40)),
            st.tuples(st.just("wrote"), st.integers(-41, 39)),
            st.tuples(st.just("digest"), st.just(0)),
        ),
        max_size=12,
    )
)
def test_the_digest_is_that_of_the_whole(writes: list[tuple[str, int]]) -> None:
    ring, total = memory(41), 0
    assert ring.leaves.digest() == whole(ring)
    for kind, n in writes:
        if kind == "add":
            for k in range(n):
                ring.add(**row(total + k))
            total += n
        elif kind == "extend":
            ring.extend(**rows(total, n))
            total += n
        elif kind == "wrote":
            ring["obs"][n] += 7
            ring.wrote(n)
        else:
            assert ring.leaves.digest() == whole(ring)
    assert ring.leaves.digest() == whole(ring)
    ring.leaves.require_whole("extras/memory")
    assert (ring.position, len(ring)) == (total % 41, min(total, 41))


def test_the_digest_after_each_write_is_that_of_the_whole() -> None:
    ring = memory(61)
    for n in range(130):
        if n % 7:
            ring.add(**row(n))
        else:
            ring.extend(**rows(n, n % 4))
        assert ring.leaves.digest() == whole(ring), n
    for n in (7, 6, 7, 8, 7, 8, 14, 13, 60, 0, 59):  # some lie in two rows of 512 bytes
        ring["frame"][n] += 7
        ring.wrote(n)
        assert ring.leaves.digest() == whole(ring), n
    ring.leaves.require_whole("extras/memory")


@pytest.mark.parametrize("recipe", [EVIDENCE_RECIPE, MIX_RECIPE])
def test_it_is_asked_anew_where_all_else_stands(recipe: str) -> None:
    ring, model = memory(), nn.Linear(2, 2)
    objects = TrainingObjects(
        model, torch.optim.SGD(model.parameters(), lr=0.1), extras={"memory": ring}
    )
    reader, digester, summer = StateReader(objects), StateDigester(recipe), WordSummer()
    found = []
    for step in range(4):
        ring.add(**row(step))
        with torch.no_grad():
            model.weight.add_(1)
        state = reader.read()
        digests = summer.start(state).read() if recipe == MIX_RECIPE else digester.digest(state)
        for name, leaves in state.items():
            own = MIX_RECIPE if name == "extras/memory" else recipe
            assert digests[name] == digest_leaves(own, leaves)
        found.append((digests["extras/memory"], digests["params"]))
    assert reader._stands
    assert len(set(found)) == len({ring for ring, _ in found}) == 4


def test_the_values_are_where_they_belong() -> None:
    ring = memory(5)
    ring.extend(**rows(0, 3))
    ring.extend(**rows(3, 4))
    ring.add(**row(7))
    assert ring["action"].tolist() == [5, 6, 7, 3, 4]
    assert ring["obs"][:, 0].tolist() == [5, 6, 7, 3, 4]
    assert ring["frame"][2].unique().tolist() == [7]
    assert (ring.position, len(ring), ring.capacity) == (3, 5, 5)


def test_only_what_was_written_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    ring, seen = memory(5000), []
    ring.leaves.digest()

    class Counted(word_mix.Mixer):
        def sums(self, words: Any) -> Any:
            seen.append(len(words))
            return super().sums(words)

    monkeypatch.setattr(ring_leaves, "Mixer", Counted)
    ring.add(**row(1))
    ring.add(**row(2))
    assert ring.leaves.digest() == whole(ring)
    assert seen == [6]
    ring.leaves.digest()
    assert len(seen) == 1
    for n in range(0, 4096 * 2, 2):  # not one after the other
        ring.wrote(n % 5000)
    ring.wrote([3])
    assert len(ring.leaves._written) == 1  # type: ignore[attr-defined]
    assert ring.leaves.digest() == whole(ring)


def test_while_a_row_is_filled_only_words_are_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    ring, mixed = memory(600), []

    class Counted(word_mix.Mixer):
        def sums(self, words: Any) -> Any:
            mixed.append(len(words))
            return super().sums(words)

    ring.leaves.digest()
    monkeypatch.setattr(ring_leaves, "Mixer", Counted)
    for n in range(1, 4):
        ring.add(**row(n))
        assert ring.leaves.digest() == whole(ring)
    assert mixed == [6]
    ring["action"][0] = 9  # of which nobody told, beside what is written next
    ring.add(**row(4))
    assert ring.leaves.digest() == whole(ring)
    ring.extend(**rows(5, 2))  # more words than are exchanged one by one
    assert ring.leaves.digest() == whole(ring)
    assert mixed == [6] * 3
    ring.add(**row(7))
    ring.leaves.require_whole("extras/memory")
    ring["done"][1] = False
    with pytest.raises(UncapturedState, match="rows 0 to 511 of done"):
        ring.leaves.require_whole("extras/memory")


@pytest.mark.parametrize("make", [lambda: StateDigester(EVIDENCE_RECIPE), WordSummer])
def test_evidence_is_the_same_from_memory_and_from_a_file(make: Callable[[], Any]) -> None:
    ring = memory()
    ring.extend(**rows(5, 7))
    state = capture(objects(ring))
    assert isinstance(state["extras/memory"], dict)
    digester = make()
    live = digester.digest(state) if isinstance(digester, StateDigester) else digester.start(state)
    live = live if isinstance(live, dict) else live.read()
    entries, aliases = raw_components(*pack(state))["extras/memory"]
    recipe = evidence_recipe(EVIDENCE_RECIPE, entries[""])
    assert recipe == MIX_RECIPE
    assert digests_raw((recipe,), entries, aliases) == (live["extras/memory"],)
    for text in (b"{}", b'{"$":"dict","keys":["a","auditkit.RingBuffer"],', None):
        assert evidence_recipe(EVIDENCE_RECIPE, text) == EVIDENCE_RECIPE


def objects(ring: Any) -> TrainingObjects:
    model = nn.Linear(2, 2)
    return TrainingObjects(
        model, torch.optim.SGD(model.parameters(), lr=0.1), extras={"memory": ring}
    )


class Saying(RingBuffer):
    """Says more than what it holds."""

    n_said = 0

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "said": self.n_said}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.n_said = state_dict["said"]


class Handing:
    """Has a ring buffer, and nothing besides."""

    def __init__(self) -> None:
        self.ring = memory()
        self.state_dict, self.load_state_dict = self.ring.state_dict, self.ring.load_state_dict


@pytest.mark.parametrize("make", [lambda: Saying({"x": np.zeros(3)}), Handing])
@pytest.mark.parametrize("plan", [EVIDENCE_RECIPE, MIX_RECIPE])
def test_evidence_of_what_is_around_it_is_that_of_the_file(
    make: Callable[[], Any], plan: str
) -> None:
    extra = make()
    if isinstance(extra, Saying):
        extra.n_said = 7
    state = capture(objects(extra))
    digests = WordSummer().start(state).read() if plan == MIX_RECIPE else None
    live = (digests or StateDigester(plan).digest(state))["extras/memory"]
    entries, aliases = raw_components(*pack(state))["extras/memory"]
    recipe = evidence_recipe(plan, entries[""])
    assert digests_raw((recipe,), entries, aliases) == (live,)
    again = make()
    restore(objects(again), dict(unpack(*pack(state))))
    assert getattr(again, "n_said", 7) == 7


@pytest.mark.parametrize("stands", [(-1, 0), (300, 0), (0, -1), (0, 301)])
def test_a_place_that_there_is_not_is_refused(stands: tuple[int, int]) -> None:
    ring = memory()
    saved = copy.deepcopy(ring.state_dict())
    for name, number in zip(("position", "filled"), stands, strict=True):
        saved["auditkit.RingBuffer"][name][:] = number
    with pytest.raises(RestoreMismatch, match="cannot stand there"):
        ring.load_state_dict(saved)


def test_it_is_restored() -> None:
    one, other = memory(), memory()
    one.extend(**rows(0, 200))
    one.extend(**rows(200, 150))
    saved = dict(unpack(*pack(capture(objects(one)))))
    restore(objects(other), saved)
    assert other.leaves.digest() == one.leaves.digest() == whole(other)
    assert (other.position, len(other)) == (50, 300)
    with pytest.raises(RestoreMismatch, match="other arrays"):
        restore(objects(memory(7)), saved)
    for foreign in ({"x": 1}, None):
        with pytest.raises(RestoreMismatch, match="no state of a ring buffer"):
            other.load_state_dict(foreign)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda ring: ring["obs"].__setitem__(250, 5), r"rows 213 to 255 of obs"),
        (lambda ring: ring["done"].__setitem__(299, True), r"rows 0 to 299 of done"),
        (lambda ring: ring["action"].__setitem__(70, 1), r"rows 64 to 127 of action"),
        (lambda ring: ring["frame"][299, 8].fill_(1), r"rows 298 to 299 of frame"),
        (lambda ring: ring._counts.__setitem__(0, 3), r"rows 0 to 0 of position"),
    ],
)
def test_a_write_past_it_is_found_with_its_rows(
    write: Callable[[RingBuffer], None], found: str
) -> None:
    ring = memory()
    ring.extend(**rows(0, 10))
    state = capture(objects(ring))
    commitments(state)
    write(ring)
    with pytest.raises(UncapturedState, match=found) as raised:
        commitments(state)
    assert raised.value.component == "extras/memory"
    ring.wrote()
    commitments(state)


def test_arrays_of_another_class_are_told_of() -> None:
    obs, done = np.zeros((100, 4), np.float64), torch.zeros(100, 2, dtype=torch.bool)
    ring = RingBuffer({"observations": obs, "dones": done})
    before = ring.leaves.digest()
    obs[7], done[99] = 1.0, True
    assert ring.leaves.digest() == before
    ring.wrote(7)
    ring.wrote(slice(98, None))
    assert before != ring.leaves.digest() == whole(ring)
    several: list[Any] = [-1, [1, 2], np.array([3]), slice(9, 2, -1), slice(5, 2)]
    for one in (*several, torch.tensor([4])):
        ring.wrote(one)
    ring.leaves.require_whole("extras/memory")


def test_a_copy_is_one_of_its_own() -> None:
    ring = memory()
    ring.extend(**rows(0, 7))
    other = copy.deepcopy(ring)
    assert other.leaves.digest() == ring.leaves.digest() == whole(other)
    other.add(**row(9))
    assert (ring.position, other.position, ring["action"][7]) == (7, 8, 0)
    ring.leaves.require_whole("extras/memory")
    assert other.leaves.digest() != ring.leaves.digest()


def test_memory_that_was_replaced_is_refused() -> None:
    array = torch.zeros(4, 3)
    ring = RingBuffer({"x": array})
    ring.leaves.digest()
    array.set_(torch.ones(12).untyped_storage(), 0, (4, 3), (3, 1))
    ring.wrote(0)
    with pytest.raises(UncapturedState, match="other memory"):
        ring.leaves.digest()


BAD: dict[str, Callable[[], object]] = {
    "nothing": lambda: RingBuffer({}),
    "no rows": lambda: RingBuffer({"x": np.zeros((0, 3))}),
    "other counts": lambda: RingBuffer({"x": np.zeros(3), "y": np.zeros(4)}),
    "a scalar": lambda: RingBuffer({"x": torch.tensor(1.0)}),
    "a list": lambda: RingBuffer({"x": [1, 2]}),  # type: ignore[dict-item]
    "no names": lambda: RingBuffer(np.zeros(3)),  # type: ignore[arg-type]
    "a number's name": lambda: RingBuffer({1: np.zeros(3)}),  # type: ignore[dict-item]
    "objects": lambda: RingBuffer({"x": np.array([None])}),
    "text": lambda: RingBuffer({"x": np.array(["a"])}),
    "read only": lambda: RingBuffer({"x": np.broadcast_to(np.zeros(1), 3)}),
    "strided": lambda: RingBuffer({"x": np.zeros(6)[::2]}),
    "backwards": lambda: RingBuffer({"x": np.zeros(6)[::-1]}),
    "a parameter": lambda: RingBuffer({"x": nn.Parameter(torch.ones(2))}),
    "trained": lambda: RingBuffer({"x": torch.ones(2, requires_grad=True)}),
    "sparse": lambda: RingBuffer({"x": torch.ones(2).to_sparse()}),
    "meta": lambda: RingBuffer({"x": torch.ones(2, device="meta")}),
    "no capacity": lambda: RingBuffer.zeros(-1, x=((), "float32")),
    "no dtype": lambda: RingBuffer.zeros(3, x=((), "float33")),
    "no shape": lambda: RingBuffer.zeros(3, x=(2, "float32")),  # type: ignore[arg-type]
    "no field": lambda: RingBuffer.zeros(3),
    "too large": lambda: RingBuffer.zeros(2**50, x=((2**20,), "float32")),
    "a name less": lambda: memory(3).add(obs=1),
    "a name more": lambda: memory(3).add(**row(1), more=2),
    "a shape": lambda: memory(3).add(**{**row(1), "obs": [1, 2]}),
    "a kind": lambda: memory(3).add(**{**row(1), "action": "two"}),
    "too many": lambda: memory(3).extend(**rows(0, 4)),
    "unequal": lambda: memory(3).extend(**{**rows(0, 2), "done": [True]}),
    "no lengths": lambda: memory(3).extend(**row(0)),
    "no row": lambda: memory(3).wrote(3),
    "no whole number": lambda: memory(3).wrote(1.5),  # type: ignore[arg-type]
    "nor several": lambda: memory(3).wrote([0, "a"]),  # type: ignore[list-item]
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_ring_buffer_or_row_is_refused(case: str) -> None:
    with pytest.raises((UsageError, UncapturedState)) as raised:
        BAD[case]()
    assert isinstance(raised.value, AuditError)


def test_it_is_said_how_many_values_there_were() -> None:
    with pytest.raises(UsageError) as raised:
        memory(3).extend(**{**rows(0, 2), "done": [True], "action": 1})
    assert raised.value.found == "obs 2, done 1, action no length, frame 2"


def test_a_row_that_did_not_fit_leaves_the_digest_right() -> None:
    ring = memory(3)
    ring.leaves.digest()
    with pytest.raises(UsageError, match="action cannot be written"):
        ring.add(**{**row(1), "action": "two"})
    ring.leaves.require_whole("extras/memory")
    assert ring.leaves.digest() == whole(ring)
