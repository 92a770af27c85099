"""What the digests and the snapshot codec both need to know of a torch tensor."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from auditkit.errors import UncapturedState
from auditkit.formats.recipes import ITEM_BYTES
from auditkit.formats.snapshot_file import ALIGNMENT, contiguous_strides, is_dense

#: A component of the training state: tensors and canonical JSON (``json-v1``), by entry name.
Leaves: TypeAlias = Mapping[str, torch.Tensor | bytes]


class KeptLeaves(dict[str, torch.Tensor | bytes]):
    """A component that somebody keeps: the same object only as long as its entries are the same.

    What its tensors hold may change; which tensors, and which texts, may not.
    """


#: torch's dtypes that have a digest, by the name they have in recipes and files.
DTYPES: Final[Mapping[str, torch.dtype]] = {
    name: getattr(torch, name) for name in ITEM_BYTES if hasattr(torch, name)
}

#: The name of each of `DTYPES`.
DTYPE_NAMES: Final[Mapping[torch.dtype, str]] = {dtype: name for name, dtype in DTYPES.items()}

#: Copies between strides are not implemented for every dtype, but are for these, by size.
COPYABLE: Final[Mapping[int, torch.dtype]] = {
    1: torch.uint8,
    2: torch.int16,
    4: torch.int32,
    8: torch.int64,
    16: torch.complex128,
}

#: A function of Python's own stable interface.
_from_memory: Any = ctypes.pythonapi.PyMemoryView_FromMemory
_from_memory.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_from_memory.restype = ctypes.py_object
_READ_ONLY: Final = 0x100  # PyBUF_READ
_WRITABLE: Final = 0x200  # PyBUF_WRITE

#: All memory from the second page on: a part of a view is had in a fraction of the time of a new
#: one.
_FIRST: Final = 4096
_ALL: Final[memoryview] = _from_memory(_FIRST, sys.maxsize - _FIRST, _READ_ONLY)

#: Identity of a tensor's memory, see the recipe's rule on aliases.
MemoryKey: TypeAlias = tuple[str, int, torch.dtype, tuple[int, ...], tuple[int, ...], bool, bool]


def refuse_unknown(tensor: torch.Tensor, where: str) -> None:
    """Let only those tensors through that are plain strided memory.

    Args:
        tensor: Any tensor.
        where: Its place, for the message.

    Raises:
        UncapturedState: Sparse, quantised, nested, meta, uninitialised or distributed tensors.
    """
    reason = None
    if is_lazy(tensor):
        reason = "a parameter that is not initialised yet"
    elif tensor.is_nested:
        reason = "a nested tensor"
    elif tensor.layout is not torch.strided:
        reason = f"a tensor of layout {tensor.layout}"
    elif tensor.dtype not in DTYPE_NAMES:
        reason = f"a tensor of dtype {tensor.dtype}"
    elif tensor.is_meta:
        reason = "a tensor without memory (meta)"
    elif type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        reason = f"a tensor subclass, {type(tensor).__name__}"
    if reason:
        is_sparse = tensor.layout is not torch.strided
        raise UncapturedState(
            f"{reason} cannot be captured",
            where=where,
            hint="where it is a gradient, call optimizer.zero_grad() at the end of each step"
            if is_sparse
            else None,
        )


def has_inner_tensors(value: object) -> bool:
    """Whether a tensor is of a subclass that says which tensors it is made of."""
    kind = type(value)
    return kind not in (torch.Tensor, torch.nn.Parameter) and hasattr(kind, "__tensor_flatten__")


def class_name(kind: type) -> str:
    """Module and name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def tensor_class(name: str) -> type | None:
    """A subclass of torch.Tensor that is loaded; nothing is imported for it."""
    queue: list[type] = [torch.Tensor]
    while queue:
        kind = queue.pop()
        if class_name(kind) == name:
            return kind
        queue.extend(kind.__subclasses__())
    return None


def memory_key(tensor: torch.Tensor) -> MemoryKey:
    """Identity of a tensor's memory: equal keys are an alias in the sense of the recipe."""
    shape = tuple(tensor.shape)
    stride = tuple(
        step if size > 1 else 1 for size, step in zip(shape, tensor.stride(), strict=True)
    )
    address = tensor.data_ptr()
    flags = tensor.is_conj(), tensor.is_neg()
    return (str(tensor.device), address, tensor.dtype, shape, stride, *flags)


def alias_names(leaves: Leaves) -> dict[str, str]:
    """Entries that are the same memory as an earlier one, each with the earliest's name.

    Args:
        leaves: The component; its tensors must have passed `refuse_unknown`.

    Returns:
        Name to earlier name, in name order.
    """
    first: dict[MemoryKey, str] = {}
    aliases = {}
    for name in sorted(leaves):
        leaf = leaves[name]
        if isinstance(leaf, torch.Tensor) and leaf.numel():
            other = first.setdefault(memory_key(leaf), name)
            if other != name:
                aliases[name] = other
    return aliases


def host_bytes(tensor: torch.Tensor) -> memoryview:
    """A tensor's elements in row-major order.

    Args:
        tensor: A tensor that passed `refuse_unknown`, on any device.

    Returns:
        Its bytes. A view of the tensor's own memory where that is contiguous and on the host,
        else of a copy; the view keeps the memory alive.
    """
    if not tensor.numel():
        return memoryview(b"")
    plain = tensor.detach().resolve_conj().resolve_neg().cpu()
    if not plain.is_contiguous():
        plain = plain.view(COPYABLE[plain.itemsize]).contiguous()
    return _bytes_of(plain.reshape(-1).view(torch.uint8))


def memory_view(address: int, nbytes: int, *, writable: bool = False) -> memoryview:
    """Bytes of memory by their address, read-only by default, and without a hold on them."""
    if not writable and address >= _FIRST:
        part = _ALL[address - _FIRST : address - _FIRST + nbytes]
        if part.nbytes == nbytes:
            return part
    view: memoryview = _from_memory(address, nbytes, _WRITABLE if writable else _READ_ONLY)
    return view


def _bytes_of(flat: torch.Tensor) -> memoryview:
    # Tensor.numpy() would forbid the storage ever to be resized, and so change the user's program
    return np.from_dlpack(flat).data


def from_bytes(
    data: bytes | bytearray | memoryview,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    offset: int = 0,
) -> torch.Tensor:
    """What :func:`filled` gives of elements that are in memory."""
    return filled(partial(_copy, data), len(data), dtype, shape, stride, offset)


def filled(
    fill: Callable[[memoryview], None],
    n_bytes: int,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    offset: int = 0,
) -> torch.Tensor:
    """A new tensor on the host, in memory of its own that is aligned to 64 bytes.

    Alignment decides which vector instructions run, and so decides bits.

    Args:
        fill: Writes the elements, in row-major order, into memory of their length.
        n_bytes: Their length, of exactly the right size.
        dtype: One of `DTYPES`.
        shape: Sizes.
        stride: Strides in elements, of a non-overlapping, dense layout.
        offset: Bytes behind such an alignment, as of a view that begins in the midst of another
            tensor, see :func:`memory_offset`.

    Returns:
        The tensor; it requires no gradient.
    """
    with torch.inference_mode(mode=False), torch.no_grad():
        flat = torch.empty(n_bytes + offset, dtype=torch.uint8, device="cpu")[offset:]
        if n_bytes:
            fill(_bytes_of(flat))
        integers = COPYABLE[dtype.itemsize]
        rows = flat.view(integers).view(shape)
        if rows.stride() == stride or not n_bytes:
            return rows.view(dtype)
        memory = torch.empty(n_bytes + offset, dtype=torch.uint8, device="cpu")[offset:]
        whole = memory.view(integers)
        out = whole.as_strided(shape, stride, whole.storage_offset())
        return out.copy_(rows).view(dtype)


def _copy(data: bytes | bytearray | memoryview, memory: memoryview) -> None:
    memory[:] = memoryview(data).cast("B")


def clone_aligned(tensor: torch.Tensor) -> torch.Tensor:
    """The same elements on the host, in aligned memory, with the strides where they are dense.

    Args:
        tensor: A tensor that passed `refuse_unknown`.

    Returns:
        The copy; it requires no gradient.
    """
    return from_bytes(
        host_bytes(tensor),
        tensor.dtype,
        tuple(tensor.shape),
        dense_stride(tensor),
        memory_offset(tensor),
    )


def memory_offset(tensor: torch.Tensor) -> int:
    """Bytes behind an alignment to 64 at which a view on the host begins; 0 of what is no view.

    It is told by the place in the storage and not by the address, which may be another in the next
    process where others made the memory (numpy, say).
    """
    return int(tensor.storage_offset()) * tensor.itemsize % ALIGNMENT if tensor.is_cpu else 0


def dense_stride(tensor: torch.Tensor) -> tuple[int, ...]:
    """A tensor's strides where it is non-overlapping and dense, else row-major ones."""
    shape, stride = tuple(tensor.shape), tuple(tensor.stride())
    return stride if is_dense(shape, stride) else contiguous_strides(shape)
