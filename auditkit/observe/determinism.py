"""Settings that change bits: set in one place, recorded, and put back.

Sources: PyTorch's notes on reproducibility
(https://docs.pytorch.org/docs/stable/notes/randomness.html) and on CUDA numerics.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Run with deterministic kernels, full float32 precision and a fixed number of threads.

    Args:
        threads: Intra-op threads; other counts give other bits.
    """
    held = _Held()
    try:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = True
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        yield
    finally:
        held.restore()


def settings() -> dict[str, str]:
    """The settings in force, as text by name."""
    found = {
        "torch threads": torch.get_num_threads(),
        "torch interop threads": torch.get_num_interop_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "fill uninitialized memory": torch.utils.deterministic.fill_uninitialized_memory,
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "default dtype": torch.get_default_dtype(),
        "mkldnn enabled": torch.backends.mkldnn.enabled,  # type: ignore[attr-defined]
        "cudnn enabled": torch.backends.cudnn.enabled,
        "cudnn deterministic": torch.backends.cudnn.deterministic,
        "cudnn benchmark": torch.backends.cudnn.benchmark,
        "cudnn allow tf32": torch.backends.cudnn.allow_tf32,
        "flush denormal": _flushes_denormals(),
    }
    return {name: str(value) for name, value in found.items()}


class _Held:
    """What :func:`deterministic` changes, as it was."""

    def __init__(self) -> None:
        self._threads = torch.get_num_threads()
        self._algorithms = torch.get_deterministic_debug_mode()
        self._fill = torch.utils.deterministic.fill_uninitialized_memory
        self._precision = torch.get_float32_matmul_precision()
        cudnn = torch.backends.cudnn
        self._cudnn = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32)

    def restore(self) -> None:
        torch.set_num_threads(self._threads)
        torch.set_deterministic_debug_mode(self._algorithms)
        torch.utils.deterministic.fill_uninitialized_memory = self._fill
        torch.set_float32_matmul_precision(self._precision)
        cudnn = torch.backends.cudnn
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = self._cudnn


def _flushes_denormals() -> bool:
    # There is a setter but no getter.
    return bool((torch.tensor([1e-40]) * 1.0 == 0).item())
