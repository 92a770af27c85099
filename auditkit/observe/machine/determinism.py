"""Settings that change bits: set in one place, recorded, and put back.

Sources: PyTorch's notes on reproducibility
(https://docs.pytorch.org/docs/stable/notes/randomness.html) and on CUDA numerics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch.utils import deterministic as _filling

from auditkit.errors import CaptureError

#: Below ``torch.backends``; the empty name is ``torch.backends`` itself. Torch before 2.9 has
#: none of these.
_FP32_PRECISION = (
    "",
    "cuda.matmul",
    "cudnn",
    "cudnn.conv",
    "cudnn.rnn",
    "mkldnn",
    "mkldnn.conv",
    "mkldnn.matmul",
    "mkldnn.rnn",
)

_BACKENDS: Any = torch.backends  # its properties have no types
_FILLING: Any = _filling


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Run with deterministic kernels, full float32 precision and a fixed number of threads.

    Args:
        threads: Intra-op threads; other counts give other bits.
    """
    undo_actions = _undo_actions()
    try:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        _FILLING.fill_uninitialized_memory = True
        _BACKENDS.cudnn.deterministic = True
        _BACKENDS.cudnn.benchmark = False
        torch.set_float32_matmul_precision("highest")
        _BACKENDS.cudnn.allow_tf32 = False
        for _, backend in _fp32_backends():
            backend.fp32_precision = "ieee"
        yield
    finally:
        for undo in undo_actions:
            undo()


#: Settings that are recorded but left to the program, which sets them anew in every process.
_FREE_SETTINGS = ("default dtype", "flush denormal")


@contextmanager
def unchanged_settings() -> Iterator[None]:
    """Refuse a block that leaves another setting behind than it found.

    Raises:
        CaptureError: Naming the setting.
    """
    before = settings()
    yield
    require_settings(before)


def require_settings(before: Mapping[str, str]) -> None:
    """Refuse other settings than these.

    Raises:
        CaptureError: Naming the setting.
    """
    for name, value in settings().items():
        if before.get(name) != value and name not in _FREE_SETTINGS:
            raise CaptureError(
                f"the program changed a setting that the study fixes: {name}",
                expected=before.get(name),
                found=value,
                hint="leave it alone; threads are a number of the plan",
            )


def settings() -> dict[str, str]:
    """The settings in force, as text by name."""
    cuda = _BACKENDS.cuda
    found: dict[str, object] = {
        "torch threads": torch.get_num_threads(),
        "torch interop threads": torch.get_num_interop_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "deterministic debug mode": torch.get_deterministic_debug_mode(),
        "fill uninitialized memory": _FILLING.fill_uninitialized_memory,
        "float32 matmul precision": _read_or_none(torch.get_float32_matmul_precision),
        "default dtype": torch.get_default_dtype(),
        "mkldnn enabled": _BACKENDS.mkldnn.enabled,
        "mkldnn deterministic": getattr(_BACKENDS.mkldnn, "deterministic", None),
        "cudnn enabled": _BACKENDS.cudnn.enabled,
        "cudnn deterministic": _BACKENDS.cudnn.deterministic,
        "cudnn benchmark": _BACKENDS.cudnn.benchmark,
        "cudnn allow tf32": _read_or_none(partial(getattr, _BACKENDS.cudnn, "allow_tf32")),
        "cublas reduced float16": cuda.matmul.allow_fp16_reduced_precision_reduction,
        "cublas reduced bfloat16": cuda.matmul.allow_bf16_reduced_precision_reduction,
        "attention flash": cuda.flash_sdp_enabled(),
        "attention memory-efficient": cuda.mem_efficient_sdp_enabled(),
        "attention math": cuda.math_sdp_enabled(),
        "attention cudnn": cuda.cudnn_sdp_enabled(),
        "autocast cpu": torch.is_autocast_enabled("cpu"),
        "autocast cuda": torch.is_autocast_enabled("cuda"),
        "flush denormal": _flushes_denormals(),
    }
    for name, backend in _fp32_backends():
        found[f"fp32 precision {name or 'generic'}"] = backend.fp32_precision
    return {name: str(value) for name, value in found.items()}


def _undo_actions() -> list[Callable[[], None]]:
    """What puts everything back that :func:`deterministic` changes, in this order."""
    attributes = [
        (_FILLING, "fill_uninitialized_memory"),
        (_BACKENDS.cudnn, "deterministic"),
        (_BACKENDS.cudnn, "benchmark"),
        (_BACKENDS.cudnn, "allow_tf32"),
        *((backend, "fp32_precision") for _, backend in _fp32_backends()),
    ]
    undo: list[Callable[[], None]] = [
        partial(torch.set_num_threads, torch.get_num_threads()),
        partial(torch.set_deterministic_debug_mode, torch.get_deterministic_debug_mode()),
    ]
    # The older settings first: writing them writes the newer ones too.
    precision = _read_or_none(torch.get_float32_matmul_precision)
    if precision is not None:
        undo.append(partial(torch.set_float32_matmul_precision, precision))
    for backend, name in attributes:
        value = _read_or_none(partial(getattr, backend, name))
        if value is not None:
            undo.append(partial(setattr, backend, name, value))
    return undo


def _fp32_backends() -> Iterator[tuple[str, Any]]:
    for name in _FP32_PRECISION:
        backend = attrgetter(name)(_BACKENDS) if name else _BACKENDS
        if hasattr(backend, "fp32_precision"):
            yield name, backend


def _read_or_none(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RuntimeError:  # an older setting that says less than the newer ones were set to
        return None


def _flushes_denormals() -> bool:
    # There is a setter but no getter.
    return bool((torch.tensor([1e-40]) * 1.0 == 0).item())
