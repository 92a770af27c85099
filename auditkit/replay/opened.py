"""Check 8, of the data: what a replaying program opened is what the recorded one opened.

A file that the manifest lists with another digest is named: with other data nothing can be
decided. A file that nobody hashed, there or here, is named in the report and is no failure. A
listed one that no process of a whole replay opened is named, too: nobody saw the program read it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from auditkit.records.opened import OWN, OpenedFile, OpenedFiles
from auditkit.records.report import UNDECIDED, Finding

#: Missing files that are named.
_MAX_MISSING = 5


@dataclass(frozen=True)
class OpenedHere:
    """What replays opened, by name.

    Attributes:
        equal: With the recorded digest.
        unhashed: Without anybody having hashed them; a name that nobody listed among them.
        left_out: How many files a replay opened beyond those that it lists.
        listed: Of those that the manifest lists with a digest, whatever was opened here.
    """

    equal: frozenset[str] = frozenset()
    unhashed: frozenset[str] = frozenset()
    left_out: int = 0
    listed: frozenset[str] = frozenset()

    def __or__(self, other: OpenedHere) -> OpenedHere:
        return OpenedHere(
            self.equal | other.equal,
            self.unhashed | other.unhashed,
            max(self.left_out, other.left_out),
            self.listed | other.listed,
        )

    def unopened(self, recorded: OpenedFiles | None) -> list[str]:
        """Names that the manifest lists with a digest, and that nothing here opened."""
        return sorted(set(() if recorded is None else recorded.hashed) - self.listed)

    def unseen(self, recorded: OpenedFiles | None) -> list[str]:
        """Of :meth:`unopened`, what was not opened by another name either.

        A program that finds its files by its working folder opens them where that is: there they
        have no name to be compared by.
        """
        if self.left_out:
            return []
        elsewhere = tuple(f"/{name}" for name in self.unhashed)
        return [
            name
            for name in self.unopened(recorded)
            if not any(other.endswith(f"/{_tail(name)}") for other in elsewhere)
        ]


def _tail(name: str) -> str:
    """A name below the folder that it is called by."""
    parts = name.split("/")
    return "/".join(parts[2:] if parts[0] == "data" and len(parts) > 2 else parts[1:])


def _speaks_of(reason: str, name: str) -> bool:
    return "FileNotFoundError" in reason or name.rpartition("/")[2] in reason


def _missing(file: OpenedFile) -> Finding:
    what = "" if file.size is None else f" ({file.size:,} bytes, sha256 {file.sha256})"
    text = (
        f"data missing: the recorded program opened this file of its own folder{what}, and a "
        f"replay is given the code alone; verify in a folder that holds {file.name[len(OWN) + 1 :]}"
    )
    return Finding(text, file.name, exit_code=UNDECIDED)


class OpenedJudge:
    """Compares what the processes of one verification opened; each difference is named once.

    Args:
        recorded: What the manifest lists; None in those of earlier builds.
        absent: Names of files of the program's own folder that do not lie here.

    Attributes:
        own: Names of files of the program's own folder.
    """

    def __init__(self, recorded: OpenedFiles | None, absent: Sequence[str] = ()) -> None:
        self._recorded = {} if recorded is None else recorded.hashed
        files = () if recorded is None else recorded.files
        self._absent = [file for file in files if file.name in absent]
        self.own = () if recorded is None else recorded.own
        self._named: set[tuple[str, str | None]] = set()
        self._here = OpenedHere()
        self._lock = threading.Lock()

    @property
    def here(self) -> OpenedHere:
        """What was found."""
        return self._here

    def findings(self, opened: OpenedFiles | None) -> list[Finding]:
        """What a process opened that is another file, and was not said of another process."""
        if opened is None:
            return []
        with self._lock:
            differing = [file for file in opened.files if self._differs(file)]
            new = [file for file in differing if (file.name, file.sha256) not in self._named]
            self._named |= {(file.name, file.sha256) for file in new}
            known = self._recorded.items() & opened.hashed.items()
            unhashed = {file.name for file in opened.files if not self._is_hashed(file)}
            equal = frozenset(name for name, _ in known)
            listed = frozenset(file.name for file in opened.files if file.name in self._recorded)
            self._here |= OpenedHere(equal, frozenset(unhashed), opened.left_out, listed)
        return [self._finding(file) for file in new]

    def missing(self, reason: str) -> list[Finding]:
        """The files without which a replay cannot have gone on, said once.

        Args:
            reason: Why it did not.
        """
        with self._lock:
            names = [file for file in self._absent if _speaks_of(reason, file.name)]
            if names:
                self._absent = []
        return [_missing(file) for file in names[:_MAX_MISSING]]

    def _is_hashed(self, file: OpenedFile) -> bool:
        return file.sha256 is not None and file.name in self._recorded

    def _differs(self, file: OpenedFile) -> bool:
        return self._is_hashed(file) and self._recorded[file.name] != file.sha256

    def _finding(self, file: OpenedFile) -> Finding:
        text = (
            "the data differ: the program opened another file than the recorded one, of "
            f"{file.size:,} bytes and sha256 {file.sha256}; the manifest says "
            f"{self._recorded[file.name]}"
        )
        return Finding(text, file.name, exit_code=UNDECIDED)
