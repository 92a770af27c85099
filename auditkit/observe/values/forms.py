"""The forms of many tensors, asked of all of them at once.

A form is what a tensor's frame in the recipe, and that its memory is its content, depend on: class,
shape, dtype, contiguity, no pending conjugation or negation. torch checks the inputs of what it
has compiled for the same things in one call; where it does not do so in a way that is known, each
condition is one loop inside the interpreter over all tensors.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch

#: Compares class, dispatch keys (conjugation, negation), dtype, device, shape and strides.
_Guards: Any = getattr(
    getattr(getattr(torch._C, "_dynamo", None), "guards", None), "TensorGuards", None
)

_IS_CPU: Any = operator.attrgetter("is_cpu")
_REQUIRES_GRAD: Any = operator.attrgetter("requires_grad")


class Forms:
    """What the frames of some tensors, and that their memory is their content, depend on.

    Args:
        tensors: Plain ones on the host, contiguous, without pending conjugation or negation. None
            is kept.
        with_grad: Whether a tensor that begins or ceases to require gradients has another form.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], *, with_grad: bool = False) -> None:
        self._grads = list(map(_REQUIRES_GRAD, tensors)) if with_grad else None
        self._kinds = list(map(type, tensors))
        self._sizes = list(map(torch.Tensor.size, tensors))
        self._dtypes = [tensor.dtype for tensor in tensors]
        self._has_complex = any(dtype.is_complex for dtype in self._dtypes)
        self._guard = _guard(tensors)

    def are_of(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether every tensor has the form that it had, wherever it lies."""
        if self._guard is not None and self._guard(*tensors):
            return True
        # A guard also minds requires_grad and the modes that are on, which are no part of a form.
        is_same = (
            list(map(type, tensors)) == self._kinds
            and list(map(torch.Tensor.size, tensors)) == self._sizes
            and [tensor.dtype for tensor in tensors] == self._dtypes
            and all(map(_IS_CPU, tensors))
            and all(map(torch.Tensor.is_contiguous, tensors))
            and not any(map(torch.Tensor.is_neg, tensors))
            and not (self._has_complex and any(map(torch.is_conj, tensors)))
            and self._grads in (None, list(map(_REQUIRES_GRAD, tensors)))
        )
        if is_same:
            self._guard = _guard(tensors)
        return is_same


def _guard(tensors: Sequence[torch.Tensor]) -> Callable[..., bool] | None:
    """Tells tensors of these forms from all others; None where nothing of the kind is known."""
    return _made(tensors) if _is_known_good() else None


def _made(tensors: Sequence[torch.Tensor]) -> Callable[..., bool] | None:
    try:
        guard = _Guards(
            *tensors,
            dynamic_dims_sizes=[list(tensor.size()) for tensor in tensors],
            dynamic_dims_strides=[list(tensor.stride()) for tensor in tensors],
        )
        check: Callable[..., bool] = guard.check
        return check if check(*tensors) else None
    except Exception:  # of a torch that takes something else
        return None


@functools.cache
def _is_known_good() -> bool:
    """Whether this torch's guards tell apart what they must, and let go of what they have seen."""
    if _Guards is None:
        return False
    one = torch.zeros(2, 3, dtype=torch.complex64)
    others = (
        torch.nn.Parameter(one),
        one.conj(),
        torch._neg_view(one),
        one.t().contiguous().t(),
        one.view(3, 2),
        one[:1],
        one.view(torch.int64),
        one.real.contiguous(),
    )
    check = _made([one, torch.zeros(3)])
    return (
        check is not None
        and check(torch.ones_like(one), torch.ones(3))
        and not any(check(other, torch.ones(3)) for other in others)
        and not check(one, torch.ones(4))
    )
