"""Archives of runs, read with distrust: a ``.zip`` or ``.tar.gz`` comes from somebody else.

Rules that it keeps:

* only folders and regular files are taken out: a link, device, FIFO or sparse file, an encrypted
  entry, a name that could lead elsewhere, and two names that some file system takes for one are
  refused, and then nothing of the archive is used;
* there are limits to the number of files, to their bytes, to how much larger than the archive they
  may be, and to what is read at a time, so that a small file cannot fill memory or disk;
* files are made anew in a folder that nobody else can write to, with no mode, owner or time from
  the archive.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from auditkit.errors import ArchiveError, StoreError, UnsafePath
from auditkit.files import artifacts
from auditkit.files.archive_kinds import GZIP, ZIP
from auditkit.formats.quote import brief
from auditkit.records.manifest import MANIFEST_NAME

#: Longest piece that is asked of an archive at a time: a header of a tar file could be any length.
_MOST_AT_ONCE = 2**23

#: What the readers of the standard library raise on bytes that are no such archive.
_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError),
    *(RecursionError, MemoryError, OverflowError, NotImplementedError, RuntimeError, struct.error),
    *(LookupError, TypeError),
)


#: Errors of the system that are due to what stands in the archive: places and names.
_BY_CONTENT = (None, errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ)


@dataclass(frozen=True)
class Limits:
    """How much is taken out of an archive at most.

    Attributes:
        files: Files.
        total_bytes: Bytes of all files together.
        ratio: How many times larger than the archive the files may be, beyond ``free_bytes``.
        free_bytes: Bytes that an archive of any length may hold.
    """

    files: int = 100_000
    total_bytes: int = 2**38
    ratio: int = 200
    free_bytes: int = 2**26


LIMITS = Limits()


@contextlib.contextmanager
def unpacked(path: Path, limits: Limits = LIMITS) -> Iterator[Path]:
    """Take an archive out into a temporary folder, which is removed afterwards.

    Args:
        path: The archive.
        limits: How much is taken out at most.

    Yields:
        The manifest in it: ``manifest.json`` at the archive's top, or in its one folder that has
        one.

    Raises:
        ArchiveError: When it is broken, holds what it must not, or no manifest or several.
        StoreError: When it cannot be read, or there is no room.
    """
    with tempfile.TemporaryDirectory(prefix="auditkit-archive-") as folder:
        target = _Target(path, Path(folder), limits)
        try:
            _take_out(path, target)
        except (ArchiveError, StoreError):
            raise
        except _BROKEN as error:
            if isinstance(error, OSError) and error.errno not in _BY_CONTENT:
                reason = error.strerror or type(error).__name__
                raise StoreError(f"cannot unpack {str(path)!r}: {reason}") from error
            text = brief(str(error) or type(error).__name__, 100)
            raise ArchiveError(f"a broken archive: {text}", where=path.name) from error
        yield target.manifest()


def _take_out(path: Path, target: _Target) -> None:
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if head.startswith(GZIP):
            _take_out_tar(file, target)
        elif head == ZIP or path.name.lower().endswith(".zip"):
            _take_out_zip(file, target)
        else:
            raise target.refuse("is called so, and is no gzip file")


class _Target:
    """The folder that an archive is taken out into, and what of it was refused.

    Args:
        archive: The archive.
        folder: The folder: new, and nobody else's.
        limits: How much is taken out at most.
    """

    def __init__(self, archive: Path, folder: Path, limits: Limits) -> None:
        self._archive, self._folder, self._limits = archive, folder, limits
        size = archive.stat().st_size
        ratio = max(limits.free_bytes, limits.ratio * size)
        self._most, self._free = min(limits.total_bytes, ratio), shutil.disk_usage(folder).free
        self._names: dict[str, str] = {}
        self._files: set[str] = set()
        self._n_entries = self._n_files = self._n_bytes = 0

    def refuse(self, why: str, name: str | None = None) -> ArchiveError:
        """The error for what must not be in an archive."""
        where = self._archive.name if name is None else f"{self._archive.name}: {brief(name, 100)}"
        return ArchiveError(why, where=where)

    def room_for(self, n_bytes: int) -> None:
        """Require that so many more bytes may be taken out.

        Raises:
            ArchiveError: When there are too many.
            StoreError: When there is no room for them.
        """
        if self._n_bytes + n_bytes > self._most:
            why = f"holds more than {self._most:,} bytes, the most that is taken out of it"
            raise self.refuse(why)
        if self._n_bytes + n_bytes > self._free:
            raise StoreError(
                f"cannot unpack {str(self._archive)!r}: no room for {n_bytes:,} bytes",
                where=str(self._folder.parent),
                hint="let $TMPDIR name a folder with more, or unpack it and give the folder",
            )

    def add(self, name: str, size: int, read: Callable[[int], bytes]) -> None:
        """Take out one file.

        Args:
            name: Its name.
            size: Its size, as the archive says.
            read: Gives so many bytes of it at most, and at its end none.
        """
        self._claim(name, is_file=True)
        self._n_files += 1
        if self._n_files > self._limits.files:
            raise self.refuse(f"holds more than {self._limits.files:,} files")
        self.room_for(size)
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        found = 0
        with os.fdopen(os.open(target, flags, 0o600), "wb") as file:
            while piece := read(artifacts.CHUNK_BYTES):
                found += len(piece)
                if found > size:
                    raise self.refuse("is longer than the archive says", name)
                file.write(piece)
        if found != size:
            raise self.refuse("is shorter than the archive says", name)
        self._n_bytes += size

    def add_folder(self, name: str) -> None:
        """Take note of a folder; it is made where a file lies in it."""
        self._claim(name.removesuffix("/"), is_file=False)

    def _claim(self, name: str, *, is_file: bool) -> None:
        """Take a name, and those of the folders above it, which no other file may have."""
        self._n_entries += 1
        if self._n_entries > 2 * self._limits.files:
            raise self.refuse(f"holds more than {2 * self._limits.files:,} entries")
        try:
            artifacts.check_name(name)
        except UnsafePath as error:
            raise self.refuse(error.message) from None
        parts = name.split("/")
        if len(parts) > artifacts.MAX_SURVEYED_DEPTH:
            raise self.refuse("lies too deep", name)
        for end in range(1, len(parts)):
            self._claim_one("/".join(parts[:end]), is_file=False)
        self._claim_one(name, is_file=is_file)

    def _claim_one(self, name: str, *, is_file: bool) -> None:
        kind = f"{name}/" if not is_file else name
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        earlier = self._names.setdefault(key, kind)
        if earlier != kind or (is_file and key in self._files):
            raise self.refuse("stands there twice, or differs from another name in case only", name)
        if is_file:
            self._files.add(key)

    def manifest(self) -> Path:
        """The one manifest that an archive is about."""
        files = [name for name in self._names.values() if not name.endswith("/")]
        names = [name for name in files if name.rpartition("/")[2] == MANIFEST_NAME]
        depth = min((name.count("/") for name in names), default=0)
        found = [name for name in names if name.count("/") == depth]
        if len(found) == 1:
            return self._folder / found[0]
        if not found:
            raise self.refuse(f"holds no {MANIFEST_NAME}")
        raise ArchiveError(
            f"holds {len(found)} manifests: {', '.join(brief(name) for name in found[:3])}",
            where=self._archive.name,
            hint="unpack it, and name the one that is meant",
        )


def _take_out_zip(file: IO[bytes], target: _Target) -> None:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        target.room_for(sum(entry.file_size for entry in entries))
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if entry.orig_filename != entry.filename:
                raise target.refuse("a name that ends before its end", entry.orig_filename)
            if entry.flag_bits & 0x1:
                raise target.refuse("is encrypted", entry.filename)
            if entry.is_dir() and kind in (0, stat.S_IFDIR):
                target.add_folder(entry.filename)
                continue
            if entry.is_dir() or kind not in (0, stat.S_IFREG):
                raise target.refuse("is no regular file", entry.filename)
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise target.refuse("is compressed in a way that is not read", entry.filename)
            with archive.open(entry) as content:
                target.add(entry.filename, entry.file_size, content.read)


def _take_out_tar(file: IO[bytes], target: _Target) -> None:
    plain = _Forward(gzip.GzipFile(fileobj=file), target)
    with tarfile.open(fileobj=plain, mode="r:", errorlevel=2) as archive:
        for entry in archive:
            if entry.isdir():
                if entry.name.strip("./"):
                    target.add_folder(_plain_name(entry.name))
                continue
            if not entry.isreg() or entry.issparse():
                raise target.refuse("is no regular file", entry.name)
            content = archive.extractfile(entry)
            assert content is not None  # noqa: S101 # it is a regular file
            target.add(_plain_name(entry.name), entry.size, content.read)
    plain.read(_MOST_AT_ONCE)  # what pads it, and the checksum of all of it
    if plain.read(1):
        raise target.refuse("goes on after its end")


def _plain_name(name: str) -> str:
    """The name as ``tar -C FOLDER .`` writes it, without the dot."""
    return name.removeprefix("./").removesuffix("/")


class _Forward(io.RawIOBase):
    """A stream that is read from its beginning to its end, in pieces of bounded length.

    Args:
        stream: What is read.
        target: Says how much may be read in all.
    """

    def __init__(self, stream: gzip.GzipFile, target: _Target) -> None:
        self._stream, self._target, self._at = stream, target, 0

    def read(self, size: int | None = -1) -> bytes:
        """So many bytes; less at the end."""
        if size is None or not 0 <= size <= _MOST_AT_ONCE:
            raise self._target.refuse("a header that is too long")
        data = self._stream.read(size)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go forward, by reading."""
        if whence != os.SEEK_SET or offset < self._at:
            raise self._target.refuse("entries that do not follow each other")
        self._target.room_for(offset - self._at)
        while self._at < offset and self.read(min(offset - self._at, _MOST_AT_ONCE)):
            pass
        return self._at

    def tell(self) -> int:
        """Where it is."""
        return self._at

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """Forward."""
        return True
