"""Values of parameters as parts of file names, which other systems must take, too.

And the names of what may lie beside a manifest that does not list it.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

#: What patterns are made of, and no file name on every system holds; and the sign for it.
_UNFIT = re.compile(r'[%*?\[\]/\\:<>|"]')

#: The result of a replay, by who signs it and when; as earlier builds wrote it.
_REPLAY = re.compile(r"replay-[0-9a-f]{16}-[0-9]{8}T[0-9]{12}Z\.json|replay\.json", re.ASCII)


def is_replay_result(name: str) -> bool:
    """Whether a file beside a manifest is named as a replay's result."""
    return _REPLAY.fullmatch(name) is not None


def in_file_name(value: object) -> str:
    """A value as it stands in the name of a branch: ``*`` is ``%2A``."""
    return _UNFIT.sub(lambda found: f"%{ord(found[0]):02X}", str(value))


def from_file_name(text: str) -> str:
    """Inverse of :func:`in_file_name`."""
    return unquote(text)
