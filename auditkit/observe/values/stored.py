"""Tensors of a snapshot that stay in its file until they are written where they belong.

A state is put back tensor by tensor, each straight from the file into the memory of the live one
of its form, so that nothing of it is in memory twice. Where a component's digest is known, what was
written is hashed where it was written, before anything else can change it: the bytes that are
judged are the bytes that are trained with, whatever becomes of the file meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import torch

from auditkit.observe.values.tensors import (
    Leaves,
    clone_aligned,
    filled,
    memory_offset,
    memory_view,
)
from auditkit.records.tensor import FileTensor

#: Judges the content of a component by its name.
Check: TypeAlias = Callable[[str, Leaves], None]


class StoredTensor:
    """A tensor in a file.

    Args:
        raw: Where it lies.
        dtype: Of the tensor.
        stride: Strides in elements, of a dense layout.
        offset: Bytes behind an alignment at which it begins.
    """

    def __init__(
        self, raw: FileTensor, dtype: torch.dtype, stride: tuple[int, ...], offset: int = 0
    ) -> None:
        self.dtype, self.shape, self.offset = dtype, torch.Size(raw.shape), offset
        self._raw, self._stride = raw, stride
        #: Whether it is asked later what it was written into, and that.
        self.is_checked = False
        self.written: torch.Tensor | None = None

    def stride(self) -> tuple[int, ...]:
        """Strides in elements."""
        return self._stride

    def new(self) -> torch.Tensor:
        """A new tensor of its content, in aligned host memory.

        Raises:
            AuditError: When it cannot be read.
        """
        raw = self._raw
        tensor = filled(raw.fill, raw.n_bytes, self.dtype, raw.shape, self._stride, self.offset)
        self._note(tensor)
        return tensor

    def on(self, device: torch.device | None) -> torch.Tensor:
        """A new tensor of its content on a device, or the host; raises as :meth:`new`."""
        tensor = self.new() if device is None else self.new().to(device)
        self._note(tensor)
        return tensor

    def write(self, live: torch.Tensor) -> None:
        """Write it over a live tensor of its shape and dtype; raises as :meth:`new`.

        Where it cannot be read to its end, a part of it is written. What is still to be judged is
        written a second time from where it was written first: the file may be another by now.
        """
        if self.written is not None:
            live.copy_(self.written)
        elif not _is_plain(live):
            live.copy_(self.new())
        elif live.nbytes:
            self._raw.fill(memory_view(live.data_ptr(), live.nbytes, writable=True))
            torch.autograd.graph.increment_version(live)
        self._note(live)

    def _note(self, tensor: torch.Tensor) -> None:
        if self.is_checked:
            self.written = tensor


#: A leaf that is a tensor, wherever its elements are.
TENSORS: Final = (torch.Tensor, StoredTensor)

#: A component of a snapshot, in memory or still in its file.
Saved: TypeAlias = Mapping[str, torch.Tensor | StoredTensor | bytes]


class StoredLeaves(dict[str, StoredTensor | bytes]):
    """A component whose tensors stay in a file.

    Args:
        name: Of the component.
        leaves: An alias is the very tensor that it is an alias of.
        check: Judges what was written, or None.
    """

    def __init__(
        self, name: str, leaves: Mapping[str, StoredTensor | bytes], check: Check | None
    ) -> None:
        super().__init__(leaves)
        self._name, self._check = name, check
        self._tensors = [leaf for leaf in leaves.values() if isinstance(leaf, StoredTensor)]
        self._is_judged = False
        for tensor in self._tensors:
            tensor.is_checked = check is not None

    def judge(self, leaves: Leaves) -> None:
        """Judge what is in memory of it, and forget where that is.

        Raises:
            AuditError: What the check raises.
        """
        if self._check is None:
            return
        self._is_judged = True
        self._check(self._name, leaves)
        for tensor in self._tensors:
            tensor.written = None

    def judge_written(self, *, rest: bool) -> None:
        """Judge it where all of it was written since; for the rest where anything was, or nothing.

        Raises:
            AuditError: What the check raises.
        """
        if self._check is None:
            return
        n_written = sum(tensor.written is not None for tensor in self._tensors)
        is_due = n_written or not self._is_judged if rest else 0 < n_written == len(self._tensors)
        if is_due:
            self.judge(_in_memory(self))


def judge_written(state: Mapping[str, Saved], *, rest: bool = False) -> None:
    """Judge the components that were written since.

    Args:
        state: By name.
        rest: Judge also what was written in part or was never judged: nothing comes after this.

    Raises:
        AuditError: What a check raises.
    """
    for leaves in state.values():
        if isinstance(leaves, StoredLeaves):
            leaves.judge_written(rest=rest)


def loaded(leaves: Saved) -> Leaves:
    """The same component in memory, in memory of its own where it was in a file.

    Raises:
        AuditError: What a check of it raises, or when it cannot be read.
    """
    found = _in_memory(leaves)
    if isinstance(leaves, StoredLeaves):
        leaves.judge(found)
    return found


def _in_memory(leaves: Saved) -> Leaves:
    """A component; of what was written, and is still to be judged, that."""
    new: dict[int, torch.Tensor] = {}
    found: dict[str, torch.Tensor | bytes] = {}
    for entry, leaf in leaves.items():
        if isinstance(leaf, StoredTensor):
            if id(leaf) not in new:
                new[id(leaf)] = leaf.new() if leaf.written is None else leaf.written
            found[entry] = new[id(leaf)]
        else:
            found[entry] = leaf
    return found


def copied(leaf: torch.Tensor | StoredTensor, device: torch.device | None) -> torch.Tensor:
    """A copy on a device, or where it is, in memory of its own that is aligned alike."""
    if isinstance(leaf, StoredTensor):
        return leaf.on(device)
    stays = device is None or device.type == "cpu"
    return clone_aligned(leaf) if stays and offset_of(leaf) else leaf.to(device, copy=True)


def offset_of(leaf: torch.Tensor | StoredTensor) -> int:
    """Bytes behind an alignment at which a tensor begins, as part of what decides bits."""
    return leaf.offset if isinstance(leaf, StoredTensor) else memory_offset(leaf)


def write(leaf: torch.Tensor | StoredTensor, live: torch.Tensor) -> None:
    """Write a tensor over a live one of its shape and dtype."""
    if isinstance(leaf, StoredTensor):
        leaf.write(live)
    else:
        live.copy_(leaf)


def _is_plain(live: Any) -> bool:
    """Whether a tensor's memory is its elements one after the other, and may be written."""
    return (
        type(live) in (torch.Tensor, torch.nn.Parameter)
        and live.device.type == "cpu"
        and live.layout is torch.strided
        and live.is_contiguous()
        and not (live.is_conj() or live.is_neg() or live.is_inference())
        # else it has been taken away, as data-parallel wrappers do between two passes
        and live.untyped_storage().nbytes() >= live.storage_offset() * live.itemsize + live.nbytes
    )
