"""Numbers by which a script counts the steps itself: no checkpoint holds them.

A resumed loop begins such a number anew, and where it is looked at only later (a phase that begins
at step 5,000), no recorded row shows the difference. So what a checkpoint notes of them is compared
with where they stand when the loop goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from auditkit.observe.state.frames import frames_of_loop, is_library_frame, local_names
from auditkit.observe.state.reach import is_library_class


def step_counters(steps: int) -> dict[str, int]:
    """Whole numbers of the script that equal the steps so far, or are one off.

    Args:
        steps: How many were taken.

    Returns:
        By how the script calls them: locals and globals of the functions that run the loop, and
        attributes of objects of its own classes that these know.
    """
    near = range(steps - 1, steps + 2)
    return {name: value for name, value in _numbers() if value in near}


def begun_anew(noted: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """What stands elsewhere now.

    Args:
        noted: What :func:`step_counters` found where the loop goes on.

    Returns:
        By name, where it stood and where it stands. What is not there yet is left out.
    """
    numbers = dict(_numbers())
    return {
        name: (there, numbers[name])
        for name, there in noted.items()
        if numbers.get(name, there) != there
    }


def _numbers() -> Iterator[tuple[str, int]]:
    seen: set[str] = set()
    for frame in frames_of_loop():
        if is_library_frame(frame):
            continue
        for names in (local_names(frame), dict(frame.f_globals)):
            for path, value in _numbers_in(names):
                if path not in seen:  # the innermost is the script's own
                    seen.add(path)
                    yield path, value


def _numbers_in(names: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, value in names.items():
        if type(value) is int:
            yield name, value
            continue
        for attribute, item in _attributes(value):
            if type(item) is int:
                yield f"{name}.{attribute}", item


def _attributes(value: Any) -> list[tuple[str, Any]]:
    """Of an object of the user's own class, or of such a class; runs none of its code."""
    is_class = type(value) is type
    owner: type = value if is_class else type(value)
    if is_library_class(owner):
        return []
    if is_class:
        return list(vars(owner).items())
    try:
        return list(object.__getattribute__(value, "__dict__").items())
    except AttributeError:  # it has slots
        return []
