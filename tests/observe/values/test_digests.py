from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from auditkit.errors import FormatError, UncapturedState
from auditkit.formats.recipes import digest_raw
from auditkit.formats.snapshot_file import raw_components
from auditkit.observe.values import digests
from auditkit.observe.values.beside import all_at_once
from auditkit.observe.values.codec import pack
from auditkit.observe.values.digests import StateDigester, commitments, digest_leaves
from auditkit.observe.values.tensors import DTYPE_NAMES, DTYPES, KeptLeaves, Leaves, host_bytes
from auditkit.records.digest import COMMITMENT_RECIPE, EVIDENCE_RECIPE, MIX_RECIPE
from auditkit.records.tensor import RawTensor

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


class ComponentDigester(StateDigester):
    """Of a state with one component."""

    def of(self, leaves: Leaves) -> bytes:
        return self.digest({"component": leaves})["component"]


def random_bytes(dtype: torch.dtype, *shape: int) -> Tensor:
    """Random bit patterns, NaNs included."""
    generator = torch.Generator().manual_seed(sum(shape))
    top = 2 if dtype is torch.bool else 256
    width = (*shape[:-1], shape[-1] * dtype.itemsize)
    return torch.randint(0, top, width, dtype=torch.uint8, generator=generator).view(dtype)


def every_kind() -> dict[str, Tensor]:
    """Tensors of every dtype and every way to lie in memory."""
    kinds = {name: random_bytes(dtype, 3, 4) for name, dtype in DTYPES.items()}
    base = torch.randn(2, 3, 4, 5)
    z = torch.randn(3, 2, dtype=torch.complex64)
    with torch.inference_mode():
        inference = torch.randn(3)
    return kinds | {
        "0-dim": torch.tensor(2.5),
        "empty": torch.empty(3, 0, 2),
        "transposed": base.transpose(1, 3),
        "slice": base[:, 1:2],
        "strided": base[..., ::2],
        "channels-last": base.contiguous(memory_format=torch.channels_last),
        "expanded": torch.randn(3, 1).expand(3, 4),
        "overlapping": torch.arange(10.0).as_strided((4, 3), (2, 1)),
        "conj": z.conj(),
        "conj-transposed": z.mH,
        "neg": z.conj().imag,
        "parameter": nn.Parameter(torch.randn(4)),
        "non-leaf": nn.Parameter(torch.randn(4)) * 2,
        "inference": inference,
        "offset": torch.randn(9)[1:],
    }


def raw(tensor: Tensor) -> RawTensor:
    """The content by another way than the code's: element by element."""
    values = tensor.detach().resolve_conj().resolve_neg()
    flat = [values[index].clone() for index in _indices(tuple(values.shape))]
    data = b"".join(bytes(one.view(torch.uint8).tolist()) for one in map(_as_row, flat))
    return RawTensor(DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), data)


def _as_row(scalar: Tensor) -> Tensor:
    return scalar.reshape(1)


def _indices(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = [()]
    for size in shape:
        found = [(*index, n) for index in found for n in range(size)]
    return found


@pytest.mark.parametrize("recipe", [EVIDENCE_RECIPE, COMMITMENT_RECIPE])
def test_every_kind_of_tensor_is_digested_by_its_content(recipe: str) -> None:
    tensors = every_kind()
    for name, tensor in tensors.items():
        expected = digest_raw(recipe, {name: raw(tensor)}, {})
        assert digest_leaves(recipe, {name: tensor}) == expected, name
        digester = ComponentDigester(recipe)
        assert [digester.of({name: tensor}) for _ in range(3)] == [expected] * 3, name
    together: Leaves = {**tensors, "": b"[1]"}
    entries = {name: raw(tensor) for name, tensor in tensors.items()}
    expected = digest_raw(recipe, {**entries, "": b"[1]"}, {})
    digester = ComponentDigester(recipe)
    assert digest_leaves(recipe, together) == expected
    assert [digester.of(together) for _ in range(2)] == [expected] * 2


def test_digests_of_a_packed_state_need_no_torch() -> None:
    tied = torch.randn(3, 3)
    state: dict[str, Leaves] = {
        "params": {**every_kind(), "z-tied": tied, "y-tied": tied, "other-view": tied.t()},
        "rng/python": {
            "": b'{"$":"tuple","items":[1,2]}',
            "large": b"[%s]" % b",".join([b"1"] * 9999),
        },
        "empty": {},
    }
    parts = raw_components(*pack(state))
    assert set(parts) == set(state)
    assert parts["params"][1] == {"z-tied": "y-tied"}
    for name, leaves in state.items():
        for recipe in (EVIDENCE_RECIPE, COMMITMENT_RECIPE):
            assert digest_raw(recipe, *parts[name]) == digest_leaves(recipe, leaves)


@given(
    st.sampled_from(sorted(DTYPES)),
    st.lists(st.integers(0, 3), max_size=4),
    st.randoms(use_true_random=False),
)
def test_any_shape_and_dtype(name: str, shape: list[int], random: object) -> None:
    dtype = DTYPES[name]
    tensor = random_bytes(dtype, *shape, 1)[..., 0] if shape else random_bytes(dtype, 1)[0]
    order = list(range(tensor.ndim))
    random.shuffle(order)  # type: ignore[attr-defined]
    tensor = tensor.permute(order)
    expected = digest_raw(EVIDENCE_RECIPE, {"x": raw(tensor)}, {})
    assert digest_leaves(EVIDENCE_RECIPE, {"x": tensor}) == expected


def test_every_bit_flip_changes_the_digest() -> None:
    content = torch.randn(5)
    digester = ComponentDigester(EVIDENCE_RECIPE)
    seen = {digester.of({"x": content})}
    flat = content.view(torch.uint8)
    for byte in range(flat.numel()):
        for bit in range(8):
            flat[byte] ^= 1 << bit
            seen.add(digester.of({"x": content}))
            assert digester.of({"x": content}) == digest_leaves(EVIDENCE_RECIPE, {"x": content})
            flat[byte] ^= 1 << bit
    assert len(seen) == 1 + 8 * flat.numel()


def test_permutation_negation_and_doubling_change_the_digest() -> None:
    base = torch.arange(1.0, 9.0)
    negated = base.clone()
    negated[[1, 3]] *= -1
    variants = [
        base,
        base.flip(0),
        base.roll(1),
        negated,
        -base,
        base * 2,
        base[torch.randperm(8, generator=torch.Generator().manual_seed(0))],
        base.reshape(2, 4),
        base.double(),
    ]
    assert len({digest_leaves(EVIDENCE_RECIPE, {"x": x}) for x in variants}) == len(variants)
    zeros = torch.tensor([0.0]), torch.tensor([-0.0])
    assert len({digest_leaves(EVIDENCE_RECIPE, {"x": x}) for x in zeros}) == 2


def test_strides_do_not_enter_but_names_do() -> None:
    x = torch.randn(2, 3, 4, 4)
    last = x.contiguous(memory_format=torch.channels_last)
    assert digest_leaves(EVIDENCE_RECIPE, {"x": x}) == digest_leaves(EVIDENCE_RECIPE, {"x": last})
    assert digest_leaves(EVIDENCE_RECIPE, {"x": x}) != digest_leaves(EVIDENCE_RECIPE, {"y": x})
    y = x.clone()
    one, two = {"a": x, "b": y + 1}, {"b": y + 1, "a": x}
    assert digest_leaves(EVIDENCE_RECIPE, one) == digest_leaves(EVIDENCE_RECIPE, two)


def test_tied_memory_is_another_component_than_equal_memory() -> None:
    x = torch.randn(3, 3)
    tied, untied = {"a": x, "b": x.view(3, 3)}, {"a": x, "b": x.clone()}
    assert digest_leaves(EVIDENCE_RECIPE, tied) != digest_leaves(EVIDENCE_RECIPE, untied)
    z = torch.randn(3, dtype=torch.complex64)
    entries = {"a": raw(z), "b": raw(z.conj())}
    expected = digest_raw(EVIDENCE_RECIPE, entries, {})
    assert digest_leaves(EVIDENCE_RECIPE, {"a": z, "b": z.conj()}) == expected
    empties = {"a": torch.empty(0), "b": torch.empty(0)}
    expected = digest_raw(EVIDENCE_RECIPE, {name: raw(one) for name, one in empties.items()}, {})
    assert digest_leaves(EVIDENCE_RECIPE, empties) == expected


class TestCache:
    """The cached digester against the uncached one, after everything that can happen."""

    def setup_method(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
        self.digester = ComponentDigester(EVIDENCE_RECIPE)
        self.seen: set[bytes] = set()

    def check(self, leaves: Leaves | None = None, *, is_new: bool = True) -> None:
        leaves = dict(self.model.named_parameters()) if leaves is None else leaves
        found = self.digester.of(leaves)
        assert found == digest_leaves(EVIDENCE_RECIPE, leaves)
        assert self.digester.of(leaves) == found
        assert (found not in self.seen) == is_new
        self.seen.add(found)

    def test_training_in_place(self) -> None:
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            self.check()
            self.model(torch.randn(8, 4)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            self.check(self.model.state_dict())

    def test_new_memory(self) -> None:
        self.check()
        weight = self.model[0].weight
        assert isinstance(weight, Tensor)
        weight.data = torch.randn(4, 4)
        self.check()
        self.model.load_state_dict(
            {name: x + 1 for name, x in self.model.state_dict().items()}, assign=True
        )
        self.check()
        self.model.load_state_dict({name: x * 2 for name, x in self.model.state_dict().items()})
        self.check()

    def test_the_same_memory_in_another_form(self) -> None:
        x = nn.Parameter(torch.randn(4, 4))
        self.check({"x": x})
        base = x.data
        for form in (
            base.t(),
            base.view(2, 8),
            base.view(16),
            base[:2],
            base.view(torch.int32),
            torch._neg_view(base),
        ):
            self.check({"x": form})
            x.data = base
            self.check({"x": x}, is_new=False)
            if form.dtype is base.dtype:
                x.data = form
                self.check({"x": x}, is_new=False)
        plain = torch.randn(4)
        for one in (plain, plain.view(torch.int32), plain.view(2, 2), plain.view(4, 1)):
            self.check({"x": one})
        z = torch.randn(3, dtype=torch.complex64)
        self.check({"x": z})
        self.check({"x": z.conj()})
        self.check({"x": z}, is_new=False)

    def test_memory_is_read_where_it_lies_and_not_kept(self) -> None:
        for _ in range(50):  # the allocator reuses the address at once
            self.check({"x": torch.randn(64)})
        x = torch.randn(64)
        gone = weakref.ref(x.untyped_storage())
        self.digester.of({"x": x})
        del x
        gc.collect()
        assert gone() is None

    def test_memory_that_was_freed_is_refused(self) -> None:
        x = torch.randn(64)
        self.check({"x": x})
        x.untyped_storage().resize_(0)
        with pytest.raises(UncapturedState, match="freed"):
            self.digester.of({"x": x})

    def test_resized_memory(self) -> None:
        x = torch.randn(64)
        self.check({"x": x})
        x.resize_(1 << 16).normal_()  # a storage that numpy has seen would refuse
        self.check({"x": x})
        storage = x.untyped_storage()
        size = storage.nbytes()
        storage.resize_(0)
        storage.resize_(size)
        x.fill_(3.0)
        self.check({"x": x})

    def test_entries_come_and_go(self) -> None:
        a, b = torch.randn(3), torch.randn(3)
        self.check({"a": a})
        self.check({"a": a, "b": b})
        self.check({"a": a, "c": b})
        self.check({"a": b, "c": a})
        self.check({"a": a, "c": b"null"})
        self.check({"a": a, "c": b"[1,2]"})
        self.check({"a": a, "c": b"null"}, is_new=False)
        self.check({"c": b, "a": a}, is_new=False)
        self.check({"a": b"null", "c": b"null"})
        self.check({})

    def test_tying_and_untying(self) -> None:
        a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        self.check({"a": a, "b": b})
        b.data = a.data
        self.check({"a": a, "b": b})
        with torch.no_grad():
            a.add_(1)
        self.check({"a": a, "b": b})
        b.data = a.data.clone()
        self.check({"a": a, "b": b})
        wide = torch.randn(3, 4)[:, ::2]
        self.check({"a": wide, "b": wide})
        self.check({"a": wide, "b": wide.clone()})

    def test_tensors_that_are_copied_each_time(self) -> None:
        base = torch.randn(3, 4)
        leaves = {"strided": base[:, ::2], "empty": torch.empty(0)}
        self.check(leaves)
        base.add_(1)
        self.check(leaves)
        self.check({"strided": base[:, ::2], "empty": torch.empty(1, 0)})

    def test_in_inference_mode(self) -> None:
        self.check()
        with torch.inference_mode():
            self.check(is_new=False)
            self.check({"x": torch.randn(3)})
        with torch.no_grad():
            self.check(is_new=False)


def test_components_change_each_by_itself() -> None:
    torch.manual_seed(0)
    digester = StateDigester(EVIDENCE_RECIPE)
    state: dict[str, Leaves] = {
        "params": {"a": nn.Parameter(torch.randn(3)), "b": torch.randn(2, 2)},
        "rng": {"": b"[1]"},
        "grad": {"a": torch.randn(3)},
        "strided": {"a": torch.randn(3, 4)[:, ::2]},
        "mixed": {"": b"[2]", "a": torch.randn(2)},
    }
    changes: list[dict[str, Leaves]] = [
        {},
        {"grad": {"a": torch.randn(3)}},
        {"rng": {"": b"[1,2]"}},
        {"rng": {"text": b"[1,2]"}},
        {"rng": {"": torch.randn(2)}},
        {"grad": {"a": torch.randn(4)}, "mixed": {"": b"[3]", "a": torch.randn(2)}},
        {"strided": {"a": torch.randn(3, 4)[:, ::2]}, "new": {"a": torch.randn(2)}},
    ]
    for change in changes:
        state = {**state, **change}
        for _ in range(2):
            expected = {name: digest_leaves(EVIDENCE_RECIPE, state[name]) for name in state}
            assert digester.digest(state) == expected
    shown = {name: state[name] for name in ("new", "params")}  # others are gone, in another order
    assert digester.digest(shown) == {
        name: digest_leaves(EVIDENCE_RECIPE, shown[name]) for name in shown
    }


def test_components_that_come_and_go_are_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Mapping[str, Leaves]] = []
    digester, random = StateDigester(EVIDENCE_RECIPE), Random(0)
    make = digester._made

    def counted(state: Mapping[str, Leaves]) -> Any:
        made.append(state)
        return make(state)

    monkeypatch.setattr(digester, "_made", counted)

    def component(place: int) -> KeptLeaves:
        return KeptLeaves({"": b"[%d]" % place, "a": torch.full((3,), float(place))})

    kept = [component(place) for place in range(3)]
    text = [KeptLeaves({"": b"[%d]" % place}) for place in range(2)]
    last = torch.randn(3)
    for step in range(200):
        state: dict[str, Leaves] = {"params": random.choice(kept), "rng": random.choice(text)}
        if random.random() < 0.5:
            state["grad"] = {"a": random.choice([last, torch.randn(3)])}
        if random.random() < 0.2:
            state["slot"] = {"a": torch.randn(2), "b": torch.randn(2)}
        random.choice(kept)["a"].add_(1)  # type: ignore[union-attr]
        found = digester.digest(state)
        assert found == {name: digest_leaves(EVIDENCE_RECIPE, state[name]) for name in state}, step
        for name in ("params", "grad"):
            whole = digest_leaves(COMMITMENT_RECIPE, state.get(name, {}))
            assert digester.commitment(name, state.get(name, {})) == whole
    assert len(made) == 4
    wide: dict[str, Leaves] = {"params": {"a": torch.randn(4)}, "new": text[0]}
    for some in ({"params": kept[1]}, wide, {"params": kept[1]}):
        digester.digest(some)
    whole = digest_leaves(COMMITMENT_RECIPE, kept[1])
    assert digester.commitment("params", kept[1]) == whole
    gone = weakref.ref(last.untyped_storage())
    del last, state
    made.clear()
    digester.digest({"params": kept[0]})
    gc.collect()
    assert gone() is None


def bad_tensors() -> dict[str, Tensor]:
    return {
        "sparse": torch.eye(2).to_sparse(),
        "meta": torch.empty(2, device="meta"),
        "lazy": nn.LazyLinear(2).weight,
        "wrapper": _fake(),
    }


def _fake() -> Tensor:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.ones(2)


@pytest.mark.parametrize("kind", ["sparse", "meta", "lazy", "wrapper"])
def test_tensors_without_plain_memory_are_refused_by_name(kind: str) -> None:
    bad = bad_tensors()[kind]
    with pytest.raises(UncapturedState) as caught:
        digest_leaves(EVIDENCE_RECIPE, {"good": torch.ones(1), "layer.bad": bad})
    assert caught.value.where == "layer.bad"
    digester = ComponentDigester(EVIDENCE_RECIPE)
    digester.of({"layer.bad": torch.ones(2)})
    with pytest.raises(UncapturedState):
        digester.of({"layer.bad": bad})


def test_unknown_recipe_and_names_that_are_no_text() -> None:
    with pytest.raises(FormatError):
        ComponentDigester("md5/tensor-v1")
    with pytest.raises(FormatError):
        digest_leaves(EVIDENCE_RECIPE, {"\ud800": torch.ones(1)})


def test_views_are_not_copies() -> None:
    x = torch.zeros(4)
    view = host_bytes(x)
    x.fill_(1.0)
    assert bytes(view) == bytes(host_bytes(torch.ones(4)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_digest_of_the_host() -> None:
    host = {name: x for name, x in every_kind().items() if name != "inference"}
    device = {name: x.cuda() for name, x in host.items()}
    assert digest_leaves(COMMITMENT_RECIPE, device) == digest_leaves(COMMITMENT_RECIPE, host)
    digester = ComponentDigester(COMMITMENT_RECIPE)
    for _ in range(3):
        assert digester.of(device) == digest_leaves(COMMITMENT_RECIPE, host)
        device["0-dim"].add_(1)
        host["0-dim"].add_(1)


@pytest.mark.parametrize("recipe", [EVIDENCE_RECIPE, COMMITMENT_RECIPE, MIX_RECIPE])
def test_a_component_of_one_text_has_the_digest_of_any(recipe: str) -> None:
    digester = StateDigester(recipe)
    for text in (b'"a"', b'"b"', b'"longer"'):
        leaves: Leaves = {"é": text}
        assert digester.digest({"x": leaves}) == {"x": digest_leaves(recipe, leaves)}


@pytest.mark.parametrize("recipe", [EVIDENCE_RECIPE, COMMITMENT_RECIPE])
def test_large_components_are_hashed_at_once_and_have_the_same_digests(
    recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def spy(makes: Sequence[Callable[[], bytes]]) -> list[bytes]:
        counts.append(len(makes))
        return all_at_once(makes)

    monkeypatch.setattr(digests, "_LARGE", 4000)
    monkeypatch.setattr(digests, "all_at_once", spy)
    weight = torch.randn(2000)
    state: dict[str, Leaves] = {
        "params": {"w": weight, "tied": weight, "text": b"text"},
        "small": {"w": torch.randn(5)},
        "moments": {"w": torch.randn(40, 50), "v": torch.randn(2, 2000)},
        "copied": {"w": torch.randn(60, 50).t()},
        "ema": {"w": torch.randn(2000)},
    }
    digester = StateDigester(recipe)
    for _ in range(3):
        for leaves in state.values():
            leaves["w"].add_(1)  # type: ignore[union-attr]
        expected = {name: digest_leaves(recipe, leaves) for name, leaves in state.items()}
        assert digester.digest(state) == expected
        assert [*digester.digest(state)] == [*state]
    assert set(counts) == {3}
    commitment = {name: digest_leaves(COMMITMENT_RECIPE, one).hex() for name, one in state.items()}
    assert [*commitments(state).items()] == [*commitment.items()]
    assert len(counts) == 7
