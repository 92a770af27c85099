"""Which files are archives, by what is at their beginning or by their names.

Every command asks this of what it is given; few are given one, and then load
:mod:`auditkit.files.archives`.
"""

from __future__ import annotations

import stat
from pathlib import Path

from auditkit.errors import ArchiveError

ZIP, GZIP = b"PK\x03\x04", b"\x1f\x8b"

#: Archives that are not read, by what is at their beginning; and the ends of such names.
_OTHER_KINDS = (b"7z\xbc\xaf\x27\x1c", b"Rar!", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_ENDINGS = (".zip", ".tgz", ".tar.gz")


def is_archive(path: Path) -> bool:
    """Whether a path is a file that is an archive by its content, or by its name.

    Raises:
        ArchiveError: When it is an archive of a kind that is not read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            head = file.read(8)
    except (OSError, ValueError):
        return False  # whoever reads it says why not
    if head.startswith(_OTHER_KINDS) or path.name.lower().endswith(".tar"):
        raise ArchiveError(
            "an archive of this kind is not read",
            where=path.name,
            hint="unpack it and give the folder, or give a .zip or .tar.gz",
        )
    return head.startswith((ZIP, GZIP)) or path.name.lower().endswith(_ENDINGS)
