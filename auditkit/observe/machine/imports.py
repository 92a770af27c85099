"""Which files a process executes as code, and which its program opens while it is built.

Python tells an audit hook of every code object and every extension that it executes. So a module
that takes itself out of ``sys.modules``, claims another file, or is deleted again, is seen all the
same; and what a fork of the process executes, as a loader's worker is, is told by it. What is made
of a string (``exec``, dataclasses, ``torch.fx``) has no file and is none of this. The hook is told
of every file that Python opens, and of every other program that it starts; what native code opens,
maps or starts by itself it never sees, but for what is still open when somebody looks.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from auditkit.files import installed
from auditkit.files.store import read_bytes
from auditkit.observe.machine.fork_notes import ForkNotes
from auditkit.observe.machine.loaded import LoadedFiles
from auditkit.observe.machine.open_notes import OpenNotes, library_folders
from auditkit.records.imports import ImportedFiles

#: What is noted of the events that Python tells.
_NOTED = {"exec", "import", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"}

#: Programs that execute a file that they are given, and where those of the system lie.
_INTERPRETERS = re.compile(
    r"(python|pypy|perl|ruby|node|lua|R$|Rscript|julia|java|(ba|da|z|k|c)?sh$)"
)
_SYSTEM = ("/bin/", "/sbin/", "/usr/", "/opt/", f"{Path(sys.executable).parent}{os.sep}")

#: Stands in the place of a digest where a fork tells a command line.
_COMMAND = "command"

_Found = TypeVar("_Found")

#: What takes notes of the code that runs; a hook stays for as long as its process lives.
_watches: list[ImportWatch] = []
_hooked: list[bool] = []

#: The last one that ended. To free it would copy memory of thousands of names that forks share.
_ended: list[ImportWatch] = []


@dataclass
class ImportWatch:
    """What a process has imported, and what it has executed since.

    Attributes:
        folder: The program's folder.
        target: The module that defines it.
        loaded: Files of the modules that were there already, and of those that came since.
        executed: Absolute path and SHA-256 of what was executed since (empty of what lies where
            Python or distributions are installed); the values mean nothing.
        opens: The files that the program opened.
        programs: Other programs that were started, as their command lines.
    """

    folder: Path
    target: str
    loaded: LoadedFiles = field(default_factory=LoadedFiles)
    executed: dict[tuple[str, str], None] = field(default_factory=dict)
    opens: OpenNotes = field(default_factory=OpenNotes)
    programs: dict[str, None] = field(default_factory=dict)
    #: The same in its order; how much of it was looked at, and of what forks have told.
    _ran: list[str] = field(default_factory=list)
    _n_ran: int = 0
    _n_told: int = 0
    _told: ForkNotes = field(default_factory=ForkNotes)

    def since(self) -> Mapping[str, str]:
        """Files that were executed since, with the name of their module where there is one."""
        self._look()
        return self.loaded.since

    def find(
        self, what: str, search: Callable[[], _Found], is_nothing: Callable[[str], bool]
    ) -> _Found:
        """See :meth:`LoadedFiles.find`."""
        self._look()
        return self.loaded.find(what, search, is_nothing)

    def _look(self) -> None:
        if not self.loaded.look():
            self._n_ran = self._n_told = 0
        ran = self._ran[self._n_ran :]
        told, n_bytes = self._told.since(self._n_told)
        self._n_ran, self._n_told = self._n_ran + len(ran), self._n_told + n_bytes
        self.loaded.add_executed([*ran, *(what for what, sha256 in told if sha256 != _COMMAND)])

    def _all_executed(self) -> Iterator[tuple[str, str]]:
        """By this process and by forks of it."""
        yield from list(self.executed)
        yield from (ran for ran in self._told.since(0)[0] if ran[1] != _COMMAND)

    def _all_programs(self) -> Iterator[str]:
        """Command lines of this process, and of forks of it."""
        yield from list(self.programs)
        yield from (what for what, sha256 in self._told.since(0)[0] if sha256 == _COMMAND)

    def execute(self, name: str) -> None:
        """Note that a file is executed. It may be another, or gone, or elsewhere, later."""
        path = installed.code_file(os.path.abspath(name))  # noqa: PTH100 # links are kept
        is_library = path.startswith(library_folders())
        if (is_library and (path, "") in self.executed) or not os.path.isfile(path):  # noqa: PTH113
            return
        ran = path, "" if is_library else hashlib.sha256(read_bytes(path)).hexdigest()
        if ran in self.executed:
            return
        self.executed[ran] = None
        self._ran.append(path)
        self._told.tell(*ran)

    def start(self, command: Sequence[str], folder: str | None) -> None:
        """Note that another program is started, and which files it is told to execute."""
        words = [os.fsdecode(word) for word in command]
        if (line := shlex.join(words)) not in self.programs:
            self.programs[line] = None
            self._told.tell(line, _COMMAND)
        program = shutil.which(words[0]) or words[0]
        if not program.startswith(_SYSTEM):
            self.execute(program)
        if _INTERPRETERS.match(os.path.basename(program)):  # noqa: PTH119 # a name
            paths = (os.path.join(folder or "", word) for word in words[1:])  # noqa: PTH118
            script = next(filter(os.path.isfile, paths), None)
            if script is not None:
                self.execute(script)

    def is_current(self) -> bool:
        """Whether what was executed and opened lies on disk as it did then."""
        return self.opens.are_current() and all(
            os.path.isfile(path) and hashlib.sha256(read_bytes(path)).hexdigest() == sha256  # noqa: PTH113
            for path, sha256 in self._all_executed()
            if sha256
        )

    def begin_job(self) -> None:
        """Of a fork that does a job of its own: note for nobody else what happens from now on."""
        self.programs.update(dict.fromkeys(self._all_programs()))
        for ran in list(self._all_executed()):
            if ran not in self.executed:
                self.executed[ran] = None
                self._ran.append(ran[0])
        self._n_told = 0
        self._told.close()
        self._told = ForkNotes()
        self.opens = self.opens.renewed()

    def close(self) -> None:
        """Take no more notes."""
        self._told.close()

    def files(self) -> ImportedFiles:
        """Everything, for the process that judges it."""
        since = self.since()
        digests: dict[str, set[str]] = {}
        for path, sha256 in self._all_executed():
            if sha256:
                digests.setdefault(_printable(path), set()).add(sha256)
        return ImportedFiles(
            tuple(sorted(map(_printable, self.loaded.started))),
            {_printable(path): since[path] for path in sorted(since)},
            tuple(dict.fromkeys(map(_printable, self._all_programs()))),
            {path: tuple(sorted(found)) for path, found in digests.items()},
        )


def current_watch() -> ImportWatch | None:
    """What takes notes now; None outside a job."""
    return _watches[-1] if _watches else None


@contextmanager
def watched_imports(folder: Path, target: str) -> Iterator[ImportWatch]:
    """Take notes of the code that runs inside the block.

    Args:
        folder: The program's folder.
        target: ``FILE.py`` or ``package.module``, with or without ``:NAME``.
    """
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_note)
    watch = ImportWatch(folder.resolve(), target.partition(":")[0].removesuffix(".py"))
    _watches.append(watch)
    try:
        yield watch
    finally:
        _watches.remove(watch)
        _ended[:] = [watch]
        watch.close()


@contextmanager
def noted_opens() -> Iterator[None]:
    """Take notes of the files that are opened inside the block; of none where no job watches."""
    notes = OpenNotes() if (watch := current_watch()) is None else watch.opens
    notes.wanted += 1
    try:
        yield
    finally:
        notes.wanted -= 1


def note_read_backs() -> None:
    """From now on the program trains: see :attr:`OpenNotes.read_back`."""
    if (watch := current_watch()) is not None:
        watch.opens.is_training = True


def note_held_files() -> None:
    """At the end of training, with all that it used: see :attr:`OpenNotes.read_back`."""
    if (watch := current_watch()) is not None:
        watch.opens.look_at_held()


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        _note_open(arguments[0], arguments[2])
        return
    if event in ("sqlite3.connect", "os.mkdir"):
        for watch in _watches:
            note = watch.opens.make if event == "os.mkdir" else watch.opens.connect
            with suppress(Exception):
                note(arguments[0])
        return
    if event not in _NOTED:
        return
    for watch in _watches:
        # What is raised here would be raised by the program's own call.
        with suppress(Exception):
            _note_code(watch, event, arguments)


def _note_code(watch: ImportWatch, event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        program, words, folder = arguments[:3]
        words = [words] if isinstance(words, (str, bytes)) else [os.fspath(word) for word in words]
        watch.start([program, *words[1:]] if program else words, folder and os.fspath(folder))
    elif event == "os.system":
        watch.start(["sh", "-c", arguments[0]], None)
    elif event in ("os.exec", "os.posix_spawn"):
        watch.start([arguments[0], *arguments[1][1:]], None)
    else:
        # Of an extension the event has the file; of a module its code has a name, which is what
        # somebody has compiled into it, and its loader has the file.
        name = arguments[1] if event == "import" else _loaded_from() or arguments[0].co_filename
        if isinstance(name, str) and name[:1] != "<":
            watch.execute(name)


def _loaded_from() -> str | None:
    """The file of the module that the import system is executing now; None where it is not."""
    frame = sys._getframe(3)
    if frame.f_code.co_name != "_call_with_frames_removed":
        return None
    loading = {} if frame.f_back is None else frame.f_back.f_locals
    path = getattr(loading.get("self"), "path", None)
    return path if isinstance(path, str) else None


def _note_open(name: object, flags: object) -> None:
    for watch in _watches:
        if isinstance(flags, int):
            # What is raised here would be raised by the program's own ``open``.
            with suppress(Exception):
                watch.opens.note(name, flags)


def _printable(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()
