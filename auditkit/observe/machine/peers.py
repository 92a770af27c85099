"""What the processes of a loop tell each other, beside the training.

They agree in a group of their own, so that nothing gets between the collectives of the loop;
over gloo, whatever the loop uses, because a process that is gone is an error there at once.
Only integers travel: nothing is pickled. Each exchange also says whether its process is well:
where one is not, all of them raise, and none is left waiting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from auditkit.errors import RecordingIncomplete
from auditkit.observe.machine.distributed import backend, rank_and_size

#: Integers in one exchange, the first of which says whether the process is well.
_WIDTH = 16


class Peers:
    """All processes of a loop, as one of them sees them.

    Args:
        patience: Seconds that an exchange may take.

    Attributes:
        rank: Of this process.
        size: How many processes there are.
        backend: What the loop sends with, or None.

    Raises:
        RecordingIncomplete: When not every process gets here.
    """

    def __init__(self, patience: float) -> None:
        self.rank, self.size = rank_and_size()
        self.backend = backend()
        self._group: Any = None
        if self.size == 1:
            return
        try:
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=patience))
        except RuntimeError as error:
            raise RecordingIncomplete(
                f"the {self.size} processes do not meet: {_first_line(error)}",
                where=f"rank {self.rank}",
                hint="every process must call wrap; nobody else may have ended",
            ) from error

    @contextmanager
    def together(self, doing: str) -> Iterator[None]:
        """Do something in every process; where it fails in one, it fails in all.

        Args:
            doing: What, for the message.

        Raises:
            RecordingIncomplete: When it failed in another process, or one is gone.
        """
        try:
            yield
        except Exception:
            self.leave()
            raise
        self.exchange((), doing)

    def leave(self) -> None:
        """Tell the others that this process does not go on, unless they know."""
        if self._group is not None and dist.is_initialized():
            with suppress(RuntimeError):  # nobody is there to be told
                self._gather([0] * _WIDTH)
        self.close()

    def exchange(self, values: Sequence[int], doing: str) -> list[list[int]]:
        """Tell every process a few numbers above 0.

        After the script's own ``destroy_process_group`` nobody is told.

        Args:
            values: The last of them are sent, as many as there is room for.
            doing: What for, for the message.

        Returns:
            What each process told, by rank.

        Raises:
            RecordingIncomplete: When another process does not go on, or is gone.
        """
        if self._group is None or not dist.is_initialized():
            return [list(values)]  # nobody is there, or can be reached any more
        sent = list(values)[1 - _WIDTH :]
        try:
            found = self._gather([1, *sent, *[0] * (_WIDTH - 1 - len(sent))])
        except RuntimeError as error:
            self.close()
            raise RecordingIncomplete(
                f"cannot {doing}: a process is gone ({_first_line(error)})",
                where=f"rank {self.rank}",
            ) from error
        stopped = [rank for rank, told in enumerate(found) if not told[0]]
        if stopped:
            self.close()
            raise RecordingIncomplete(
                f"cannot {doing}: rank {stopped[0]} does not go on",
                where=f"rank {self.rank}",
                hint="what that process says tells why",
            )
        return [[value for value in told[1:] if value] for told in found]

    def latest_common(self, steps: Sequence[int]) -> int:
        """The latest of the steps that every process names; 0 where there is none.

        Raises:
            RecordingIncomplete: As :meth:`exchange`; and where there is none although some have
                several, which no kill between two writes explains.
        """
        told = self.exchange(steps, "agree on a checkpoint")
        common = max(set(told[0]).intersection(*told[1:]), default=0)
        if not common and max(map(len, told)) > 1:
            last = ", ".join(str(max(steps, default=0)) for steps in told)
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

    def _gather(self, own: Sequence[int]) -> list[list[int]]:
        mine = torch.tensor(own, dtype=torch.int64, device="cpu")
        found = [torch.zeros_like(mine) for _ in range(self.size)]
        dist.all_gather(found, mine, group=self._group)
        return [tensor.tolist() for tensor in found]


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
