"""A checkpoint between the boundary at which it is taken and the batch that makes it count."""

from __future__ import annotations

from auditkit.files.recording_folder import RecordingFolder
from auditkit.observe.state.components import State
from auditkit.program.session import TrainingSession
from auditkit.study.stages.snapshotter import Snapshot, freeze, hashed_beside


class PendingCheckpoint:
    """A snapshot that is frozen, and perhaps written already.

    Whether a boundary counts is known once a batch comes. Where one is to be expected, a large
    state is written at once from where it lies, so that it is in memory once and copied never; at
    what may be the end of an epoch it is copied, and written later.

    Args:
        session: The live objects.
        folder: Where it is written.
    """

    def __init__(self, session: TrainingSession, folder: RecordingFolder) -> None:
        self._session, self._folder = session, folder
        self._frozen: Snapshot | None = None
        self._file: str | None = None

    @property
    def is_taken(self) -> bool:
        """Whether there is one."""
        return self._frozen is not None

    def take(self, steps: int, state: State, *, counts: bool = False) -> None:
        """Freeze the state.

        Args:
            steps: Steps that were taken.
            state: The state after them, as live views.
            counts: Whether it counts in any case.

        Raises:
            AuditError: When the position or some state cannot be kept, or the file not be written.
        """
        self.drop()
        live = counts or not getattr(self._session.driver, "may_be_over", True)
        self._frozen = freeze(self._session, state, [], live=live)
        if live and self._frozen.is_large:
            self._file = self._written(steps, self._frozen)
            self._frozen = self._frozen.without_content()

    def write(self, steps: int) -> tuple[str, dict[str, str]]:
        """The file's name, written now if it was not before, and the digests; it is over then."""
        frozen, file = self._frozen, self._file
        assert frozen is not None  # noqa: S101 # whoever asks has taken one
        file = file or self._written(steps, frozen)
        self._frozen = self._file = None
        return file, frozen.digests

    def drop(self) -> None:
        """Let go of one whose boundary did not count after all."""
        file, self._frozen, self._file = self._file, None, None
        if file is not None:
            self._folder.remove_snapshot(file)

    def _written(self, steps: int, frozen: Snapshot) -> str:
        with hashed_beside(frozen):
            return self._folder.write_checkpoint(steps, frozen.tensors, frozen.meta)
