"""The numpy part of the encoding ``json-v1`` (:mod:`auditkit.observe.values.flatten`).

Only those dtypes are kept whose elements mean the same bytes on every machine: no objects, no
structures, no long double (its padding is not even the same in two runs).
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

import numpy as np
import torch

from auditkit.errors import FormatError, UncapturedState

_DTYPE: Final = re.compile(
    r"\|b1|[<>|][iu][1248]|[<>]f[248]|[<>]c(8|16)|\|S[1-9]\d*|[<>]U[1-9]\d*|[<>][mM]8(\[\d*\w+\])?",
    re.ASCII,
)
_MAX_DIMENSIONS: Final = 64  # numpy's own limit
_LAST_CHARACTER: Final = 0x10FFFF


def encode_array(array: Any, entry: str, where: str) -> tuple[dict[str, object], torch.Tensor]:
    """Encode an array.

    Args:
        array: A numpy array, of that very class.
        entry: Name of the entry of its elements.
        where: Its place, for the message.

    Returns:
        Its JSON, and its elements in row-major order: uint8 (bytes,), a copy.

    Raises:
        UncapturedState: A dtype whose elements are no plain bytes.
    """
    _check_capturable(array, where)
    is_fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    node = {
        "$": "ndarray",
        "entry": entry,
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "order": "F" if is_fortran else "C",
    }
    return node, torch.from_numpy(array.copy(order="C").reshape(-1).view(np.uint8))


def encode_scalar(scalar: np.generic, where: str) -> dict[str, object]:
    """Encode a number or date of numpy.

    Args:
        scalar: The scalar.
        where: Its place, for the message.

    Returns:
        Its JSON.

    Raises:
        UncapturedState: A dtype whose elements are no plain bytes.
    """
    _check_capturable(scalar, where)
    return {"$": "npscalar", "dtype": scalar.dtype.str, "hex": scalar.tobytes().hex()}


def decode_array(fields: dict[str, Any], elements: torch.Tensor, where: str) -> Any:
    """Decode an array.

    Args:
        fields: ``dtype``, ``shape`` and ``order`` of its JSON.
        elements: The tensor of its entry.
        where: Its place, for the message.

    Returns:
        A new array.

    Raises:
        FormatError: The JSON is no array's, or the elements do not fit it.
    """
    dtype, shape = _dtype(fields["dtype"], where), fields["shape"]
    is_shape = isinstance(shape, list) and len(shape) <= _MAX_DIMENSIONS
    if not is_shape or not all(type(size) is int and size >= 0 for size in shape):
        raise FormatError("an array without a shape", where=where)
    # numpy, like torch, multiplies the other sizes even where one of them is 0
    extent = math.prod(max(size, 1) for size in shape) * dtype.itemsize
    nbytes = math.prod(shape) * dtype.itemsize
    if elements.dtype is not torch.uint8 or elements.shape != (nbytes,) or extent >= 2**63:
        raise FormatError("an array whose elements do not fit its shape", where=where)
    array: Any = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[:] = elements.cpu().numpy()
    if dtype.kind == "U" and array.size:
        codes = array.reshape(-1).view(f"{dtype.str[0]}u4")
        if codes.max() > _LAST_CHARACTER:  # numpy would hold it and fail to read it
            raise FormatError("an array of characters that do not exist", where=where)
    if fields["order"] not in ("C", "F"):
        raise FormatError("an array in no known order", where=where)
    return np.asfortranarray(array) if fields["order"] == "F" else array


def decode_scalar(fields: dict[str, Any], data: bytes, where: str) -> Any:
    """Decode a number or date of numpy.

    Args:
        fields: ``dtype`` of its JSON.
        data: Its bytes.
        where: Its place, for the message.

    Returns:
        The scalar.

    Raises:
        FormatError: The bytes do not fit the dtype.
    """
    dtype = _dtype(fields["dtype"], where)
    if dtype.kind in "SU" or len(data) != dtype.itemsize:
        raise FormatError("a numpy scalar of another size", where=where)
    return np.frombuffer(data, dtype)[0]


def _check_capturable(value: Any, where: str) -> None:
    if not _DTYPE.fullmatch(value.dtype.str):
        raise UncapturedState(f"numpy's dtype {value.dtype} cannot be captured", where=where)


def _dtype(name: object, where: str) -> np.dtype[Any]:
    if isinstance(name, str) and _DTYPE.fullmatch(name):
        try:
            return np.dtype(name)
        except (TypeError, ValueError, OverflowError):
            pass
    raise FormatError("no dtype of numpy", found=ascii(name), where=where)
