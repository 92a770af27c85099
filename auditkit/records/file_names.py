"""Values of parameters as parts of file names, which other systems must take, too."""

from __future__ import annotations

import re
from urllib.parse import unquote

#: What patterns are made of, and no file name on every system holds; and the sign for it.
_UNFIT = re.compile(r'[%*?\[\]/\\:<>|"]')


def in_file_name(value: object) -> str:
    """A value as it stands in the name of a branch: ``*`` is ``%2A``."""
    return _UNFIT.sub(lambda found: f"%{ord(found[0]):02X}", str(value))


def from_file_name(text: str) -> str:
    """Inverse of :func:`in_file_name`."""
    return unquote(text)
