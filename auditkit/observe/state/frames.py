"""The frames of the script that runs a loop, and the names in them.

Looking changes nothing. Before Python 3.13 the names of a function that is running can only be
read by way of the dict that ``locals()`` returns; functions that may have asked for that
dict are left out.
"""

from __future__ import annotations

import dis
import functools
import inspect
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from auditkit.observe.state.reach import is_library_module

OWN_PACKAGE = __name__.partition(".")[0]

_READS_LOCALS = frozenset({"locals", "vars", "dir", "eval", "exec"})


def frames_of_loop() -> Iterator[types.FrameType]:
    """The frames that this was called from, innermost first, auditkit's own left out."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if package_of_frame(frame) != OWN_PACKAGE:
            yield frame
        frame = frame.f_back


def package_of_frame(frame: types.FrameType) -> str:
    """The package whose code it runs."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def is_library_frame(frame: types.FrameType) -> bool:
    """Whether it runs code that is installed or Python's own, and not the user's."""
    return is_library_module(sys.modules.get(str(frame.f_globals.get("__name__", ""))))


def local_names(frame: types.FrameType) -> Mapping[str, Any]:
    """What its names stand for; of a module nothing, since these are globals."""
    code = frame.f_code
    if not code.co_flags & inspect.CO_OPTIMIZED:
        return {}
    if sys.version_info >= (3, 13):
        return dict(frame.f_locals)
    if _reads_locals(code):
        return {}
    values = frame.f_locals
    found = dict(values)
    values.clear()  # it would keep what the function lets go of
    return found


@functools.cache
def _reads_locals(code: types.CodeType) -> bool:
    """Whether a function may ask for its dict of locals; a method called ``eval`` does not."""
    return any(
        step.argval == "f_locals"
        if step.opname == "LOAD_ATTR"
        else step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in _READS_LOCALS
        for step in dis.get_instructions(code)
    )
