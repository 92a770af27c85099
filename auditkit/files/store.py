"""Files written, and files read that the caller named; those of a run are read by ``artifacts``.

Rules that it keeps:

* a file is written whole or not at all: a temporary file in the same folder, whose name ends in
  ``.partial``, is written, flushed to disk and renamed. A killed process leaves at most
  ``.partial`` files; an exception leaves none;
* only regular files are read: nothing that blocks (a FIFO) or never ends (a device);
* an operating system's error becomes one line, a :class:`StoreError`.

The bytes of tensors are the business of :mod:`auditkit.formats.tensor_file`, those of JSON of
:mod:`auditkit.formats.canonical`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO

from auditkit.errors import MalformedError, StoreError
from auditkit.files.artifacts import CHUNK_BYTES
from auditkit.formats import tensor_file
from auditkit.records.tensor import FileTensor, RawTensor

#: Suffix of every file that is not complete yet.
PARTIAL = ".partial"

_OF_FOLDERS = "shutil"  # loads what compresses archives; few commands remove a folder

Buffer = bytes | bytearray | memoryview


@contextlib.contextmanager
def _store_errors(path: str | Path, doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(f"cannot {doing} {str(path)!r}: {reason}") from error
    except ValueError as error:  # a null character in the path
        raise StoreError(f"cannot {doing} {str(path)!r}: {error}") from error


# Writing


def write_bytes(
    path: str | Path,
    data: Buffer | Iterable[Buffer],
    *,
    private: bool = False,
    replace: bool = True,
) -> None:
    """Write a file whole or not at all, and durably.

    Args:
        path: The file; its folder must exist.
        data: The content, in one piece or in several.
        private: Create it with mode 0600, as for a private key; it is never wider, not even
            while it is being written.
        replace: Whether an existing file is replaced.

    Raises:
        StoreError: When it cannot be written, or exists and ``replace`` is False.
    """
    target = Path(path)
    chunks = [data] if isinstance(data, (bytes, bytearray, memoryview)) else data
    with _store_errors(path, "write"):
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{PARTIAL}")
        try:
            _write_new(temporary, chunks, 0o600 if private else 0o666)
            _publish(temporary, target, replace)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        _sync_folder(target.parent)


def write_text(path: str | Path, text: str, *, replace: bool = True) -> None:
    """Write a UTF-8 text file, as :func:`write_bytes` does.

    Raises:
        StoreError: When it cannot be written.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"), replace=replace)


def write_tensors(
    path: str | Path, tensors: Mapping[str, RawTensor], metadata: object = None
) -> None:
    """Write a safetensors file, as :func:`write_bytes` does.

    Args:
        path: The file.
        tensors: By name.
        metadata: Any value with a canonical JSON form, or None.

    Raises:
        StoreError: When it cannot be written.
        FormatError: When a tensor cannot be stored; see
        :func:`auditkit.formats.tensor_file.to_chunks`. JsonError: When the metadata has no JSON
        form.
    """
    write_bytes(path, tensor_file.to_chunks(tensors, metadata))


def append_bytes(path: str | Path, data: Buffer) -> None:
    """Append to a file, or begin it; what a killed process was writing is cut short.

    It outlives the process, and not a crash of the machine: that would take milliseconds, which
    what is appended again and again may spare.

    Raises:
        StoreError: When it cannot be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with (
        _store_errors(path, "write"),
        os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0) as file,
    ):
        _write_all(file, data)


def copy_file(source: str | Path, target: str | Path) -> None:
    """Copy a regular file's content, whole or not at all.

    Raises:
        StoreError: When the source cannot be read or the target not be written.
    """
    with _open_regular(source) as file:
        write_bytes(target, iter(lambda: file.read(CHUNK_BYTES), b""))


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a regular file a second name, replacing what has it; a copy where that is not possible.

    Only for files that are never written in place.

    Raises:
        StoreError: When the source cannot be read or the target not be written.
    """
    aside = Path(target).with_name(f".{Path(target).name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        os.link(source, aside, follow_symlinks=False)
    except OSError:  # another file system, or one without such links
        copy_file(source, target)
    else:
        rename(aside, target)


def make_folder(path: str | Path, *, private: bool = False) -> None:
    """Make a folder and those above it, if they do not exist; ``private`` is mode 0700.

    Raises:
        StoreError: When it cannot be made, or a file is there.
    """
    with _store_errors(path, "make the folder"):
        Path(path).mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)


def make_new_folder(path: str | Path) -> bool:
    """Make a folder; whether it is a new one: of two who try, one is told so.

    Raises:
        StoreError: When it cannot be made.
    """
    with _store_errors(path, "make the folder"):
        try:
            Path(path).mkdir()
        except FileExistsError:
            return False
    return True


def rename(source: str | Path, target: str | Path) -> None:
    """Rename a file or folder within one file system, replacing a file.

    Raises:
        StoreError: When it cannot be renamed.
    """
    with _store_errors(source, "rename"):
        Path(source).replace(target)
        _sync_folder(Path(target).parent)


def remove(path: str | Path) -> None:
    """Remove a file or link; one that does not exist is no error.

    Raises:
        StoreError: When it cannot be removed.
    """
    with _store_errors(path, "remove"):
        Path(path).unlink(missing_ok=True)


def remove_folder(path: str | Path) -> None:
    """Remove a folder and everything in it, links unfollowed; a missing one is no error.

    Raises:
        StoreError: When it cannot be removed.
    """
    with _store_errors(path, "remove"), contextlib.suppress(FileNotFoundError):
        importlib.import_module(_OF_FOLDERS).rmtree(path)


def remove_empty_folder(path: str | Path) -> None:
    """Remove a folder; one that does not exist, or is not empty, stays as it is."""
    with contextlib.suppress(OSError):
        Path(path).rmdir()


def _write_new(path: Path, chunks: Iterable[Buffer], mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, mode), "wb", buffering=0) as file:
        for chunk in chunks:
            _write_all(file, chunk)
        os.fsync(file.fileno())


def _write_all(file: RawIOBase, data: Buffer) -> None:
    rest = memoryview(data)
    while rest.nbytes:  # the kernel writes at most 2 GiB at a time
        rest = rest[file.write(rest) :]


def _publish(temporary: Path, target: Path, replace: bool) -> None:
    if not replace:
        try:
            os.link(temporary, target)  # unlike a rename, this fails where the target exists
            return
        except OSError:  # also on a file system without hard links
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
    os.replace(temporary, target)  # noqa: PTH105 (a test replaces it)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; a file system that cannot sync folders is left alone."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


# Reading


def read_bytes(path: str | Path, *, max_bytes: int | None = None, what: str | None = None) -> bytes:
    """Read a regular file that the caller named; links are followed.

    Args:
        path: The file.
        max_bytes: Most bytes that are read.
        what: What it is, for the error message.

    Raises:
        StoreError: When it cannot be read or is no regular file.
        MalformedError: When it is longer than ``max_bytes``.
    """
    with _open_regular(path) as file, _store_errors(path, "read"):
        data = file.read() if max_bytes is None else file.read(max_bytes + 1)
    if max_bytes is not None and len(data) > max_bytes:
        raise MalformedError(
            f"longer than {max_bytes} bytes, the most that {what or 'it'} can be", where=str(path)
        )
    return data


def stream_sha256(path: str | Path) -> tuple[int, str]:
    """Size and SHA-256 of a regular file, a piece at a time; links are followed.

    Raises:
        StoreError: When it cannot be read or is no regular file.
    """
    size, digest = 0, hashlib.sha256()
    with _open_regular(path) as file, _store_errors(path, "read"):
        while chunk := file.read(CHUNK_BYTES):
            size += len(chunk)
            digest.update(chunk)
    return size, digest.hexdigest()


def read_tensors(source: str | Path | Buffer, *, what: str) -> tuple[dict[str, RawTensor], object]:
    """Read a safetensors file.

    Args:
        source: A path that the caller named, or the bytes themselves; for a file that a
            manifest lists, those of :func:`safe_read`.
        what: What is being read, for the error message.

    Returns:
        The tensors by name, as views of the file's bytes, and the metadata.

    Raises:
        StoreError: When the file cannot be read.
        FormatError: When it is no safetensors file.
    """
    data = read_bytes(source, what=what) if isinstance(source, (str, Path)) else source
    return tensor_file.from_bytes(data, what=what)


@contextlib.contextmanager
def open_tensors(path: str | Path, *, what: str) -> Iterator[tuple[dict[str, FileTensor], object]]:
    """Open a safetensors file that the caller named; its tensors stay in it until they are read.

    Raises:
        StoreError: When the file cannot be read, here or later.
        FormatError: When it is no safetensors file.
    """
    with _open_regular(path) as file:

        def read(start: int, n_bytes: int) -> bytes:
            with _store_errors(path, "read"):
                data = os.pread(file.fileno(), n_bytes, start)
            if len(data) != n_bytes:
                raise StoreError(f"cannot read {str(path)!r}: it changed meanwhile")
            return data

        def read_into(start: int, memory: memoryview) -> None:
            with _store_errors(path, "read"):
                n_read = os.preadv(file.fileno(), [memory], start)
            if n_read != len(memory):
                raise StoreError(f"cannot read {str(path)!r}: it changed meanwhile")

        size = os.fstat(file.fileno()).st_size
        yield tensor_file.from_file(read, size, what=what, read_into=read_into)


def _open_regular(path: str | Path) -> BinaryIO:
    with _store_errors(path, "read"):
        # O_NONBLOCK: opening a FIFO without a writer would wait forever
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return os.fdopen(descriptor, "rb")
        os.close(descriptor)
    raise StoreError(f"cannot read {str(path)!r}: not a regular file")
