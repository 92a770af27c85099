"""A loop whose rows go to the process that started it, instead of into files.

``auditkit replay`` and ``auditkit doctor`` start the user's command; the Recorder in it gets a
task over the line (see :mod:`auditkit.processes.protocol`) and streams what it sees. What was
recorded stays with the parent, which compares and says ``go`` or not: a process that is replayed
never sees what it is held against.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from auditkit.files import store
from auditkit.formats.redaction import hide_home
from auditkit.formats.structure import to_dict
from auditkit.observe.loader.driver import Delivery
from auditkit.observe.machine.code import own_code
from auditkit.observe.machine.determinism import deterministic
from auditkit.observe.machine.environment import environment
from auditkit.observe.rng.streams import capture_streams
from auditkit.observe.state.components import State
from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.digests import commitments
from auditkit.processes.protocol import Connection
from auditkit.recorder.loop import Course, Loop
from auditkit.recorder.tasks import LoopStopped, failure_of
from auditkit.recorder.wrapping import Watched, Wrapped, watch
from auditkit.recorder.writer import Chains
from auditkit.records.evidence import Trace
from auditkit.records.job import RowsTask
from auditkit.study.stages.auditor import Auditor
from auditkit.study.stages.describer import describe_loader
from auditkit.study.stages.forker import read_fork
from auditkit.study.stages.snapshotter import Snapshot, freeze
from auditkit.study.worker.callbacks import ModuleWatcher


class RowCourse(Course):
    """Streams the rows of a loop.

    Args:
        wrapped: The loop's objects.
        line: To the parent.
        task: What it wants to see.
    """

    def __init__(self, wrapped: Wrapped, connection: Connection, task: RowsTask) -> None:
        self._connection, self._task = connection, task
        self._starts = commitments(capture_streams().leaves())
        self._held = ExitStack()
        if task.deterministic:
            self._held.enter_context(deterministic(task.threads))
        self._watched: Watched = watch(wrapped)
        self._held.callback(self._watched.close)
        fork = None
        if task.checkpoint is not None:
            fork = read_fork(*store.read_tensors(Path(task.checkpoint), what="checkpoint"))
            self._watched.loaders[""].restore(fork.loader)
            self._watched.loaders[""].next_step = task.first_step
        auditor = Auditor(task.first_step, commit_data=True)
        self._chains = Chains(bytes.fromhex(task.order_head), bytes.fromhex(task.consumed_head))
        watcher = _Streamer(connection, task, self._watched, auditor, self._chains)
        watcher.info = self._info
        self._auditor = auditor
        self._watcher = watcher
        self._loop = Loop(
            self._watched.observed,
            auditor,
            watcher,
            first_step=task.first_step,
            restore=None if fork is None else lambda: self._watched.restore(fork),
            needs_warmup=wrapped.needs_warmup,
        )
        self._report_to(self._loop, auditor)

    def close(self, error: BaseException | None) -> None:
        """Tell the parent how the loop ended."""
        with self._held:
            if self._watcher.stopped:
                return
            if error is not None:
                self._connection.request({"failed": failure_of(error)})
                return
            if self._loop.live:
                self._loop.finish()
                if self._watcher.last_row(self._loop.step):
                    return
            self._connection.request({"end": self._ending()})

    def _ending(self) -> dict[str, Any]:
        return {
            "steps": self.step,
            "order_sha256": self._chains.order.hex(),
            "consumed_sha256": self._chains.consumed.hex(),
            "final": commitments(self._watched.observed.state()),
            **self._info(),
        }

    def _info(self) -> dict[str, Any]:
        """What the loop runs on and consists of, as it is now."""
        loaders = self._watched.loaders
        return {
            "environment": to_dict(environment()),
            "code": [to_dict(file) for file in own_code(main=True)],
            "command": [hide_home(argument) for argument in sys.argv[1:]],
            "loaders": {name: describe_loader(loader.base) for name, loader in loaders.items()},
            "starts": self._starts,
            "unregistered": self._watched.unregistered,
        }


class _Streamer:
    """Sends every row when its step is over."""

    info: Callable[[], dict[str, Any]]

    def __init__(
        self,
        connection: Connection,
        task: RowsTask,
        watched: Watched,
        auditor: Auditor,
        chains: Chains,
    ) -> None:
        self._connection, self._task, self._watched = connection, task, watched
        self._auditor, self._chains = auditor, chains
        #: A step after which the state is written, where to, and whether that is all.
        self._dump: tuple[int, str, bool] | None = None
        if task.dump_at is not None:
            self._dump = (task.dump_at, task.dump_to, False)
        self._frozen: Snapshot | None = None
        self.stopped = False
        self._modules: ModuleWatcher | None = None
        if task.modules_at is not None:
            model = watched.observed.objects.model
            self._modules = ModuleWatcher(model, task.modules_at, lambda _: None)

    def boundary(self, step: int, state: State) -> None:
        """Commit to the start; freeze the state where the parent wants it."""
        if self.stopped:  # the script has caught its end
            raise LoopStopped
        if step == self._task.first_step:
            self._connection.request({"initial": commitments(state), **self.info()})
        self._frozen = None
        if self._dump is not None and step == self._dump[0] + 1:
            self._frozen = freeze(self._watched.observed, state, [])

    def consumed(self, step: int, delivery: Delivery, leaves: Leaves) -> None:
        """The boundary counted: write what was frozen. Look into the step, link the chains."""
        if self._frozen is not None:
            self._write(self._frozen)
        self._chains.link(delivery, self._auditor.commitment)
        if self._modules is not None:
            self._modules.consumed(step, delivery, leaves)

    def stepped(self, step: int, loss: float | None) -> None:
        """Send the row."""
        if self._modules is not None:
            self._modules.stepped(step, loss)
            if step == self._task.modules_at:
                self._connection.send({"modules": [list(entry) for entry in self._modules.entries]})
                raise self._stop()
        if not self._is_leaving:
            self._send(self._auditor.row(step))
        self._auditor.forget()
        if step == self._task.last_step:
            self._connection.send({"arrived": step})
            raise self._stop()

    def last_row(self, step: int) -> bool:
        """Send the row of the state at the end.

        Args:
            step: One more than were taken.

        Returns:
            Whether the state that the parent waited for was the last one; then that was all.
        """
        if self._dump is not None and step == self._dump[0] + 1:
            observed = self._watched.observed
            leaving = self._is_leaving
            self._write(freeze(observed, observed.state(), []), at_end=True)
            if leaving:
                return True
        if not self._is_leaving:
            self._send(self._auditor.trace())
        return False

    @property
    def _is_leaving(self) -> bool:
        """Whether nothing but a state is waited for any more."""
        return self._dump is not None and self._dump[2]

    def _write(self, frozen: Snapshot, *, at_end: bool = False) -> None:
        assert self._dump is not None  # noqa: S101 # else nothing would have been frozen
        step, path, leaving = self._dump
        self._dump = self._frozen = None
        store.write_tensors(Path(path), frozen.tensors, frozen.meta)
        self._connection.send({"dumped": step})
        if leaving and not at_end:
            raise self._stop()

    def _stop(self) -> LoopStopped:
        self.stopped = True
        self._connection.send({"left": self.info()})
        return LoopStopped()

    def _send(self, row: Trace) -> None:
        columns = {name: cell.hex() for name, cell in row.columns.items()}
        answer = self._connection.request(
            {"row": {"step": row.first_step, "columns": columns, "loss": row.loss_bits.hex()}}
        )
        if "dump_at" in answer:
            self._dump = (answer["dump_at"], answer["path"], True)
        elif not answer.get("go"):
            raise self._stop()
