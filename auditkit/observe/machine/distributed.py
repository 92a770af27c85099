"""Processes that train together: how many, what of that changes bits, what they agree on.

Beside the training they agree in a group of their own, so that nothing gets between the
collectives of the loop; over gloo, whatever the loop uses, because a process that is gone is an
error there at once. Only integers travel: nothing is pickled. Each exchange also says whether its
process is well: where one is not, all of them raise, and none is left waiting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from auditkit.errors import ProgramError, RecorderMisuse, RecordingIncomplete
from auditkit.observe.values.shards import is_sharded, why_unknown
from auditkit.records.recording import WorldRecord

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

#: Begins the names of settings that say how a model is sharded.
_FULLY_SHARD = "fully_shard"

#: Most characters of a setting.
_LONGEST = 1000

_SHARDED = (
    "DistributedDataParallel is supported, and fully_shard (FSDP2) of the model, by rows, with one "
    "optimizer; other sharding is not"
)

#: Integers in one exchange, the first of which says whether the process is well.
_WIDTH = 16


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
    """Refuse objects of which each process holds a part, but for what ``fully_shard`` makes.

    Args:
        modules: The model, then others.
        optimizers: Its optimizer, then others.

    Raises:
        RecorderMisuse: Naming the first one.
    """
    for number, root in enumerate(modules):
        for name, module in root.named_modules():
            if _is_a("FullyShardedDataParallel", module):
                text = f"the module {name or 'model'} is sharded by FullyShardedDataParallel"
                raise RecorderMisuse(text, hint=_SHARDED)
        for name, tensor in (*root.named_parameters(), *root.named_buffers()):
            why = _why_unknown(tensor, is_of_model=not number)
            if why:
                raise RecorderMisuse(f"{name} is a DTensor, and {why}", hint=_SHARDED)
    for number, optimizer in enumerate(optimizers):
        if _is_a("ZeroRedundancyOptimizer", optimizer):
            raise RecorderMisuse("the state of ZeroRedundancyOptimizer is sharded", hint=_SHARDED)
        trained = (member for group in optimizer.param_groups for member in group["params"])
        if number and any(map(is_sharded, trained)):
            text = f"a further optimizer, {type(optimizer).__name__}, trains sharded parameters"
            raise RecorderMisuse(text, hint=_SHARDED)


def refuse_sharded_study(model: nn.Module) -> None:
    """Refuse a model of which a branch, which is one process, would hold a part.

    Raises:
        ProgramError: Naming its first parameter that is sharded.
    """
    for name, parameter in model.named_parameters():
        if is_sharded(parameter):
            raise ProgramError(
                f"the model's parameter {name} is sharded, and a branch of a study is one process",
                hint="record the loop: Recorder.wrap takes what fully_shard makes",
            )


def _why_unknown(tensor: torch.Tensor, *, is_of_model: bool) -> str | None:
    if not is_sharded(tensor):
        return None
    if not is_of_model:
        return "it is not the model's"
    return why_unknown(tensor) if isinstance(tensor, nn.Parameter) else "it is no parameter"


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
    """What of ``DistributedDataParallel`` and ``fully_shard`` changes bits.

    Args:
        modules: What is trained; those that are data-parallel or sharded are asked for theirs.
    """
    settings: dict[str, str] = {}
    for module in modules:
        if isinstance(module, nn.Module):
            settings.update(_sharded_settings(module))
        if isinstance(module, DistributedDataParallel):
            settings.update(_ddp_settings(module))
    return settings


def sharding_differences(there: WorldRecord | None, here: WorldRecord) -> list[str]:
    """What of the sharding is not as it was, for people."""
    names = [name for name in here.settings if name.startswith(_FULLY_SHARD)]
    names += [name for name in (there.settings if there else ()) if name.startswith(_FULLY_SHARD)]
    before = there.settings if there else {}
    return [
        f"{name}: {before.get(name, 'not applied')}, now {here.settings.get(name, 'not applied')}"
        for name in dict.fromkeys(names)
        if before.get(name) != here.settings.get(name)
    ]


def _sharded_settings(model: nn.Module) -> dict[str, str]:
    """How a model is sharded: over which mesh, by which layers, with which precision."""
    sharded: list[Any] = [one for one in model.parameters() if is_sharded(one)]
    meshes = {
        f"mesh {tuple(one.device_mesh.shape)}, {', '.join(map(str, one.placements))}"
        for one in sharded
    }
    layers = {
        name: getattr(layer._get_fsdp_state(), "_mp_policy", None)
        for name, layer in model.named_modules()
        if hasattr(layer, "_get_fsdp_state")
    }
    found = {
        _FULLY_SHARD: "; ".join(sorted(meshes)),
        f"{_FULLY_SHARD} layers": ", ".join(name or "the model" for name in layers),
        f"{_FULLY_SHARD} precision": "; ".join(sorted({str(policy) for policy in layers.values()})),
    }
    return {name: value[:_LONGEST] for name, value in found.items()} if meshes else {}


def _ddp_settings(module: nn.Module) -> dict[str, str]:
    logged: Any = module._get_ddp_logging_data()  # type: ignore[operator]
    return {name: str(logged[name]) for name in _SETTINGS if name in logged}


class Peers:
    """All processes of a loop, as one of them sees them.

    Args:
        timeout: Seconds that an exchange may take.

    Attributes:
        rank: Of this process.
        size: How many processes there are.
        backend: What the loop sends with, or None.

    Raises:
        RecordingIncomplete: When not every process gets here.
    """

    def __init__(self, timeout: float) -> None:
        self.rank, self.size = rank_and_size()
        self.backend = backend()
        self._group: Any = None
        if self.size == 1:
            return
        try:
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
        except RuntimeError as error:
            raise RecordingIncomplete(
                f"the {self.size} processes do not meet: {_first_line(error)}",
                where=f"rank {self.rank}",
                hint="every process must call wrap; nobody else may have ended",
            ) from error

    @contextmanager
    def collective(self, action: str) -> Iterator[None]:
        """Do something in every process; where it fails in one, it fails in all.

        Args:
            action: What, for the message.

        Raises:
            RecordingIncomplete: When it failed in another process, or one is gone.
        """
        try:
            yield
        except Exception:
            self.abort()
            raise
        self.all_gather((), action)

    def abort(self) -> None:
        """Tell the others that this process does not go on, unless they know."""
        if self._group is not None and dist.is_initialized():
            with suppress(RuntimeError):  # nobody is there to be told
                self._all_gather([0] * _WIDTH)
        self.close()

    def all_gather(self, values: Sequence[int], action: str) -> list[list[int]]:
        """Send every process a few numbers above 0.

        After the script's own ``destroy_process_group`` nothing is sent.

        Args:
            values: The last of them are sent, as many as there is room for.
            action: What for, for the message.

        Returns:
            What each process sent, by rank.

        Raises:
            RecordingIncomplete: When another process does not go on, or is gone.
        """
        if self._group is None or not dist.is_initialized():
            return [list(values)]  # nobody is there, or can be reached any more
        sent = list(values)[1 - _WIDTH :]
        try:
            gathered = self._all_gather([1, *sent, *[0] * (_WIDTH - 1 - len(sent))])
        except RuntimeError as error:
            self.close()
            raise RecordingIncomplete(
                f"cannot {action}: a process is gone ({_first_line(error)})",
                where=f"rank {self.rank}",
            ) from error
        stopped = [rank for rank, received in enumerate(gathered) if not received[0]]
        if stopped:
            self.close()
            raise RecordingIncomplete(
                f"cannot {action}: rank {stopped[0]} does not go on",
                where=f"rank {self.rank}",
                hint="what that process says tells why",
            )
        return [[value for value in received[1:] if value] for received in gathered]

    def least(self, number: int, action: str) -> int:
        """The least of the numbers that the processes give, from 0 on.

        Raises:
            RecordingIncomplete: As :meth:`all_gather`.
        """
        return min(received[0] - 1 for received in self.all_gather([number + 1], action))

    def common_steps(self, steps: Sequence[int]) -> list[int]:
        """The steps that every process names, in order.

        Raises:
            RecordingIncomplete: As :meth:`all_gather`; and where there is none although some have
                several, which no kill between two writes explains.
        """
        received = self.all_gather(steps, "agree on a checkpoint")
        common = sorted(set(received[0]).intersection(*received[1:]))
        if not common and max(map(len, received)) > 1:
            last = ", ".join(str(max(steps, default=0)) for steps in received)
            raise RecordingIncomplete(
                "there is no checkpoint that every process has",
                found=f"latest checkpoints after steps {last} by rank",
                where=f"rank {self.rank}",
                hint="every process needs its folder, and must call checkpoint() if one does",
            )
        return common

    def close(self) -> None:
        """Leave the group: who still waits for this process gets an error."""
        group, self._group = self._group, None
        if group is not None and dist.is_initialized():
            dist.destroy_process_group(group)

    def _all_gather(self, values: Sequence[int]) -> list[list[int]]:
        sent = torch.tensor(values, dtype=torch.int64, device="cpu")
        received = [torch.zeros_like(sent) for _ in range(self.size)]
        dist.all_gather(received, sent, group=self._group)
        return [tensor.tolist() for tensor in received]


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
