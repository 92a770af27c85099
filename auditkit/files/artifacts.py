"""The files of a run, read with distrust: their names come from somebody else's manifest.

Rules that it keeps:

* a name that could lead elsewhere (absolute, ``..``, a backslash ...) is refused before anything
  is touched;
* a file is opened component by component below the run's folder, never through a link, and only
  if it is a regular file: nothing that blocks (a FIFO) or never ends (a device) is read;
* the size is checked before a byte is read and the digest over the very bytes that are returned.

The run's folder itself is the caller's own path and may be a link.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from auditkit.errors import ArtifactMismatch, ArtifactMissing, StoreError, UnsafePath
from auditkit.formats.quote import brief

#: Bytes read at a time.
CHUNK_BYTES = 2**20

#: Longest artifact name, in characters (Linux's PATH_MAX).
MAX_NAME_CHARS = 4096

#: How much of a folder that anybody can write to is looked at: entries, and folders in folders.
MAX_SURVEYED = 200_000
MAX_SURVEYED_DEPTH = 64

# control characters, what other systems separate by, and what is no UTF-8
_UNSAFE_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f\\\\:\u2028\u2029\ud800-\udfff]")
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# What a file system says of a name that it cannot take: too long, other characters.
_NO_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO without a writer would wait forever
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def check_name(name: str) -> str:
    """Check that a name can only mean a file below the run's folder.

    Args:
        name: A relative POSIX path, e.g. ``seed-0000/fork.safetensors``.

    Returns:
        The name.

    Raises:
        UnsafePath: When it is empty, absolute or too long, or holds ``.``, ``..`` or an empty
            component, a backslash, a colon or a control character.
    """
    parts = name.split("/")
    if (
        len(name) > MAX_NAME_CHARS
        or _UNSAFE_CHARACTER.search(name)
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise UnsafePath(f"unsafe path {brief(name)}")
    return name


def open_artifact(root: str | Path, name: str) -> BinaryIO:
    """Open a file of a run for reading.

    Args:
        root: The run's folder.
        name: The file's name below it.

    Returns:
        The open file; the caller closes it.

    Raises:
        UnsafePath: When the name is unsafe, a component is a link, or the file is no regular one.
        ArtifactMissing: When there is no such file.
        StoreError: When it cannot be read, or ``root`` cannot.
    """
    *folders, last = check_name(name).split("/")
    with contextlib.ExitStack() as stack:
        with _os_errors(str(root)):
            here = os.open(root, _FOLDER_FLAGS)
        stack.callback(os.close, here)
        for folder in folders:
            here = _open_component(here, folder, name, folder=True)
            stack.callback(os.close, here)
        return os.fdopen(_open_component(here, last, name, folder=False), "rb")


def file_size(root: str | Path, name: str) -> int:
    """Size of a file of a run, in bytes.

    Raises:
        ArtifactError: As :func:`open_artifact`.
        StoreError: As :func:`open_artifact`.
    """
    with open_artifact(root, name) as file:
        return os.fstat(file.fileno()).st_size


def file_sha256(root: str | Path, name: str, *, expected_size: int | None = None) -> str:
    """SHA-256 of a file of a run, in constant memory.

    Args:
        root: The run's folder.
        name: The file's name below it.
        expected_size: Size in bytes that the file must have, before and after it is read.

    Returns:
        64 hexadecimal digits.

    Raises:
        ArtifactMismatch: When the file has another size or changes while it is read.
        ArtifactError: As :func:`open_artifact`.
        StoreError: As :func:`open_artifact`.
    """
    digest = hashlib.sha256()
    with open_artifact(root, name) as file:
        for chunk in _chunks(file, name, expected_size):
            digest.update(chunk)
    return digest.hexdigest()


def safe_read(
    root: str | Path,
    name: str,
    *,
    expected_size: int | None = None,
    expected_sha256: str | None = None,
    max_bytes: int | None = None,
) -> bytes:
    """Read a file of a run; what is returned is what was checked.

    Args:
        root: The run's folder.
        name: The file's name below it.
        expected_size: Size that it must have, in bytes.
        expected_sha256: Digest that it must have, 64 lower-case hexadecimal digits.
        max_bytes: Most bytes that are read.

    Returns:
        Its content.

    Raises:
        ArtifactMismatch: When size or digest differ, it is too long, or it changes meanwhile.
        ArtifactError: As :func:`open_artifact`.
        StoreError: As :func:`open_artifact`.
    """
    with open_artifact(root, name) as file:
        size = _checked_size(file, name, expected_size)
        if max_bytes is not None and size > max_bytes:
            raise ArtifactMismatch("too long", expected=f"<= {max_bytes}", found=size, where=name)
        with _os_errors(name):
            data = file.read(size + 1)  # in one buffer: a snapshot can be as large as the memory
        _check_unchanged(file, name, size, len(data))
    if expected_sha256 is not None:
        found = hashlib.sha256(data).hexdigest()
        if found != expected_sha256:
            raise ArtifactMismatch(
                "another SHA-256", expected=expected_sha256, found=found, where=name
            )
    return data


@contextlib.contextmanager
def open_reader(
    root: str | Path, name: str, *, expected_size: int
) -> Iterator[Callable[[int, int], bytes]]:
    """Open a file of a run to read it piece by piece, whatever its length.

    Nothing is checked but the size: who reads so checks the digests of what was read.

    Args:
        root: The run's folder.
        name: The file's name below it.
        expected_size: Size that it must have, in bytes.

    Yields:
        A function that reads at a place so many bytes; it raises what this raises.

    Raises:
        ArtifactMismatch: When the file has another size, or another one meanwhile.
        ArtifactError: As :func:`open_artifact`.
        StoreError: As :func:`open_artifact`.
    """
    with open_artifact(root, name) as file:
        _checked_size(file, name, expected_size)

        def read(start: int, n_bytes: int) -> bytes:
            with _os_errors(name):
                data = os.pread(file.fileno(), n_bytes, start)
            if len(data) != n_bytes:
                raise ArtifactMismatch("changed while it was read", where=name)
            return data

        yield read


def list_files(root: str | Path) -> list[str]:
    """Everything below a folder that is no folder: files, and also links, FIFOs, devices.

    Links are listed, not followed. Empty folders are not listed.

    Args:
        root: The folder.

    Returns:
        Relative POSIX names, sorted.

    Raises:
        StoreError: When a folder cannot be read.
    """
    found: list[str] = []
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        with _os_errors(str(root)):
            folders, others = _entries(root, prefix)
        waiting += folders
        found += others
    return sorted(found)


@dataclass(frozen=True)
class Survey:
    """What lies in a folder that anybody may have put things into.

    Attributes:
        names: What is no folder, as :func:`list_files` gives it; names that are no UTF-8 hold
            surrogates, see :func:`auditkit.formats.quote.escaped`.
        unread: Folders that cannot be read, or lie too deep.
        is_whole: Whether it was looked at to its end: not where there is too much of it.
    """

    names: tuple[str, ...]
    unread: tuple[str, ...]
    is_whole: bool


def survey(root: str | Path) -> Survey:
    """What lies below a folder, as far as it can be seen and with an end; never raises."""
    found: list[str] = []
    unread: list[str] = []
    waiting, n_looked_at = [""], 0
    while waiting and n_looked_at < MAX_SURVEYED:
        prefix = waiting.pop()
        if prefix.count("/") > MAX_SURVEYED_DEPTH:
            unread.append(prefix)
            continue
        try:
            folders, others = _entries(root, prefix, MAX_SURVEYED - n_looked_at)
        except (OSError, ValueError):
            unread.append(prefix)
            continue
        waiting += folders
        found += others
        n_looked_at += len(folders) + len(others)
    return Survey(tuple(sorted(found)), tuple(sorted(unread)), n_looked_at < MAX_SURVEYED)


def names_in(root: str | Path) -> Iterator[str]:
    """Names in a folder itself, in no order; nothing where it cannot be read."""
    with contextlib.suppress(OSError, ValueError), os.scandir(root) as entries:
        for entry in entries:
            yield entry.name


def _entries(root: str | Path, prefix: str, most: int | None = None) -> tuple[list[str], list[str]]:
    """Folders, each with a slash behind it, and what is none, in one folder; so many at most."""
    folders: list[str] = []
    others: list[str] = []
    with os.scandir(Path(root, prefix)) as entries:
        for entry in itertools.islice(entries, most):
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{prefix}{entry.name}/")
            else:
                others.append(prefix + entry.name)
    return folders, others


@contextlib.contextmanager
def _os_errors(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot be read: {error.strerror}", where=where) from error
    except (MemoryError, OverflowError) as error:
        raise StoreError("cannot be read: it does not fit into the memory", where=where) from error
    except ValueError as error:  # a null character in the root's path
        raise StoreError(f"cannot be read: {error}", where=where) from error


def _open_component(parent: int, component: str, name: str, *, folder: bool) -> int:
    try:
        # looked at first, because opening a device can already do something
        kind = stat.S_IFMT(os.stat(component, dir_fd=parent, follow_symlinks=False).st_mode)
        _check_kind(kind, name, folder=folder)
        flags = _FOLDER_FLAGS | os.O_NOFOLLOW if folder else _FILE_FLAGS
        descriptor = os.open(component, flags, dir_fd=parent)
    except FileNotFoundError:
        raise ArtifactMissing("no such file", where=name) from None
    except OSError as error:
        if error.errno in _NO_NAME:
            raise UnsafePath("no name that a file here can have", where=name) from None
        raise StoreError(f"cannot be read: {error.strerror}", where=name) from error
    try:  # looked at again: it may have been exchanged in between
        _check_kind(stat.S_IFMT(os.fstat(descriptor).st_mode), name, folder=folder)
    except UnsafePath:
        os.close(descriptor)
        raise
    return descriptor


def _check_kind(kind: int, name: str, *, folder: bool) -> None:
    if kind == (stat.S_IFDIR if folder else stat.S_IFREG):
        return
    if folder and kind == stat.S_IFREG:
        raise ArtifactMissing("no such file: a component of its path is a file", where=name)
    raise UnsafePath(f"not a regular file but {_KINDS.get(kind, 'something else')}", where=name)


def _chunks(file: BinaryIO, name: str, expected_size: int | None) -> Iterator[bytes]:
    """A file's bytes; an error where its size is another, or changes while it is read."""
    size = _checked_size(file, name, expected_size)
    done = 0
    with _os_errors(name):
        while done <= size and (chunk := file.read(CHUNK_BYTES)):
            done += len(chunk)
            yield chunk
    _check_unchanged(file, name, size, done)


def _checked_size(file: BinaryIO, name: str, expected_size: int | None) -> int:
    size = os.fstat(file.fileno()).st_size
    if expected_size is not None and size != expected_size:
        raise ArtifactMismatch("another size", expected=expected_size, found=size, where=name)
    return size


def _check_unchanged(file: BinaryIO, name: str, size: int, n_read: int) -> None:
    if n_read != size or os.fstat(file.fileno()).st_size != size:
        raise ArtifactMismatch("changed while it was read", where=name)
