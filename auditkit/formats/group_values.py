"""Hyper-parameters of an optimizer's groups, read from their captured text, without torch.

``param_groups`` is a list of dicts in the encoding of ``auditkit.observe.values.flatten``. Plain
values are read; tensors and what else is no plain value are left out.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress

from auditkit.errors import JsonError
from auditkit.formats.canonical import loads

#: The component; those of optimizers that an optimizer holds are below it.
GROUPS = "param_groups"

#: A plain value of a group.
Plain = bool | int | float | str | None

Values = Mapping[str, Plain]


def is_groups(name: str) -> bool:
    """Whether a component holds the groups of an optimizer, or a number is one of them."""
    return name.startswith(GROUPS) and name[len(GROUPS) :][:1] in ("", "/", "[")


def group_values(component: str, text: bytes | None) -> dict[str, Plain]:
    """Values by name, as ``param_groups[0].lr``.

    Args:
        component: ``param_groups``, or one below it.
        text: Its structure, the entry ``""``; what is none has no values.
    """
    try:
        groups = None if text is None else loads(text, what=component)
    except JsonError:
        return {}
    found: dict[str, Plain] = {}
    for number, group in enumerate(groups if isinstance(groups, list) else ()):
        for name, value in _items(group):
            if name != "params":
                found.update(_plain(f"{component}[{number}].{name}", value))
    return found


def hyper_parameters(description: Mapping[str, str]) -> dict[str, str]:
    """The hyper-parameters that a manifest has for people, by group and name."""
    groups = description.get("hyper-parameters", "").split("; ")
    pairs = (
        (f"{GROUPS}[{number}].{name}", value)
        for number, group in enumerate(groups)
        for name, equals, value in (part.partition("=") for part in re.split(r", (?=\w+=)", group))
        if equals
    )
    return dict(pairs)


def numbers(values: Values) -> dict[str, float]:
    """Those of the values that are finite numbers."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and _is_finite(value)
    }


def parsed_numbers(texts: Mapping[str, str]) -> dict[str, float]:
    """Those of the texts that are finite numbers."""
    found = {}
    for name, text in texts.items():
        with suppress(ValueError):
            found[name] = float(text)
    return numbers(found)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _items(node: object) -> Iterator[tuple[str, object]]:
    """Keys and values of a dict's node."""
    if not isinstance(node, dict) or node.get("$") != "dict":
        return
    keys, values = node.get("keys"), node.get("values")
    if isinstance(keys, list) and isinstance(values, list):
        for key, value in zip(keys, values, strict=False):
            if isinstance(key, str) and key.isprintable():
                yield key, value


def _plain(name: str, node: object) -> Iterator[tuple[str, Plain]]:
    """A node's plain values; of a pair, such as Adam's betas, one each."""
    if node is None or isinstance(node, (bool, int, str)):
        yield name, node
    elif isinstance(node, dict) and node.get("$") == "float":
        try:
            yield name, struct.unpack(">d", bytes.fromhex(str(node.get("bits"))))[0]
        except (ValueError, struct.error):
            return
    elif isinstance(node, dict) and node.get("$") == "tuple":
        items = node.get("items")
        for number, item in enumerate(items if isinstance(items, list) else ()):
            yield from _plain(f"{name}[{number}]", item)
