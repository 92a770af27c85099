"""Memory that a worker frees stays with it, since the next step allocates as much again.

glibc gives freed memory back to the system as soon as a few of the largest blocks are free, so
that a step, or a look at the probe, with some megabytes of activations pays a page fault for
every 4 kB of them each time it begins: up to a third of its processor time.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

#: Parameters of glibc's ``mallopt``, and how they are called where a user has set them.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_SET_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")

#: Larger blocks always go back at once; glibc allows no more.
_LARGEST_KEPT = 32 << 20

#: How much may be kept, in bytes.
KEPT = 64 << 20


def keep_freed_memory(variables: Mapping[str, str] = os.environ) -> None:
    """Have this process, and those forked from it, keep what they free, up to :data:`KEPT` bytes.

    Does nothing where the C library is another one, or the user has said what it is to do.

    Args:
        variables: Of this process.
    """
    if any(name in variables for name in _SET_BY_USER):
        return
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: on Windows
        return
    set_option(_MMAP_THRESHOLD, _LARGEST_KEPT)
    set_option(_TRIM_THRESHOLD, KEPT)
