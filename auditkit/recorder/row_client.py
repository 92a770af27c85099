"""Stream the rows of a loop to the process that started it, instead of writing them to files.

``auditkit replay`` and ``auditkit doctor`` start the user's command; the Recorder in it gets a
task over the connection (see :mod:`auditkit.processes.protocol`) and streams what it sees. What was
recorded stays with the parent, which compares and says ``go`` or not: a process that is replayed
never sees what it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from auditkit.errors import AuditError
from auditkit.files import store
from auditkit.formats.data_position import position_digests
from auditkit.formats.group_values import Plain
from auditkit.formats.snapshot_file import LOADER
from auditkit.formats.structure import to_dict
from auditkit.observe.loader.driver import Delivery
from auditkit.observe.machine.code import user_code
from auditkit.observe.machine.determinism import deterministic
from auditkit.observe.machine.environment import environment
from auditkit.observe.rng.streams import capture_streams
from auditkit.observe.state.components import State
from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.digests import commitments, digest_leaves
from auditkit.processes.protocol import Connection
from auditkit.processes.row_server import StateCommitment
from auditkit.program.session import TrainingSession
from auditkit.recorder.chains import HashChains
from auditkit.recorder.group_changes import GroupChanges
from auditkit.recorder.loop import Loop, RecorderBackend
from auditkit.recorder.running_script import command_now
from auditkit.recorder.tasks import LoopStopped, describe_failure
from auditkit.recorder.wrapping import InstrumentedLoop, Wrapped, instrument
from auditkit.records.digest import COMMITMENT_RECIPE
from auditkit.records.evidence import Trace
from auditkit.records.task import RowsTask
from auditkit.study.stages.auditor import Auditor
from auditkit.study.stages.describer import describe_loader
from auditkit.study.stages.forker import closed_on_error, load_fork
from auditkit.study.stages.snapshotter import Snapshot, freeze, sections
from auditkit.study.worker.callbacks import ModuleCallback


class StreamingBackend(RecorderBackend):
    """Streams the rows of a loop.

    Args:
        wrapped: The loop's objects.
        connection: To the parent.
        task: What it wants to see.
    """

    def __init__(self, wrapped: Wrapped, connection: Connection, task: RowsTask) -> None:
        self._connection, self._task = connection, task
        self._starts = commitments(capture_streams().leaves())
        self._resources = ExitStack()
        if task.deterministic:
            self._resources.enter_context(deterministic(task.threads))
        self._instrumented: InstrumentedLoop = instrument(wrapped)
        self._resources.callback(self._instrumented.close)
        fork = None
        if task.checkpoint is not None:
            with closed_on_error(load_fork(Path(task.checkpoint), what="checkpoint")) as fork:
                self._instrumented.loaders[""].restore(fork.loader)
            self._instrumented.loaders[""].next_step = task.first_step
        auditor = Auditor(
            task.first_step, commit_data=True, recipe=task.evidence_digest, beside=True
        )
        auditor.resume_drawn(task.drawn)
        self._chains = HashChains(bytes.fromhex(task.order_head), bytes.fromhex(task.consumed_head))
        callback = _RowSender(connection, task, self._instrumented, auditor, self._chains)
        callback.info = self._info
        self._auditor = auditor
        self._callback = callback
        self._loop = Loop(
            self._instrumented.session,
            auditor,
            callback,
            first_step=task.first_step,
            restore=None if fork is None else lambda: self._instrumented.restore(fork),
            needs_warmup=wrapped.needs_warmup,
        )
        self._attach(self._loop, auditor)

    def close(self, error: BaseException | None) -> None:
        """Tell the parent how the loop ended."""
        with self._resources:
            if self._callback.stopped:
                return
            if error is not None:
                self._connection.request({"failed": describe_failure(error)})
                return
            if self._loop.live:
                self._loop.finish()
                if self._callback.send_last_row(self._loop.step):
                    return
            self._connection.request({"end": self._summary()})

    def _summary(self) -> dict[str, Any]:
        return {
            "steps": self.step,
            "epochs": self._instrumented.loaders[""].epoch + 1,
            "order_sha256": self._chains.order.hex(),
            "consumed_sha256": self._chains.consumed.hex(),
            "final": commitments(self._instrumented.session.state()),
            "sharded": sorted(self._instrumented.session.sharding()),
            **self._info(),
        }

    def _info(self) -> dict[str, Any]:
        """What the loop runs on and consists of, as it is now."""
        loaders, uncaptured = self._instrumented.loaders, self._instrumented.uncaptured()
        return {
            "environment": to_dict(environment()),
            "code": [to_dict(file) for file in user_code(main=True)],
            "command": list(command_now()),
            "loaders": {name: describe_loader(loader.base) for name, loader in loaders.items()},
            "starts": self._starts,
            "unregistered": str(uncaptured) if uncaptured else None,
        }


class _RowSender:
    """Sends every row when its step is over."""

    info: Callable[[], dict[str, Any]]

    def __init__(
        self,
        connection: Connection,
        task: RowsTask,
        instrumented: InstrumentedLoop,
        auditor: Auditor,
        chains: HashChains,
    ) -> None:
        self._connection, self._task, self._instrumented = connection, task, instrumented
        self._auditor, self._chains = auditor, chains
        #: A step after which the state is written, where to, and whether that is all.
        self._dump: tuple[int, str, bool] | None = None
        if task.dump_at is not None:
            self._dump = (task.dump_at, task.dump_to, False)
        self._frozen: Snapshot | None = None
        self._committed: StateCommitment | None = None
        self._groups = GroupChanges(instrumented.session.objects.optimizer)
        self._changed: dict[str, Plain] = {}
        self.stopped = False
        self._modules: ModuleCallback | None = None
        if task.modules_at is not None:
            model = instrumented.session.objects.model
            self._modules = ModuleCallback(model, task.modules_at, lambda _: None)

    def on_boundary(self, step: int, state: State) -> None:
        """Commit to the start; freeze the state where the parent wants it."""
        if self.stopped:  # the script has caught its end
            raise LoopStopped
        if step == self._task.first_step:
            self._connection.request({"initial": commitments(state), **self.info()})
        self._frozen = self._committed = None
        self._changed.update(self._groups.changes(state))
        if step - 1 in self._task.commit_at:
            self._committed = _commit_to(self._instrumented.session, state, step - 1)
        if self._dump is not None and step == self._dump[0] + 1:
            self._frozen = freeze(self._instrumented.session, state, [])

    def on_batch(self, step: int, delivery: Delivery, leaves: Leaves) -> None:
        """The boundary counted: say what was frozen there, link the chains, look into the step."""
        if self._committed is not None:
            self._connection.send({"committed": to_dict(self._committed)})
        if self._frozen is not None:
            self._write(self._frozen)
        self._chains.link(delivery, self._auditor.commitment)
        if self._modules is not None:
            self._modules.on_batch(step, delivery, leaves)

    def on_step_end(self, step: int, loss: float | None) -> None:
        """Send the row."""
        if self._modules is not None:
            self._modules.on_step_end(step, loss)
            if step == self._task.modules_at:
                self._connection.send({"modules": [list(entry) for entry in self._modules.entries]})
                raise self._stop()
        if not self._dumps_only:
            self._send_row(self._auditor.row(step))
        self._auditor.discard_rows()
        if step == self._task.last_step:
            self._connection.send({"arrived": step})
            raise self._stop()

    def send_last_row(self, step: int) -> bool:
        """Send the row of the state at the end.

        Args:
            step: One more than were taken.

        Returns:
            Whether the state that the parent waited for was the last one; then that was all.
        """
        session = self._instrumented.session
        if step - 1 in self._task.commit_at:
            committed = _commit_to(session, session.state(), step - 1)
            self._connection.send({"committed": to_dict(committed)})
        if self._dump is not None and step == self._dump[0] + 1:
            dumps_only = self._dumps_only
            self._write(freeze(session, session.state(), []), at_end=True)
            if dumps_only:
                return True
        if not self._dumps_only:
            self._changed.update(self._groups.changes(session.state()))
            self._send_row(self._auditor.trace())
        return False

    @property
    def _dumps_only(self) -> bool:
        """Whether the parent waits for nothing but a state any more."""
        return self._dump is not None and self._dump[2]

    def _write(self, frozen: Snapshot, *, at_end: bool = False) -> None:
        assert self._dump is not None  # noqa: S101 # else nothing would have been frozen
        step, path, dumps_only = self._dump
        self._dump = self._frozen = None
        store.write_tensors(Path(path), frozen.tensors, frozen.meta)
        self._connection.send({"dumped": step, "drawn": self._auditor.drawn})
        if dumps_only and not at_end:
            raise self._stop()

    def _stop(self) -> LoopStopped:
        self.stopped = True
        self._connection.send({"left": self.info()})
        return LoopStopped()

    def _send_row(self, row: Trace) -> None:
        columns = {name: cell[:].hex() for name, cell in row.columns.items()}
        told = {"step": row.first_step, "columns": columns, "loss": row.loss_bits[:].hex()}
        answer = self._connection.request({"row": told, "groups": self._changed})
        self._changed = {}
        if "dump_at" in answer:
            self._dump = (answer["dump_at"], answer["path"], True)
        elif not answer.get("go"):
            raise self._stop()


def _commit_to(session: TrainingSession, state: State, step: int) -> StateCommitment:
    """Commit to what a checkpoint of this moment would hold."""
    try:
        found = sections(session, state, [])
    except AuditError:  # no checkpoint can be taken here; who compares says so
        return StateCommitment(step, {}, {})
    positions = {
        name: _position_digests(leaves)
        for name, leaves in found.items()
        if name.partition("/")[0] == LOADER
    }
    return StateCommitment(step, commitments(found), positions)


def _position_digests(leaves: Leaves) -> dict[str, str]:
    text = leaves[""]
    assert isinstance(text, bytes)  # noqa: S101 # a position is a dict
    return position_digests(
        text, lambda rest: digest_leaves(COMMITMENT_RECIPE, {**leaves, "": rest})
    )
