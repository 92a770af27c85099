"""The Recorder: the evidence of a study for a training loop that its user already has.

::

    with ak.Recorder("runs/exp1", seed=0) as rec:
        model, optimizer, loader = rec.wrap(model, optimizer, loader)
        ...  # the loop, untouched

It sets and seeds nothing and never changes the run. ``auditkit replay``, ``auditkit doctor``
and ``auditkit run ... -- COMMAND`` start the same script with a variable set; then another
backend compares, or resumes from a fork, without a change to the script.
"""

from __future__ import annotations

import atexit
import builtins
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from torch import Tensor, nn

from auditkit.errors import PlanError, RecorderMisuse
from auditkit.files import run_numbers
from auditkit.formats.quote import class_of
from auditkit.observe.machine.distributed import Peers, refuse_unconnected
from auditkit.observe.state.named_groups import Groups, group_patterns
from auditkit.recorder.endings import tell_in_one_line
from auditkit.recorder.given_settings import given_path, given_settings, iterated
from auditkit.recorder.loop import RecorderBackend, own_errors
from auditkit.recorder.recording import RecordingBackend
from auditkit.recorder.row_client import StreamingBackend
from auditkit.recorder.scalars import as_number
from auditkit.recorder.script_jobs import JobBackend
from auditkit.recorder.tasks import receive_task
from auditkit.recorder.wrapping import Wrapped, check_kinds, sort_objects
from auditkit.recorder.writer import RecordingStopped
from auditkit.records.digest import EVIDENCE_RECIPE
from auditkit.records.job import Job
from auditkit.records.plan_values import shown
from auditkit.signing.trust import KEY_VARIABLE, SigningKey, signing_key

_LOG = logging.getLogger("auditkit")

T = TypeVar("T")


class Recorder:
    """Records a training loop.

    In a loop of several processes each one has a Recorder of the same folder, on a file system
    that all share, and calls wrap after ``init_process_group``; rank 0 writes the manifest.

    Args:
        out: The recording's folder; new or empty. Its evidence is written while the loop runs,
            its manifest at a clean end.
        seed: The seed that the loop runs with. It is only recorded.
        checkpoint_every: Steps between checkpoints, from which a killed run can resume; 0 for
            those only that :meth:`checkpoint` asks for.
        keep_checkpoints: How many checkpoints are kept, the latest ones; None for all. Several
            processes keep two at least: a kill may fall between their writes.
        patience: Seconds that a process waits for the others, at the start and at the end.
        new: Whether to record into a new numbered folder beside ``out``: ``out-0001``, then
            ``out-0002``; an ``out`` that is there counts as the first. :attr:`out` is the new
            folder once wrap was called.
        key: Private key to sign with; else ``$AUDITKIT_KEY``, else this machine's own.
        evidence_digest: Recipe of the state's digests; ``int64-mix/1`` is made on the GPU where
            the state lies.

    Raises:
        PlanError: On numbers that mean nothing.
        KeyFileError: When the key cannot be read.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        seed: int | None = None,
        *,
        checkpoint_every: int = 0,
        keep_checkpoints: int | None = None,
        key: str | os.PathLike[str] | None = None,
        patience: float = 600.0,
        new: bool = False,
        evidence_digest: str = EVIDENCE_RECIPE,
    ) -> None:
        self._settings = given_settings(
            *(out, seed, checkpoint_every, keep_checkpoints, patience),
            new=new,
            evidence_digest=evidence_digest,
        )
        named = key if key is not None else os.environ.get(KEY_VARIABLE) or None
        self._key_file = None if named is None else given_path("key", named)
        self._key: SigningKey | None = None
        self._resume = False
        self._backend: RecorderBackend | None = None
        self._training_loader: Any = None
        self._closed = False
        self._pid = os.getpid()
        atexit.register(self._at_exit)
        tell_in_one_line()

    @classmethod
    def resume(
        cls,
        out: str | os.PathLike[str],
        seed: int | None = None,
        *,
        unproven: bool = False,
        **settings: Any,
    ) -> Recorder:
        """A Recorder that resumes from a checkpoint in ``out``, where there is one.

        The script is the same as before: it builds everything anew, and the state is written
        at the first batch boundary that counts. Epochs before that one get one batch each;
        with :meth:`epochs` they are left out. What a loop counts by itself (``enumerate``, a
        best score) is not restored: use :attr:`step`, :meth:`enumerate`, or register it with
        ``extras=``.

        The resumed loop must give the rows that the killed run left after the checkpoint; it goes
        on from the latest one with enough of them. Where a row differs, ``ResumeMismatch`` is
        raised into the loop and the folder stays as it was. A checkpoint that is not what was
        recorded is a ``RestoreMismatch``: from :meth:`wrap`, or where it is large from the first
        batch, when a part of it is in the model already; no batch is given to the loop then.

        Args:
            out: The recording's folder; a new one starts a new recording.
            seed: As for :class:`Recorder`.
            unproven: Go on from the latest checkpoint and compare nothing; the manifest says
                so.
            **settings: As for :class:`Recorder`.
        """
        if not isinstance(unproven, bool):
            raise PlanError(f"unproven is True or False, not {shown(unproven)}")
        recorder = cls(out, seed, **settings)
        if recorder._settings.new:
            raise PlanError("a new folder has nothing to resume from: leave new= out")
        recorder._settings = replace(recorder._settings, unproven=unproven)
        recorder._resume = True
        return recorder

    def wrap(
        self,
        *objects: Any,
        scheduler: Any = None,
        scaler: Any = None,
        averaged: Mapping[str, nn.Module] | None = None,
        extras: Mapping[str, Any] | None = None,
        probe: Any = None,
        loss: Any = None,
        groups: Groups | None = None,
    ) -> Any:
        """Record these objects from now on.

        Args:
            *objects: Model, optimizer and training loader in any order; further models,
                optimizers and loaders after them. A step is one batch of the first loader.
            scheduler: Learning-rate scheduler, or several.
            scaler: ``torch.amp.GradScaler``.
            averaged: Averaged copies of the model by name.
            extras: Anything else that training depends on, by name: modules, objects with
                ``state_dict`` and ``load_state_dict``, random generators.
            probe: :class:`auditkit.Probe` on which ``auditkit run ... -- COMMAND`` compares
                branches.
            loss: ``loss(model, batch)``, with which it recalibrates BatchNorm.
            groups: Named groups of the model's tensors, which are components of such a study.

        Returns:
            The very same positional objects, in their order; a single one by itself.

        Raises:
            RecorderMisuse: When they are not what a loop consists of, or wrap was called before.
            UncapturedState: When the optimizer trains what nothing here holds.
            UnsupportedLoader: When a loader cannot be recorded.
            StoreError: When the folder cannot be written, or holds something else.
            RecordingIncomplete: When another process of the loop cannot begin.
        """
        if self._closed:
            raise RecorderMisuse("this Recorder is closed")
        if self._backend is not None:
            raise RecorderMisuse(
                "wrap was called twice", hint="give it all objects at once; one Recorder, one loop"
            )
        refuse_unconnected()
        with own_errors():
            named = {
                "scheduler": scheduler,
                "scaler": scaler,
                "averaged": averaged,
                "extras": extras,
            }
            check_kinds(**named, probe=probe, loss=loss, groups=groups)
            training, loader, auxiliary = sort_objects(objects, **named)
            self._training_loader = loader
            patterns = group_patterns(training.model, groups or {})
            wrapped = Wrapped(training, loader, auxiliary, probe, loss, patterns)
            self._backend = self._make_backend(wrapped)
        return objects if len(objects) > 1 else objects[0]

    def log(
        self, values: Mapping[str, Tensor | float] | None = None, /, **named: Tensor | float
    ) -> None:
        """Keep numbers of the step that is under way, or of the last one between two epochs.

        ``rec.log(loss=loss, accuracy=0.9)``, or ``rec.log({"val/loss": value})``. The ``loss`` of
        a step is also part of its evidence, so that a replay compares it; other numbers are
        signed, shown by ``auditkit show`` and compared by ``auditkit diff``.

        Args:
            values: Numbers by name, where a name is no Python name.
            **named: Numbers by name.

        Raises:
            RecorderMisuse: On what is no number, or a name that is none.
        """
        if not isinstance(values, Mapping | None):
            raise RecorderMisuse(
                "log takes numbers by name",
                expected="rec.log(loss=loss), or rec.log({'val/loss': value})",
                found=class_of(values),
            )
        given = {**values, **named} if values else named
        numbers = {name: as_number(name, one) for name, one in given.items()}
        with own_errors():
            self._require_backend().log(numbers)

    def checkpoint(self) -> None:
        """Take a checkpoint: at the next batch boundary, or at the end of the loop."""
        with own_errors():
            self._require_backend().checkpoint()

    @property
    def step(self) -> int:
        """Steps that have ended, those before a resume included; 0 in the first batch."""
        return self._require_backend().step

    @property
    def out(self) -> Path:
        """The recording's folder; with ``new=True`` wrap makes it, and before it is the base."""
        return self._settings.out

    @property
    def manifest(self) -> Path | None:
        """Path of the manifest, once it is written."""
        return None if self._backend is None else self._backend.manifest

    @property
    def failure(self) -> BaseException | None:
        """What ended the recording before its time, or None."""
        return None if self._backend is None else self._backend.failure

    def epochs(self, rounds: Iterable[T]) -> Iterator[T]:
        """The loop's own epochs; those before the checkpoint that is resumed from are left out.

        Args:
            rounds: What the loop iterates, such as ``range(30)``.
        """
        for number, item in enumerate(iterated("epochs", "range(30)", rounds)):
            with own_errors():
                begins = self._require_backend().begin_loop_epoch(number)
            if begins:
                yield item

    def enumerate(self, loader: Iterable[T]) -> Iterator[tuple[int, T]]:
        """``enumerate(loader)`` whose numbers continue where a checkpoint was taken.

        Args:
            loader: The training loader; any other is just enumerated.
        """
        batches = iterated("enumerate", "loader", loader)
        if self._training_loader is not loader:
            yield from builtins.enumerate(batches)
            return
        for batch in batches:
            yield self._require_backend().position - 1, batch

    def close(self) -> None:
        """End the recording after a clean end of the loop."""
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._closed or os.getpid() != self._pid:
            return  # a fork of the recorded process ends a loop that is not its own
        self._closed = True
        atexit.unregister(self._at_exit)
        clean = isinstance(error, SystemExit) and not error.code  # the script is done early
        if self._backend is not None:
            with own_errors():
                self._backend.close(None if clean else error)
            if self.manifest is not None:
                _LOG.warning(
                    "auditkit: recorded %d steps; next: auditkit verify %s",
                    self.step,
                    _short(self.manifest),
                )
        elif error is None:
            warnings.warn(
                "the Recorder was given nothing to record: call wrap(model, optimizer, loader)",
                RecordingStopped,
                stacklevel=2,
            )

    def _make_backend(self, wrapped: Wrapped) -> RecorderBackend:
        received = receive_task()
        if received is not None:
            connection, task = received
            if isinstance(task, Job):
                return JobBackend(wrapped, connection, task)
            return StreamingBackend(wrapped, connection, task)
        peers = Peers(self._settings.patience)
        with peers.collective("read the key"):
            if peers.rank == 0:
                self._key = signing_key(self._key_file)
        if self._key is not None and self._key.created:
            _LOG.warning(
                "auditkit: made a signing key, %s; this machine trusts it", self._key.fingerprint
            )
        if self._settings.new:
            self._settings = replace(self._settings, out=self._claim(peers), new=False)
        return RecordingBackend(wrapped, self._settings, self._key, peers, resume=self._resume)

    def _claim(self, peers: Peers) -> Path:
        """A new numbered folder, the same for all processes."""
        base, number = self._settings.out, 0
        with peers.collective("make the folder"):
            if peers.rank == 0:
                number = run_numbers.claim(base)
        found = peers.all_gather([number], "agree on the folder")
        return run_numbers.numbered(base, max(part[0] for part in found))

    def _require_backend(self) -> RecorderBackend:
        if self._backend is None:
            raise RecorderMisuse("call wrap(model, optimizer, loader) first")
        return self._backend

    def _at_exit(self) -> None:
        """The script ended without closing: that is how it ends, or what raised is known."""
        backend, error = self._backend, getattr(sys, "last_value", None)
        if backend is None or self._closed or os.getpid() != self._pid:
            return
        if isinstance(backend, RecordingBackend):
            backend.never_closed = error is None
            error = error or RecorderMisuse("the Recorder was never closed")
            warnings.warn(
                "the Recorder was never closed, so there is no manifest; use it as a context "
                f"manager, or call close(); auditkit close {_short(self.out)} makes one now",
                RecordingStopped,
                stacklevel=2,
            )
        backend.close(error)


def _short(path: Path) -> str:
    """A path as it is typed in the working folder."""
    with suppress(OSError):
        if path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
    return shlex.quote(str(path))


def for_callback(recorder: Recorder) -> Recorder:
    """A Recorder whose advice is for who makes a ``RecorderCallback``, which calls ``wrap``."""
    recorder._settings = replace(recorder._settings, call="RecorderCallback")
    return recorder


def absolute_paths(
    out: str | os.PathLike[str], settings: Mapping[str, Any]
) -> tuple[Path, dict[str, Any]]:
    """Folder and settings of a Recorder that is made later, their paths made absolute now."""
    key = settings.get("key")
    absolute = {} if key is None else {"key": given_path("key", key)}
    return given_path("out", out), {**settings, **absolute}
