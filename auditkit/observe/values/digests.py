"""Digests of components that live in torch.

`digest_leaves` is the recipe (:mod:`auditkit.formats.recipes`) word for word. `StateDigester`
gives the same digests where they are due at every step: what does not depend on the tensors'
contents, the frames and where their memory lies, is made once, and whether it still holds is
asked of all tensors at once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import cast

import torch

from auditkit.errors import UncapturedState
from auditkit.formats.recipes import (
    alias_frame,
    digest_bytes,
    evidence_recipe,
    frame,
    hasher,
    is_of_stream,
    json_frame,
    tensor_update,
)
from auditkit.formats.word_mix import WordMix
from auditkit.observe.values.forms import Forms
from auditkit.observe.values.summed import SummedLeaves, require_whole
from auditkit.observe.values.tensors import (
    DTYPE_NAMES,
    KeptLeaves,
    Leaves,
    MemoryKey,
    alias_names,
    host_bytes,
    memory_key,
    memory_view,
    refuse_unknown,
)
from auditkit.records.digest import COMMITMENT_RECIPE

#: A view without a hold on its memory; gradients come to lie in the same places again and again.
_view = functools.lru_cache(maxsize=16384)(memory_view)

#: Bytes of a component up to which its pieces are put together before they are hashed.
_JOINED = 1 << 15

#: Classes of which a glance tells whether they are plain memory.
_ORDINARY = (torch.Tensor, torch.nn.Parameter)


def digest_leaves(recipe: str, leaves: Leaves) -> bytes:
    """Digest of a component.

    Args:
        recipe: ``xxh3-128/tensor-v1``, ``sha256/tensor-v1`` or ``int64-mix/1``.
        leaves: The component.

    Returns:
        16 or 32 bytes: those of `auditkit.formats.recipes.digest_raw` for the same content.

    Raises:
        UncapturedState: A tensor that is not plain strided memory; ``where`` names it.
        FormatError: Unknown recipe, or a name that is no Unicode text.
    """
    hasher(recipe)  # refuses an unknown one
    return Stream(leaves).digest(recipe, leaves)


def commitments(state: Mapping[str, Leaves]) -> dict[str, str]:
    """``sha256/tensor-v1`` of every component of a training state, in hexadecimal.

    Raises:
        AuditError: When a component that keeps its own digest holds something else.
    """
    require_whole(state)
    return {name: digest_leaves(COMMITMENT_RECIPE, leaves).hex() for name, leaves in state.items()}


class StateDigester:
    """Digests the components of a state again and again.

    A tensor's memory is read where it lies, by the address that the tensor itself gives in the
    same call, and nothing is kept alive that its owner does not keep. Frames and addresses are used
    again only while every tensor has the class, address, shape, dtype and contiguity that they were
    made for, so that ``p.data = other``, ``load_state_dict(assign=True)`` or a tensor in the place
    of a freed one cannot give a stale digest.

    Args:
        recipe: ``xxh3-128/tensor-v1`` or ``sha256/tensor-v1``.

    Raises:
        FormatError: Unknown recipe.
    """

    def __init__(self, recipe: str) -> None:
        hasher(recipe)  # refuses an unknown recipe here and not in the middle of a run
        self._recipe = recipe
        self._streams: dict[str, Stream] = {}
        #: The streams whose tensors the forms and addresses are of, in their order.
        self._order: list[Stream] = []
        self._forms = Forms([])
        self._addresses: list[int] = []
        #: Of components that are one text: what keeps it, its name, itself, the digest.
        self._texts: dict[str, tuple[KeptLeaves | None, str, bytes, bytes]] = {}

    def digest(self, state: Mapping[str, Leaves]) -> dict[str, bytes]:
        """Digests of the components as they are now.

        Args:
            state: Components by name. The mappings may be other objects at every call.

        Returns:
            The bytes of `digest_leaves` by component.

        Raises:
            UncapturedState: A tensor that is not plain strided memory; ``where`` names it.
            FormatError: A name that is no Unicode text.
        """
        values = dict.fromkeys(state, b"")
        names: list[str] = []
        streams: list[Stream] = []
        lists: list[list[torch.Tensor]] = []
        for name, leaves in state.items():
            text, stream = self._texts.get(name), self._streams.get(name)
            if text is not None and text[0] is leaves:
                values[name] = text[3]
                continue
            found = None if stream is None else stream.tensors_of(leaves)
            if stream is None or found is None:
                values[name] = self._of_text(name, leaves)
                if values[name]:
                    continue
                stream, found = self._stream(name, leaves)
            names.append(name)
            streams.append(stream)
            lists.append(found)
        self._bring_up_to_date(state, names, streams, lists)
        for name, stream in zip(names, streams, strict=True):
            recipe = evidence_recipe(self._recipe, state[name].get(""))
            values[name] = stream.digest(recipe, state[name])
        return values

    def commitment(self, name: str, leaves: Leaves) -> bytes:
        """SHA-256 of a component whose digest was made last, 32 bytes."""
        stream = self._streams.get(name)
        if stream is None or stream not in self._order:  # it is a text
            return digest_leaves(COMMITMENT_RECIPE, leaves)
        return stream.digest(COMMITMENT_RECIPE, leaves)

    def _of_text(self, name: str, leaves: Leaves) -> bytes:
        """The digest of a component that is one text, as most streams are; of others nothing.

        Nor is one made of a component that keeps its own.
        """
        if isinstance(leaves, SummedLeaves):
            return leaves.digest()
        if len(leaves) != 1:
            return b""
        ((entry, text),) = leaves.items()
        if type(text) is not bytes:
            return b""
        known = self._texts.get(name)
        is_known = known is not None and known[1] == entry and known[2] == text
        value = known[3] if known and is_known else digest_leaves(self._recipe, leaves)
        self._texts[name] = (_kept(leaves), entry, text, value)
        return value

    def _stream(self, name: str, leaves: Leaves) -> tuple[Stream, list[torch.Tensor]]:
        """A component's stream, and its tensors that are read where they lie."""
        stream = self._streams.get(name)
        tensors = None if stream is None else stream.take(leaves)
        if stream is None or tensors is None:
            stream = self._begin(name, leaves)
            tensors = stream.tensors(leaves)
        return stream, tensors

    def _begin(self, name: str, leaves: Leaves) -> Stream:
        stream = self._streams[name] = Stream(leaves)
        stream.forms = Forms(stream.tensors(leaves))
        return stream

    def _bring_up_to_date(
        self,
        state: Mapping[str, Leaves],
        names: list[str],
        streams: list[Stream],
        lists: list[list[torch.Tensor]],
    ) -> None:
        """Make anew what does not hold any more: of all tensors at once where nothing has."""
        tensors = [*chain.from_iterable(lists)]
        is_known = streams == self._order and self._forms.are_of(tensors)
        if is_known and _addresses(tensors) == self._addresses:
            return
        for index, (name, found) in enumerate(zip(names, lists, strict=True)):
            stream = streams[index]
            if not (is_known or stream.forms.are_of(found)) or not stream.move(found):
                streams[index] = self._begin(name, state[name])
                lists[index] = streams[index].tensors(state[name])
        if streams != self._order:
            self._order = streams
            self._forms = Forms([*chain.from_iterable(lists)])
        self._addresses = [*chain.from_iterable(stream.addresses for stream in streams)]


class Stream:
    """A component's stream of bytes, piece by piece.

    Args:
        leaves: The component.

    Attributes:
        names: Of the tensors that are read where they lie.
        forms: Of these.
        addresses: Where they lie.

    Raises:
        UncapturedState: A tensor that is not plain strided memory.
    """

    forms: Forms

    def __init__(self, leaves: Leaves) -> None:
        self._n_leaves = len(leaves)
        self._pieces: list[bytes | memoryview] = []
        self._texts: list[tuple[int, str]] = []
        #: Of tensors that must be copied to be read: where the copy goes, if anywhere.
        self._copies: dict[str, tuple[type, MemoryKey, int | None]] = {}
        #: What was taken in last and its tensors, where their owner keeps it.
        self._kept: KeptLeaves | None = None
        self._tensors: list[torch.Tensor] = []
        names, plain = sorted(leaves), _plain_tensors(leaves)
        aliases = _aliases(leaves, plain)
        self.names = [name for name in names if name in plain]
        self.addresses = [plain[name] for name in self.names]
        self._places: list[int] = []  # of their memory among the pieces, if none is an alias
        for name in names:
            leaf = leaves[name]
            if not isinstance(leaf, torch.Tensor):
                self._texts.append((len(self._pieces), name))
                self._pieces += (json_frame(name, len(leaf)), leaf)
            elif name in aliases:
                self._pieces.append(alias_frame(name, aliases[name]))
            elif name in plain:
                head = _tensor_frame(name, leaf.dtype, leaf.shape)
                self._pieces += (head, _view(plain[name], leaf.nbytes))
                self._places.append(len(self._pieces) - 1)
            else:
                self._pieces += (_tensor_frame(name, leaf.dtype, leaf.shape), b"")
            if isinstance(leaf, torch.Tensor) and name not in plain:
                place = None if name in aliases else len(self._pieces) - 1
                self._copies[name] = (type(leaf), memory_key(leaf), place)
        self._is_small = self._fits()

    def tensors(self, leaves: Leaves) -> list[torch.Tensor]:
        """Those that are read where they lie."""
        return list(map(leaves.get, self.names))  # type: ignore[arg-type]

    def tensors_of(self, leaves: Leaves) -> list[torch.Tensor] | None:
        """The same of what was taken in last; None of anything else, or where it is not kept."""
        return self._tensors if leaves is self._kept else None

    def take(self, leaves: Leaves) -> list[torch.Tensor] | None:
        """Take in the texts of another mapping of the same entries.

        Returns:
            The tensors that are read where they lie, which must be checked by the columns; None
            where the entries are others, or others of them must be copied.
        """
        if len(leaves) != self._n_leaves:
            return None
        for place, name in self._texts:
            text = leaves.get(name)
            if type(text) is not bytes:
                return None
            if text is not self._pieces[place + 1]:
                self._pieces[place : place + 2] = [json_frame(name, len(text)), text]
                self._is_small = self._fits()
        for name, (kind, key, _) in self._copies.items():
            leaf = leaves.get(name)
            if type(leaf) is not kind or memory_key(cast(torch.Tensor, leaf)) != key:
                return None
        found = self.tensors(leaves)
        if not self._copies:  # those have to be looked at each time
            self._kept = _kept(leaves)
            self._tensors = [] if self._kept is None else found
        return found

    def move(self, tensors: list[torch.Tensor]) -> bool:
        """Read tensors of the same forms where they lie now; returns whether that will do."""
        addresses = _addresses(tensors)
        if addresses == self.addresses:
            return True
        are_apart = len({0, *addresses}) > len(addresses) == len(self._places)
        if not are_apart:
            return False
        self.addresses = addresses
        for place, address in zip(self._places, addresses, strict=True):
            self._pieces[place] = _view(address, len(self._pieces[place]))
        return True

    def digest(self, recipe: str, leaves: Leaves) -> bytes:
        """The digest of the component that was taken in last."""
        if self._is_small and is_of_stream(recipe):
            return digest_bytes(recipe, b"".join(self._pieces))
        hash_ = hasher(recipe)
        update = hash_.update
        if not self._copies and not isinstance(hash_, WordMix):
            for piece in self._pieces:
                update(piece)
            return hash_.digest()
        content = tensor_update(hash_)
        copied = {place: name for name, (_, _, place) in self._copies.items()}
        for place, piece in enumerate(self._pieces):  # one copy at a time is in memory
            name = copied.get(place)
            if name is not None:
                content(host_bytes(cast(torch.Tensor, leaves[name])))
            else:
                (content if type(piece) is memoryview else update)(piece)
        return hash_.digest()

    def digests(self, recipes: Sequence[str], leaves: Leaves) -> list[bytes]:
        """Digests by several recipes; what is small is put together once."""
        if not self._is_small or not all(map(is_of_stream, recipes)):
            return [self.digest(recipe, leaves) for recipe in recipes]
        whole = b"".join(self._pieces)
        return [digest_bytes(recipe, whole) for recipe in recipes]

    def _fits(self) -> bool:
        """Whether to put the pieces together costs less than to hash each by itself."""
        return not self._copies and sum(map(len, self._pieces)) <= _JOINED


def _kept(leaves: Leaves) -> KeptLeaves | None:
    return leaves if type(leaves) is KeptLeaves else None


def _addresses(tensors: list[torch.Tensor]) -> list[int]:
    return list(map(torch.Tensor.data_ptr, tensors))


def _plain_tensors(leaves: Leaves) -> dict[str, int]:
    """Addresses of the tensors whose content is their own memory, in the host's.

    Such memory is viewed without a hold on it, to be read only while the tensor lies there: a view
    that holds it (by way of numpy) takes ten times as long to make, and keeps what the program has
    let go.
    """
    found = {}
    for name, leaf in leaves.items():
        if not isinstance(leaf, torch.Tensor):
            continue
        if type(leaf) not in _ORDINARY or not _has_known_form(leaf):
            refuse_unknown(leaf, name)
        is_plain = leaf.is_cpu and leaf.nbytes and leaf.is_contiguous()
        if is_plain and not (leaf.is_neg() or leaf.is_conj()):
            found[name] = leaf.data_ptr()
            if not found[name]:
                raise UncapturedState(
                    "a tensor whose memory was freed cannot be captured", where=name
                )
    return found


def _has_known_form(tensor: torch.Tensor) -> bool:
    is_strided = tensor.layout is torch.strided and not tensor.is_nested
    return is_strided and not tensor.is_meta and tensor.dtype in DTYPE_NAMES


def _aliases(leaves: Leaves, plain: Mapping[str, int]) -> Mapping[str, str]:
    """`alias_names`, which need not be asked where no two tensors begin at one address."""
    others = [
        leaf.data_ptr()
        for name, leaf in leaves.items()
        if name not in plain and isinstance(leaf, torch.Tensor) and leaf.numel()
    ]
    is_simple = len({*plain.values(), *others}) == len(plain) + len(others)
    return {} if is_simple else alias_names(leaves)


@functools.lru_cache(maxsize=4096)  # batches and gradients are other tensors at every step
def _tensor_frame(name: str, dtype: torch.dtype, shape: torch.Size) -> bytes:
    return frame(name, DTYPE_NAMES[dtype], shape, math.prod(shape) * dtype.itemsize)
