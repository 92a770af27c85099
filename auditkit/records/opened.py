"""What a program opened for reading while it was imported and its factory ran."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

#: Files that are listed; how many more there were is said.
MAX_OPENED = 10_000

#: Most bytes that one process hashes.
MAX_HASHED = 2**32

#: What lies below the program's own folder is called by it.
OWN = "program"

#: Names that a line holds.
_SHOWN = 5

Reason = Literal["elsewhere", "not read", "too much", "changed"]

_WHY: dict[Reason, str] = {
    "elsewhere": "give the folder of the data as an --arg of the factory, so that they are listed",
    "not read": "they could not be read again",
    "too much": f"a process hashes no more than {MAX_HASHED // 2**30} GiB",
    "changed": "they changed while the study ran: unless the program wrote them itself, some seeds "
    "were trained on other bytes, and no replay can give both",
}


@dataclass(frozen=True)
class OpenedFile:
    """A regular file that the program opened.

    Attributes:
        name: ``data/ARGUMENT/relative/path`` below the folder that a factory's argument names
            (``data/ARGUMENT`` where it names the file itself), ``program/relative/path`` below
            the program's folder, else the path itself with the home folder as ``~``.
        size: Bytes; None where it was not hashed.
        sha256: Digest of its bytes; None where it was not hashed.
        reason: Why it was not hashed: it lies *elsewhere*, could *not* be *read*, was *too much*
            for one process, or *changed* while the study ran. None where it was.
    """

    name: str
    size: int | None
    sha256: str | None
    reason: Reason | None = None


@dataclass(frozen=True)
class OpenedFiles:
    """Every file that was opened, sorted by name.

    Attributes:
        files: The files, at most :data:`MAX_OPENED`.
        left_out: How many more there were.
    """

    files: tuple[OpenedFile, ...]
    left_out: int = 0

    @property
    def hashed(self) -> dict[str, str]:
        """Digest by name, of those that have one."""
        return {file.name: file.sha256 for file in self.files if file.sha256 is not None}

    @property
    def own(self) -> tuple[str, ...]:
        """Names of those below the program's own folder, which no argument names."""
        return tuple(file.name for file in self.files if file.name.startswith(f"{OWN}/"))

    @property
    def unhashed(self) -> tuple[str, ...]:
        """Names of those that nobody hashed."""
        return tuple(file.name for file in self.files if file.sha256 is None)


def merged_opened(parts: Iterable[OpenedFiles | None]) -> OpenedFiles | None:
    """What several processes opened, as one list; None where none says anything.

    A file that was another one to another process has no digest.
    """
    told = [part for part in parts if part is not None]
    files: dict[str, OpenedFile] = {}
    for file in (file for part in told for file in part.files):
        known = files.setdefault(file.name, file)
        if file.sha256 is None or known.sha256 is None:
            files[file.name] = file if known.sha256 is not None else known
        elif known.sha256 != file.sha256:
            files[file.name] = OpenedFile(file.name, None, None, "changed")
    if not told:
        return None
    names = sorted(files)
    more = max(0, len(names) - MAX_OPENED) + max(part.left_out for part in told)
    return OpenedFiles(tuple(files[name] for name in names[:MAX_OPENED]), more)


def unhashed_notes(opened: OpenedFiles | None) -> Iterator[str]:
    """What a reviewer cannot compare of what the program opened, a line a reason."""
    if opened is None:
        return
    for reason, why in _WHY.items():
        names = [file.name for file in opened.files if file.reason == reason]
        if names:
            yield f"the program opened files that nobody hashed: {some_names(names)}; {why}"
    if opened.left_out:
        yield f"the program opened {opened.left_out:,} files more than the {MAX_OPENED:,} listed"


def some_names(names: Sequence[str], n_all: int | None = None) -> str:
    """The first of many names.

    Args:
        names: The names.
        n_all: How many there are, where these are not all.
    """
    rest = (len(names) if n_all is None else n_all) - len(names[:_SHOWN])
    return ", ".join(names[:_SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")
