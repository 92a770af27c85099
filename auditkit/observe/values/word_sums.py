"""Evidence of a state by the recipe ``int64-mix/1``, made where the tensors lie.

The sums of :mod:`auditkit.formats.word_mix` in plain torch operations on whole numbers, of all
tensors of a device in a few passes. Nothing here waits for a device: what comes back are the sums,
16 bytes a tensor, which are read when their row is written (:meth:`Unread.read`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain

import numpy as np
import torch
import xxhash
from torch import Tensor

from auditkit.errors import UncapturedState
from auditkit.formats import word_mix
from auditkit.formats.recipes import alias_frame, frame, json_frame
from auditkit.formats.word_mix import COLUMNS, ROW_BYTES
from auditkit.observe.values.summed import SummedLeaves
from auditkit.observe.values.tensors import (
    COPYABLE,
    DTYPE_NAMES,
    Leaves,
    alias_names,
    refuse_unknown,
)

State = Mapping[str, Leaves]

#: Bytes that are laid one after the other, and so copied, at a time.
_LAID_OUT = 2**28

#: Rows that are mixed at a time: of a processor those that stay in its cache.
_ROWS_AT_ONCE, _ROWS_AT_ONCE_ELSEWHERE = 1024, 2**18

#: Layouts that are kept: a loop that accumulates gradients has two.
_KEPT = 4

#: What is copied one after the other as it is; others are as whole numbers of their size.
_JOINED_AS_THEY_ARE = frozenset(
    (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32)
)

_FACTORS = tuple(factor - 2**64 for factor in word_mix.FACTORS)


class WordSummer:
    """Digests the components of a state again and again.

    What does not hang on the contents, which are the frames and how the tensors are laid out, is
    kept while every tensor has the class, shape, dtype, device and way to lie that it had, and the
    same ones share their memory.
    """

    def __init__(self) -> None:
        self._layouts: dict[object, _Layout] = {}
        self._texts: dict[str, tuple[str, bytes, bytes]] = {}

    def start(self, state: State) -> Unread:
        """Begin the digests of the components as they are now.

        Args:
            state: Components by name. The mappings may be other objects at every call.

        Returns:
            What gives them; the state may change from now on.

        Raises:
            UncapturedState: A tensor that is not plain strided memory; ``where`` names it.
            FormatError: A name that is no Unicode text.
        """
        known = {name: self._known(name, leaves) for name, leaves in state.items()}
        others = {name: state[name] for name, digest in known.items() if not digest}
        if not others:
            return Unread(known, {}, [])
        key = tuple((name, *leaves) for name, leaves in others.items())
        layout = self._layouts.pop(key, None)
        tensors = _tensors(others)
        forms = _Forms.of(tensors)
        if layout is None or forms is None or layout.forms != forms:
            layout = _Layout(others, forms)
        self._layouts[key] = layout
        if len(self._layouts) > _KEPT:
            del self._layouts[next(iter(self._layouts))]
        heads = {name: head.filled(others[name]) for name, head in layout.heads.items()}
        return Unread(known, heads, [one.sums(tensors) for one in layout.passes])

    def _known(self, name: str, leaves: Leaves) -> bytes:
        """A digest that takes no pass over tensors, or nothing."""
        if isinstance(leaves, SummedLeaves):
            return leaves.digest()
        if len(leaves) != 1:
            return b""
        ((entry, text),) = leaves.items()
        if type(text) is not bytes:
            return b""
        known = self._texts.get(name)
        if known is None or known[0] != entry or known[1] != text:
            stream = json_frame(entry, len(text)) + text
            known = self._texts[name] = (entry, text, xxhash.xxh3_128_digest(stream))
        return known[2]


@dataclass
class Unread:
    """Digests whose sums may be still under way on a device.

    Attributes:
        known: Digests that are there already, in the state's order, and nothing for others.
        heads: Of the others, their streams without the sums.
        sums: What the passes give.
    """

    known: dict[str, bytes]
    heads: dict[str, _Filled]
    sums: list[_Sums]
    _digests: dict[str, bytes] | None = field(default=None, init=False)

    def read(self) -> dict[str, bytes]:
        """The digests, by component; waits for the sums, and for nothing that came after them."""
        if self._digests is None:
            found = {slot: one for sums in self.sums for slot, one in sums.read()}
            self._digests = {
                name: digest or self.heads[name].digest(found)
                for name, digest in self.known.items()
            }
            self.heads, self.sums = {}, []
        return self._digests


def _tensors(state: State) -> list[Tensor]:
    every = chain.from_iterable(leaves.values() for leaves in state.values())
    return [leaf for leaf in every if not isinstance(leaf, bytes)]


@dataclass(frozen=True)
class _Forms:
    """What a layout depends on: how tensors are, and which of them begin at one address."""

    columns: tuple[list[object], ...]

    @classmethod
    def of(cls, tensors: list[Tensor]) -> _Forms | None:
        """The forms of these tensors; None where one of them has none of its own."""
        try:
            addresses = list(map(Tensor.data_ptr, tensors))
            first: dict[int, int] = {}
            shared = [first.setdefault(address, n) for n, address in enumerate(addresses)]
            dtypes = [tensor.dtype for tensor in tensors]
            return cls(
                (
                    list(map(type, tensors)),
                    list(map(Tensor.size, tensors)),
                    dtypes,  # type: ignore[arg-type]
                    [tensor.device for tensor in tensors],
                    list(map(Tensor.is_contiguous, tensors)),
                    list(map(Tensor.is_neg, tensors)),
                    list(map(torch.is_conj, tensors)) if _has_complex(dtypes) else [],
                    [*shared, 0 in first],
                )
            )
        except (RuntimeError, ValueError):  # sparse, nested, not initialised: refused by name
            return None


def _has_complex(dtypes: Sequence[torch.dtype]) -> bool:
    return any(dtype.is_complex for dtype in set(dtypes))


class _Layout:
    """How a state's tensors are laid out for the passes over them.

    Args:
        state: The components.
        forms: Of their tensors, in order.

    Attributes:
        forms: As given.
        heads: Of each component, its stream without sums.
        passes: Over the tensors; each is of one device.

    Raises:
        UncapturedState: A tensor that is not plain strided memory.
    """

    def __init__(self, state: State, forms: _Forms | None) -> None:
        self.forms = forms
        self.heads: dict[str, _Head] = {}
        slots: list[tuple[int, Tensor]] = []
        place = 0
        for component, leaves in state.items():
            places = {}
            for name, leaf in leaves.items():
                if isinstance(leaf, Tensor):
                    _refuse(leaf, name)
                    places[name] = place
                    place += 1
            aliases = alias_names(leaves)
            self.heads[component] = _Head(leaves, aliases, places)
            slots += [
                (places[name], leaf)
                for name, leaf in leaves.items()
                if isinstance(leaf, Tensor) and leaf.numel() and name not in aliases
            ]
        self.passes = list(_passes(slots))


def _refuse(tensor: Tensor, name: str) -> None:
    refuse_unknown(tensor, name)
    if tensor.numel() and not tensor.data_ptr():
        raise UncapturedState("a tensor whose memory was freed cannot be captured", where=name)


class _Head:
    """The stream of a component: its pieces, with places for texts and for sums."""

    def __init__(
        self, leaves: Leaves, aliases: Mapping[str, str], places: Mapping[str, int]
    ) -> None:
        self._pieces: list[bytes] = []
        self._texts: list[tuple[int, str]] = []
        self._sums: list[tuple[int, int]] = []
        for name in sorted(leaves):
            leaf = leaves[name]
            if name in aliases:
                self._pieces.append(alias_frame(name, aliases[name]))
                continue
            if not isinstance(leaf, Tensor):
                self._texts.append((len(self._pieces), name))
                self._pieces += (b"", b"")
                continue
            self._pieces.append(frame(name, DTYPE_NAMES[leaf.dtype], leaf.shape, leaf.nbytes))
            if leaf.numel():
                self._sums.append((len(self._pieces), places[name]))
                self._pieces.append(b"")

    def filled(self, leaves: Leaves) -> _Filled:
        """The stream with the texts as they are now."""
        pieces = self._pieces.copy()
        for place, name in self._texts:
            text = leaves[name]
            assert isinstance(text, bytes)  # noqa: S101 # the layout is kept by the tensors' names
            pieces[place : place + 2] = (json_frame(name, len(text)), text)
        return _Filled(pieces, self._sums)


@dataclass(frozen=True)
class _Filled:
    pieces: list[bytes]
    sums: list[tuple[int, int]]

    def digest(self, found: Mapping[int, bytes]) -> bytes:
        """The digest, with the sums that were found, by their tensors' numbers."""
        for place, number in self.sums:
            self.pieces[place] = found[number]
        return xxhash.xxh3_128_digest(b"".join(self.pieces))


def _passes(slots: Sequence[tuple[int, Tensor]]) -> Iterator[_Pass]:
    """Passes over tensors of one device each, of so many bytes at most, or of one tensor."""
    by_device: dict[torch.device, list[tuple[int, Tensor]]] = {}
    for slot in slots:
        by_device.setdefault(slot[1].device, []).append(slot)
    for device, found in by_device.items():
        taken: list[tuple[int, Tensor]] = []
        size = 0
        for slot in found:
            if taken and size + slot[1].nbytes > _LAID_OUT:
                yield _Pass(taken, device)
                taken, size = [], 0
            taken.append(slot)
            size += slot[1].nbytes
        yield _Pass(taken, device)


class _Pass:
    """A pass over tensors of one device.

    Args:
        slots: Number and form of each tensor.
        device: Where they lie.
    """

    def __init__(self, slots: Sequence[tuple[int, Tensor]], device: torch.device) -> None:
        # Tensors of one kind lie together: their sums do not hang on where they lie.
        slots = sorted(slots, key=lambda slot: str(_joined_as(slot[1].dtype)))
        self._numbers = [number for number, _ in slots]
        rows = [-(-tensor.nbytes // ROW_BYTES) for _, tensor in slots]
        factors = [word_mix.multipliers(0, count) for count in rows]
        host = torch.from_numpy(np.concatenate(factors).view(np.int64)).view(-1, 1)
        self._factors = host.to(device)
        self._keys = torch.from_numpy(word_mix.KEYS.view(np.int64)).to(device)
        self._ends = (torch.tensor(rows).cumsum(0) - 1).to(device)
        self._runs: list[tuple[torch.dtype, list[Tensor | None], list[tuple[int, int, bool]]]] = []
        for number, tensor in slots:
            self._append(number, tensor, device)

    def _append(self, number: int, tensor: Tensor, device: torch.device) -> None:
        dtype = _joined_as(tensor.dtype)
        if not self._runs or self._runs[-1][0] != dtype:
            self._runs.append((dtype, [], []))
        _, pieces, places = self._runs[-1]
        is_other = tensor.dtype != dtype or not tensor.is_contiguous()
        places.append((len(pieces), number, is_other or tensor.is_neg() or tensor.is_conj()))
        pieces.append(None)
        missing = -tensor.nbytes % ROW_BYTES // dtype.itemsize
        if missing:
            pieces.append(_zeros(missing, dtype, device))

    def sums(self, tensors: Sequence[Tensor]) -> _Sums:
        """Begin the sums of the tensors, of which each has the form that it had."""
        with torch.no_grad(), torch.inference_mode(mode=False):
            runs = []
            for dtype, template, places in self._runs:
                pieces = template.copy()
                for place, number, is_other in places:
                    tensor = tensors[number]
                    pieces[place] = _plain(tensor, dtype) if is_other else tensor
                runs.append(_joined(pieces).view(torch.int64))  # type: ignore[arg-type]
            words = runs[0] if len(runs) == 1 else torch.cat(runs)
            by_row = self._mixed(words.view(-1, COLUMNS))
            totals = by_row.cumsum(1).index_select(1, self._ends)
            found = torch.diff(totals, dim=1, prepend=totals.new_zeros(2, 1))
            return _Sums(self._numbers, found.t().contiguous())

    def _mixed(self, words: Tensor) -> Tensor:
        """Both sums of each row, (2, n)."""
        n_rows, is_here = len(words), words.is_cpu
        at_once = min(_ROWS_AT_ONCE if is_here else _ROWS_AT_ONCE_ELSEWHERE, n_rows)
        found = words.new_empty(2, n_rows)
        buffer = words.new_empty(at_once, COLUMNS)
        for start in range(0, n_rows, at_once):
            stop = min(start + at_once, n_rows)
            x = buffer[: stop - start]
            torch.bitwise_xor(words[start:stop], self._keys, out=x)
            x.mul_(self._factors[start:stop])
            # x ^= x >> 32 without the sign: the upper half of each word enters its lower half.
            halves = x.view(torch.int32).view(-1, 2)
            low, high = halves[:, 0], halves[:, 1]
            low.bitwise_xor_(high)
            x.mul_(_FACTORS[0])
            low.bitwise_xor_(high)
            x.mul_(_FACTORS[1])
            low.bitwise_xor_(high)
            torch.sum(x, 1, out=found[0, start:stop])
            x.mul_(_FACTORS[2])
            low.bitwise_xor_(high)
            torch.sum(x, 1, out=found[1, start:stop])
        return found


class _Sums:
    """The sums of a pass, on their way to the host."""

    def __init__(self, numbers: Sequence[int], found: Tensor) -> None:
        self._numbers, self._event = numbers, None
        if not found.is_cuda:
            self._found = found
            return
        self._found = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
        self._found.copy_(found, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record(torch.cuda.current_stream(found.device))

    def read(self) -> Iterator[tuple[int, bytes]]:
        """Of each tensor its number and its two sums."""
        if self._event is not None:
            self._event.synchronize()
        data = self._found.cpu().numpy().astype("<i8", copy=False).tobytes()
        for place, number in enumerate(self._numbers):
            yield number, data[16 * place : 16 * place + 16]


def _joined(pieces: list[Tensor]) -> Tensor:
    """Tensors of one dtype, one after the other; one alone is not copied."""
    joined: Tensor = torch._C._nn.flatten_dense_tensors(pieces)
    is_aligned = not (joined.data_ptr() % 8 or joined.storage_offset() * joined.itemsize % 8)
    return joined if is_aligned else joined.clone()


def _joined_as(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in _JOINED_AS_THEY_ARE else COPYABLE[dtype.itemsize]


def _plain(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor's elements as they are digested, in row-major order."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    if not plain.is_contiguous():
        plain = plain.view(COPYABLE[plain.itemsize]).contiguous()
    return plain.view(dtype)


@lru_cache(maxsize=4096)
def _zeros(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.zeros(count, dtype=dtype, device=device)
