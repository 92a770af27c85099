"""Files and messages of a job that another machine does, in a folder that both machines see.

Every attempt at a task has a folder of its own: a worker that was given up, and goes on all the
same, writes into nobody's files. In it lie the job's files, and after them the message that names
them with their SHA-256, so that whoever waits takes over what is complete, and nothing else.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from auditkit.engines.order import ALIVE, FILES, MESSAGES, PROGRESS, Message, message_name
from auditkit.errors import AttemptsDiffer, ConnectionLost, ProgramFailed, StoreError
from auditkit.files import artifacts
from auditkit.files.places import FolderPlace
from auditkit.files.store import PARTIAL, make_folder
from auditkit.formats import canonical
from auditkit.formats.structure import to_dict
from auditkit.records.job import Job, Progress
from auditkit.records.manifest import CODE_FOLDER

#: Seconds between two messages of progress, and between two looks whether anybody waits.
_BETWEEN, _LOOKS = 0.5, 2.0

#: Seconds between two signs that somebody waits, and after which a worker misses them.
_SIGNS, _PATIENCE = 10.0, 300.0

#: Seconds in which what one machine has written is seen by another.
_SEEN = 60.0


class Outbox:
    """What a worker hands over.

    Args:
        task: Folder of the task.

    Raises:
        StoreError: When this machine does not see it.
    """

    def __init__(self, task: Path) -> None:
        self.attempt = secrets.token_hex(4)
        self.n_messages = 0
        self._task, self._place = FolderPlace(task), FolderPlace(task / self.attempt)
        self._files = task / self.attempt / FILES
        self._told: set[str] = set()
        self._sign: bytes | None = None
        self._signed = self._reported = self._looked = time.monotonic() - _BETWEEN
        if self._task.read(ALIVE) is None:
            raise StoreError(
                f"the worker on {socket.gethostname()} does not see the folder that its files go "
                "to",
                where=str(task),
                hint="give a folder that all workers share: --out, or TMPDIR where nothing is kept",
            )
        for folder in (self._files, self._place.root / MESSAGES):
            make_folder(folder)

    def rerouted(self, job: Job) -> Job:
        """The job, so that it leaves its files here."""
        out, code = self._files / Path(job.out).name, self._files / CODE_FOLDER
        make_folder(out)
        moved = replace(job, out=str(out), code=None if job.code is None else str(code))
        if job.kind == "seed":  # what its branches need is made here
            fork, order = (str(out / Path(name or "").name) for name in (job.fork, job.order))
            return replace(moved, fork=fork, order=order)
        return replace(moved, references=job.references or job.out)

    def put(self, name: str, result: Any) -> None:
        """Hand a result over, with the files that are new."""
        files = {}
        for file in artifacts.list_files(self._files):
            if file not in self._told and not Path(file).name.startswith("."):
                size = artifacts.file_size(self._files, file)
                files[file] = size, artifacts.file_sha256(self._files, file, expected_size=size)
        self._told.update(files)
        text = canonical.encode(Message(name, to_dict(result), files))
        self._place.write(message_name(self.n_messages), text)
        self.n_messages += 1

    def report(self, progress: Progress) -> None:
        """Say how far the job is, now and then.

        Raises:
            ProgramFailed: When nobody waits for it any more.
        """
        now = time.monotonic()
        if now - self._looked >= _LOOKS:
            self._looked = now
            self._require_waiting(now)
        if now - self._reported >= _BETWEEN or progress.done == progress.total:
            self._reported = now
            self._place.write(PROGRESS, canonical.encode(progress))

    def _require_waiting(self, now: float) -> None:
        sign = self._task.read(ALIVE)
        if sign != self._sign:
            self._sign, self._signed = sign, now
        if sign is None or now - self._signed > _PATIENCE:
            raise ProgramFailed("stopped: nobody waits for this job any more")


class Inbox:
    """What is taken over of a task.

    Args:
        task: Folder of the task, which is made.
        target: Folder that the files go to.
    """

    def __init__(self, task: Path, target: Path) -> None:
        self._place, self._target = FolderPlace(task), target
        self._seen: dict[str, int] = {}
        self._taken: set[str] = set()
        self._files: dict[str, tuple[int, str]] = {}
        self._signs, self._signed = 0, 0.0
        make_folder(task)
        self.sign()

    def sign(self) -> None:
        """Show that somebody waits, if that was long ago."""
        now = time.monotonic()
        if not self._signs or now - self._signed >= _SIGNS:
            self._signs, self._signed = self._signs + 1, now
            self._place.write(ALIVE, str(self._signs).encode())

    def close(self) -> None:
        """Remove what was not taken; whoever still works on it ends."""
        with contextlib.suppress(StoreError):  # somebody may be writing there
            self._place.remove()

    def progress(self) -> Progress | None:
        """How far the attempt is that is furthest."""
        found = (self._place.read(f"{attempt}/{PROGRESS}") for attempt in self._attempts())
        told = [canonical.decode(Progress, text, what="progress") for text in found if text]
        return max(told, key=lambda progress: progress.done, default=None)

    def messages(self) -> Iterator[Message]:
        """Take over what is new.

        Raises:
            AttemptsDiffer: When a job that ran twice left other files.
            ConnectionLost: When files are not what the worker said.
        """
        for attempt in self._attempts():
            while (message := self._next(attempt)) is not None:
                for name, told in message.files.items():
                    self._take(attempt, name, told)
                if message.name not in self._taken:
                    self._taken.add(message.name)
                    yield message

    def wait_for(self, attempt: str, n_messages: int) -> Iterator[Message]:
        """The messages of an attempt that has ended, as soon as they are seen here.

        Raises:
            ConnectionLost: When they are not.
        """
        end = time.monotonic() + _SEEN
        while True:
            yield from self.messages()
            if self._seen.get(attempt, 0) >= n_messages:
                return
            if time.monotonic() > end:
                raise ConnectionLost(
                    f"a worker has written what is not seen here after {_SEEN:g} seconds",
                    where=str(self._place.root),
                    hint="the folder must be one that all workers share",
                )
            time.sleep(0.1)

    def _attempts(self) -> list[str]:
        return [name for name in self._place.names() if not name.endswith(PARTIAL)]

    def _next(self, attempt: str) -> Message | None:
        number = self._seen.get(attempt, 0)
        text = self._place.read(f"{attempt}/{message_name(number)}")
        if text is None:
            return None
        self._seen[attempt] = number + 1
        return canonical.decode(Message, text, what="message of a worker")

    def _take(self, attempt: str, name: str, told: tuple[int, str]) -> None:
        known = self._files.setdefault(name, told)
        if known is not told:
            if known != told and not name.startswith(f"{CODE_FOLDER}/"):  # that is told by others
                raise AttemptsDiffer(
                    f"a job ran twice, and {name.removesuffix(PARTIAL)} is not the same",
                    expected=known[1],
                    found=told[1],
                    hint="the program gives other bits on other workers, or when it is run again: "
                    "auditkit doctor says where",
                )
            return
        here = f"{attempt}/{FILES}/{artifacts.check_name(name)}"
        end = time.monotonic() + _SEEN
        while (found := self._place.fetched(here)) != told:
            if time.monotonic() > end:
                raise ConnectionLost(
                    f"{name} is not what its worker wrote",
                    expected=f"{told[0]} bytes, SHA-256 {told[1]}",
                    found="nothing" if found is None else f"{found[0]} bytes, {found[1]}",
                    where=str(self._place.root),
                )
            time.sleep(0.1)
        target = self._target / name
        make_folder(target.parent)
        self._place.fetch(here, target)
