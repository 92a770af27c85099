"""How many processes train together, and what of that changes bits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from auditkit.errors import RecorderMisuse

#: What ``DistributedDataParallel`` reports of itself that changes the order of summation.
_SETTINGS = (
    "bucket_cap_bytes",
    "bucket_sizes",
    "rebuilt_bucket_sizes",
    "has_rebuilt_buckets",
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


def refuse_unconnected(variables: Mapping[str, str] = os.environ) -> None:
    """Refuse a process that was started as one of several and knows nothing of the others.

    Args:
        variables: Environment variables, as ``torchrun`` sets them.

    Raises:
        RecorderMisuse: When ``init_process_group`` was not called yet.
    """
    if dist.is_available() and dist.is_initialized():
        return
    size = variables.get("WORLD_SIZE", "")
    if size.isascii() and size.isdecimal() and int(size) > 1:
        raise RecorderMisuse(
            f"WORLD_SIZE is {size}, but torch.distributed is not initialized",
            where=f"rank {variables.get('RANK', '?')}",
            hint="call wrap after init_process_group, in every process",
        )


def refuse_sharded(modules: Iterable[Any], optimizers: Iterable[Any]) -> None:
    """Refuse objects of which each process holds a part only: no process has the state.

    Raises:
        RecorderMisuse: Naming the first one.
    """
    hint = "DistributedDataParallel is supported; FSDP, DTensor and sharded optimizers are not"
    for root in modules:
        for name, module in root.named_modules():
            if _is_a("FullyShardedDataParallel", module):
                raise RecorderMisuse(f"the module {name or 'model'} is sharded by FSDP", hint=hint)
        for name, parameter in root.named_parameters():
            if _is_a("DTensor", parameter) or _is_a("DTensor", parameter.data):
                raise RecorderMisuse(f"the parameter {name} is a DTensor", hint=hint)
    for optimizer in optimizers:
        if _is_a("ZeroRedundancyOptimizer", optimizer):
            raise RecorderMisuse("the state of ZeroRedundancyOptimizer is sharded", hint=hint)


def _is_a(name: str, found: object) -> bool:
    """Whether it is of that class of torch; by name, since importing them takes a second."""
    kinds = type(found).__mro__
    return any(kind.__name__ == name and kind.__module__.startswith("torch.") for kind in kinds)


class SyncFlags:
    """Whether the next forward pass shares the buffers, which ``DistributedDataParallel`` keeps.

    It does not after an evaluation without gradients, nor within ``no_sync``.

    Args:
        modules: The data-parallel modules.
    """

    def __init__(self, modules: Iterable[DistributedDataParallel]) -> None:
        self._modules = list(modules)

    def state_dict(self) -> dict[str, Any]:
        """The flags in the order of the modules."""
        return {"sync": [bool(module.require_forward_param_sync) for module in self._modules]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put them back."""
        for module, flag in zip(self._modules, state_dict["sync"], strict=True):
            module.require_forward_param_sync = flag


def always_synchronised(modules: Iterable[object]) -> Callable[[], None]:
    """Let every backward pass synchronise gradients, within ``no_sync``, too.

    ``DistributedDataParallel`` rebuilds its buckets after the first pass that does; a loop that
    goes on from a snapshot makes one pass before, and it must be such a one.

    Args:
        modules: What is trained; those that are data-parallel are changed.

    Returns:
        Undoes it.
    """
    found = [module for module in modules if isinstance(module, DistributedDataParallel)]
    for module in found:
        vars(module)["no_sync"] = nullcontext

    def undo() -> None:
        for module in found:
            vars(module).pop("no_sync", None)

    return undo


def backend() -> str | None:
    """What ``torch.distributed`` sends with; None without it."""
    return str(dist.get_backend()) if dist.is_available() and dist.is_initialized() else None


def parallel_settings(modules: Iterable[Any]) -> dict[str, str]:
    """What of ``DistributedDataParallel`` changes bits.

    Args:
        modules: What is trained; those that are data-parallel tell their settings.
    """
    settings: dict[str, str] = {}
    for module in modules:
        if isinstance(module, DistributedDataParallel):
            settings.update(_ddp_settings(module))
    return settings


def _ddp_settings(module: nn.Module) -> dict[str, str]:
    told: Any = module._get_ddp_logging_data()  # type: ignore[operator]
    return {name: str(told[name]) for name in _SETTINGS if name in told}
