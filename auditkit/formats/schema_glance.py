"""A JSON Schema as one function, for the many values that fit it.

jsonschema takes a quarter of a second for a manifest of 20 seeds, and a tenth to be loaded. What
is made here looks at the same value in a few hundredths. It is sure only where it says yes: then
jsonschema says so, too (a test holds one against the other). To a value of which it is not sure,
because it does not fit, is of a class of its own, or only asks for rarer rules, it says no, and
:mod:`auditkit.formats.schema` asks jsonschema, whose verdict and words count.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Fits = Callable[[Any], bool]

#: What stands in a schema for its readers.
_SAID = frozenset({"$schema", "$id", "$defs", "title", "description"})

_TYPES: Mapping[str, tuple[type, ...]] = {
    "array": (list,),
    "boolean": (bool,),
    "integer": (int,),
    "null": (type(None),),
    "number": (int, float),
    "object": (dict,),
    "string": (str,),
}

# What may stand before a `$` that is no end of text: an escape or a character class.
_DOLLAR = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\$", re.DOTALL)


class _UnknownError(Exception):
    """A schema that says something that this module does not know."""


@functools.cache
def strict_pattern(pattern: str) -> re.Pattern[str]:
    """A schema's pattern for Python: ``$`` is the end of the text, digits are ASCII."""
    return re.compile("(?a)" + _DOLLAR.sub(lambda m: r"\Z" if m[0] == "$" else m[0], pattern))


def glance(schema: object) -> Fits:
    """The function of a schema; one that says no to everything where it is not understood."""
    try:
        return _Reader(schema).fits(schema)
    except _UnknownError:
        return _never


def _always(_: Any) -> bool:
    return True


def _never(_: Any) -> bool:
    return False


class _Reader:
    """Reads one schema; what several places refer to is read once."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._referred: dict[str, Fits | None] = {}

    def fits(self, node: object) -> Fits:
        """The function of one schema in it."""
        if node is True:
            return _always
        if not isinstance(node, dict):
            raise _UnknownError
        left, tests = set(node) - _SAID, []
        for keywords, make in self._rules():
            if left & keywords:
                tests.append(make(node))
                left -= keywords
        if left:
            raise _UnknownError
        return _all(tests)

    def _rules(self) -> Iterable[tuple[frozenset[str], Callable[[dict[str, Any]], Fits]]]:
        """By the keywords that they are about, the cheapest first."""
        yield frozenset({"type"}), _type
        yield frozenset({"const", "enum"}), _choice
        yield frozenset({"minLength", "maxLength", "pattern"}), _text
        yield frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}), _number
        yield frozenset({"$ref"}), self._reference
        yield frozenset({"anyOf"}), self._any_of
        yield frozenset({"items", "minItems", "maxItems", "uniqueItems"}), self._array
        yield frozenset({"minProperties", "maxProperties", "propertyNames"}), self._names
        yield frozenset({"properties", "required", "additionalProperties"}), self._object
        yield frozenset({"if", "then"}), self._then

    def _reference(self, node: dict[str, Any]) -> Fits:
        path = node["$ref"]
        if path not in self._referred:
            self._referred[path] = None
            here: Any = self._root
            start, *parts = path.split("/")
            for part in parts:
                here = here.get(part) if isinstance(here, dict) else None
            if start != "#" or here is None:
                raise _UnknownError
            self._referred[path] = self.fits(here)
        found = self._referred[path]
        if found is None:  # it refers to itself
            raise _UnknownError
        return found

    def _any_of(self, node: dict[str, Any]) -> Fits:
        members = [self.fits(member) for member in node["anyOf"]]
        return lambda value: any(member(value) for member in members)

    def _then(self, node: dict[str, Any]) -> Fits:
        # What is asked of some values is asked of all here: the others are not sure.
        return self.fits(node.get("then", True))

    def _array(self, node: dict[str, Any]) -> Fits:
        least, most = node.get("minItems", 0), node.get("maxItems", float("inf"))
        item, unique = self.fits(node.get("items", True)), node.get("uniqueItems", False)

        def fits(value: Any) -> bool:
            if type(value) is not list:
                return not isinstance(value, list)
            if not least <= len(value) <= most or (unique and not _are_unique(value)):
                return False
            return item is _always or all(map(item, value))

        return fits

    def _names(self, node: dict[str, Any]) -> Fits:
        least, most = node.get("minProperties", 0), node.get("maxProperties", float("inf"))
        name = self.fits(node.get("propertyNames", True))

        def fits(value: Any) -> bool:
            if type(value) is not dict:
                return not isinstance(value, dict)
            return least <= len(value) <= most and all(map(name, value))

        return fits

    def _object(self, node: dict[str, Any]) -> Fits:
        others = node.get("additionalProperties", True)
        other = _never if others is False else self.fits(others)
        properties = {name: self.fits(each) for name, each in node.get("properties", {}).items()}
        required = frozenset(node.get("required", ()))

        def fits(value: Any) -> bool:
            if type(value) is not dict:
                return not isinstance(value, dict)
            if not value.keys() >= required:
                return False
            return all(properties.get(name, other)(item) for name, item in value.items())

        return fits


def _all(tests: list[Fits]) -> Fits:
    if len(tests) == 1:
        return tests[0]
    return lambda value: all(test(value) for test in tests)


def _type(node: dict[str, Any]) -> Fits:
    names = node["type"]
    names = [names] if isinstance(names, str) else names
    if not set(names) <= set(_TYPES):
        raise _UnknownError
    kinds = frozenset(kind for name in names for kind in _TYPES[name])
    return lambda value: type(value) in kinds


def _choice(node: dict[str, Any]) -> Fits:
    choices = [*node.get("enum", ()), *([node["const"]] if "const" in node else ())]
    if ("enum" in node and "const" in node) or not all(
        choice is None or type(choice) is str for choice in choices
    ):
        raise _UnknownError  # numbers and truth are equal in Python, and not in JSON
    return lambda value: (value is None or type(value) is str) and value in choices


def _text(node: dict[str, Any]) -> Fits:
    least, most = node.get("minLength", 0), node.get("maxLength", float("inf"))
    search = strict_pattern(node.get("pattern", "")).search

    def fits(value: Any) -> bool:
        if type(value) is not str:
            return not isinstance(value, str)
        return least <= len(value) <= most and search(value) is not None

    return fits


def _number(node: dict[str, Any]) -> Fits:
    infinity = float("inf")
    least, most = node.get("minimum", -infinity), node.get("maximum", infinity)
    over, under = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")

    def fits(value: Any) -> bool:
        if type(value) not in (int, float):
            return value is None or type(value) in (str, bool, list, dict)
        if not least <= value <= most:
            return False
        return (over is None or value > over) and (under is None or value < under)

    return fits


def _are_unique(value: list[Any]) -> bool:
    """Whether all are of one kind, and different; other lists are not sure."""
    kinds = set(map(type, value))
    return kinds in ({int}, {str}, set()) and len(set(value)) == len(value)
