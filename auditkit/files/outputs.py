"""Where an option may write: nothing that somebody else wrote is ever replaced.

An output is a path that does not exist, or a regular file that the same option wrote before,
which is seen from what is in it. It is never a link, a device, a FIFO or a folder, and never a
file of a run: no manifest, and nothing that a manifest beside or above it lists. An output is
looked at before anything else is done, since nobody wants to learn after hours of replay that
the report cannot be kept, and again when it is written.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from auditkit.errors import AuditError, StoreError
from auditkit.files import store
from auditkit.formats import canonical
from auditkit.formats.quote import brief
from auditkit.records.manifest import MANIFEST_NAME

#: Says of the content of a file whether the same option wrote it.
Recogniser = Callable[[bytes], bool]

#: Longest file that is looked at: longer ones were not written by an option.
_MAX_BYTES = 2**28

_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

#: As long as what is put around a name while the file is being written.
_AROUND = f".{'0' * 9}{store.PARTIAL}"


def never(_: bytes) -> bool:
    """Recognises nothing: an option whose file is always a new one."""
    return False


def json_with(*names: str) -> Recogniser:
    """Recognises a JSON object that holds all of these."""

    def recognise(data: bytes) -> bool:
        try:
            told = json.loads(data)
        except (ValueError, RecursionError):
            return False
        return isinstance(told, dict) and told.keys() >= set(names)

    return recognise


@dataclass(frozen=True)
class Output:
    """A file that an option names.

    Attributes:
        option: The option, as it is typed.
        path: The file.
        is_own: Whether a file's content is what the option writes, so that it may be replaced.
        noun: What the option writes, for messages.
        manifest: The manifest that the command was given, whatever it is called.
        hint: What to do where it is refused.
    """

    option: str
    path: Path
    is_own: Recogniser
    noun: str
    manifest: Path | None = None
    hint: str = "name a new file"

    def check(self) -> bool:
        """Look whether it may be written.

        Returns:
            Whether there is an earlier one, to be replaced.

        Raises:
            StoreError: When it may not, or cannot, be written.
        """
        try:
            return self._check()
        except OSError as error:
            raise self._refusal(f"cannot be written: {error.strerror}") from error
        except ValueError as error:  # a null character
            raise self._refusal(f"cannot be written: {error}") from error

    def write(self, data: bytes, *, private: bool = False) -> None:
        """Write it, whole or not at all, if it still may be written.

        Raises:
            StoreError: As :meth:`check`.
        """
        replace = self.check()
        store.write_bytes(self.path, data, private=private, replace=replace)

    def write_pieces(self, pieces: Iterable[bytes]) -> None:
        """Write what does not fit into the memory, in the same way.

        Raises:
            StoreError: As :meth:`check`.
        """
        replace = self.check()
        store.write_bytes(self.path, pieces, replace=replace)

    def _check(self) -> bool:
        if not self.path.name or self.path.name == "..":
            raise self._refusal("it is a folder")
        folder = Path(os.path.realpath(self.path.parent))
        if not folder.is_dir():
            raise self._refusal(f"cannot be written: there is no folder {str(self.path.parent)!r}")
        self._check_room(folder)
        self._check_manifests(folder / self.path.name)
        if not os.path.lexists(self.path):
            return False
        kind = stat.S_IFMT(self.path.lstat().st_mode)
        if kind != stat.S_IFREG:
            raise self._refusal(f"it is {_KINDS.get(kind, 'no regular file')}")
        if self.is_own is never:
            raise self._refusal(f"exists already, and a {self.noun} is never overwritten")
        if not self._is_earlier():
            raise self._refusal(f"exists already, and is no {self.noun} of this option")
        return True

    def _check_room(self, folder: Path) -> None:
        """Whether a file of that name can be made in the folder."""
        with suppress(FileNotFoundError):  # what else is wrong with the name is not
            (folder / f"{self.path.name}{_AROUND}").lstat()
        if not os.access(folder, os.W_OK | os.X_OK):
            raise self._refusal("cannot be written: its folder is read-only")

    def _check_manifests(self, place: Path) -> None:
        """Whether the file is a manifest, or one of the files that a manifest is about."""
        given = None if self.manifest is None else Path(os.path.realpath(self.manifest))
        if place.name == MANIFEST_NAME or place == given:
            raise self._refusal("it is the manifest")
        listing = _listing_manifest(place, given)
        if listing is not None:
            raise self._refusal(f"{str(listing)!r} lists it")

    def _is_earlier(self) -> bool:
        try:
            return self.is_own(store.read_bytes(self.path, max_bytes=_MAX_BYTES))
        except AuditError:
            return False

    def _refusal(self, why: str) -> StoreError:
        return StoreError(f"{self.option} {brief(str(self.path), 300)}: {why}", hint=self.hint)


def check_rewritable(path: Path) -> None:
    """Look whether a file that was named to be added to may be replaced by itself and more.

    Raises:
        StoreError: When it is a link, whose own file would stay as it is, or no regular file, or
            a manifest lists it, which would no longer be of what it says.
    """
    try:
        mode = path.lstat().st_mode
        place = Path(os.path.realpath(path.parent), path.name)
        listing = _listing_manifest(place, None)
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {brief(str(path), 300)}: {error}") from error
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise StoreError(f"{str(path)!r} is {kind}", hint="name the file itself")
    if listing is not None:
        raise StoreError(f"{str(path)!r} cannot be added to: {str(listing)!r} lists it")


def _listing_manifest(place: Path, given: Path | None) -> Path | None:
    """The manifest, beside or above a file, that lists it; None where none does.

    Args:
        place: The file, without links on the way.
        given: A further manifest, which may be called anything.
    """
    manifests = [above / MANIFEST_NAME for above in place.parents]
    # mostly the one that was given is among them, and would be read twice
    for manifest in manifests if given is None else dict.fromkeys((given, *manifests)):
        if place != manifest and place.is_relative_to(manifest.parent):
            name = place.relative_to(manifest.parent).as_posix()
            if name in _listed(manifest):
                return manifest
    return None


def _listed(manifest: Path) -> Iterator[str]:
    """Names of the files that a manifest lists; none where it is no manifest.

    Whatever it says counts, whoever signed it and whatever else is wrong with it: what is asked
    is not whether it is in order, but whether something would be destroyed.
    """
    try:
        envelope = json.loads(store.read_bytes(manifest, max_bytes=canonical.MAX_BYTES))
        for file in json.loads(base64.b64decode(envelope["payload"]))["subject"]:
            yield str(file["name"])
    except (AuditError, ValueError, LookupError, TypeError, RecursionError):
        return
