"""How many processes train together, and what of that changes bits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from auditkit.records.recording import WorldRecord

#: What ``DistributedDataParallel`` reports of itself that changes the order of summation.
_SETTINGS = (
    "bucket_cap_bytes",
    "bucket_sizes",
    "broadcast_buffers",
    "find_unused_parameters",
    "gradient_as_bucket_view",
    "static_graph",
)


def rank_and_size() -> tuple[int, int]:
    """This process's rank and how many there are; ``(0, 1)`` without ``torch.distributed``."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def world(modules: Iterable[Any]) -> WorldRecord:
    """Describe the processes.

    Args:
        modules: What is trained; those that are ``DistributedDataParallel`` tell their settings.
    """
    _, size = rank_and_size()
    backend = str(dist.get_backend()) if dist.is_available() and dist.is_initialized() else None
    settings: dict[str, str] = {}
    for module in modules:
        if isinstance(module, DistributedDataParallel):
            settings.update(_ddp_settings(module))
    return WorldRecord(size, backend, settings)


def _ddp_settings(module: nn.Module) -> dict[str, str]:
    told: Any = module._get_ddp_logging_data()  # type: ignore[operator]
    return {name: str(told[name]) for name in _SETTINGS if name in told}
