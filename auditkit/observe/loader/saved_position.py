"""The tree that a snapshot holds of a loader's position: refused where it is none, by entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auditkit.errors import RestoreMismatch
from auditkit.observe.values.codec import Leaves, unflatten

#: Of every position.
PLACE: Mapping[str, type] = {"epoch": int, "position": int}

_HINT = "the snapshot is of another build, or was edited"


def position_tree(
    leaves: Leaves, kinds: Mapping[str, type], optional: Mapping[str, type] | None = None
) -> dict[str, Any]:
    """The tree of a captured position.

    Args:
        leaves: The component ``loader``.
        kinds: What every entry beside epoch and position is.
        optional: The same of those that need not be there.

    Raises:
        RestoreMismatch: When an entry is lacking or is something else.
        FormatError: When it is no tree.
    """
    found = entries(unflatten(leaves, where="loader"), {**PLACE, **kinds}, optional or {})
    if found["epoch"] < -1 or found["position"] < 0:
        text = f"no position in a loader: epoch {found['epoch']}, batch {found['position']}"
        raise RestoreMismatch(text, component="loader", hint=_HINT)
    return found


def iteration_tree(leaves: Leaves) -> dict[str, Any]:
    """The tree of a captured position in a loader that a loop iterates by itself; raises alike."""
    further = {"wrapper": dict, "attributes": dict, "over": dict}
    tree = position_tree(leaves, {"start": dict}, further)
    if tree["epoch"] >= 0:
        entries(tree, {"wrapper": dict}, {})
        if not _is_round(tree.get("round")):
            raise _no_entry("'round'", "two whole numbers, or None", tree["round"])
        if "over" in tree:
            entries(tree["over"], {"samplers": dict, "attributes": dict}, {}, "over: ")
    return tree


def _is_round(found: object) -> bool:
    if found is None:
        return True
    return type(found) is tuple and [*map(type, found)] == [int, int]


def entries(
    tree: object, kinds: Mapping[str, type], optional: Mapping[str, type], within: str = ""
) -> dict[str, Any]:
    """A tree whose entries are of these kinds.

    Raises:
        RestoreMismatch: When one is lacking or is something else.
    """
    if type(tree) is not dict:
        raise _no_entry(within or "the position", "dict", tree)
    for name in kinds:
        if name not in tree:
            raise RestoreMismatch(
                f"the snapshot's position in the loader lacks {within}{name!r}",
                component="loader",
                expected=", ".join(kinds),
                hint=_HINT,
            )
    for name, kind in {**optional, **kinds}.items():
        if name in tree and type(tree[name]) is not kind:
            raise _no_entry(f"{within}{name!r}", kind.__name__, tree[name])
    return tree


def _no_entry(name: str, kind: str, found: object) -> RestoreMismatch:
    return RestoreMismatch(
        f"the snapshot's position in the loader: {name} is something else",
        component="loader",
        expected=kind,
        found=type(found).__name__,
        hint=_HINT,
    )
