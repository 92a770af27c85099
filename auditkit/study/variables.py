"""Environment variables that a program's own code names, and that a replay will not have."""

from __future__ import annotations

import ast
import contextlib
import os
from collections.abc import Iterable, Iterator

from auditkit.processes.interpreter import is_set_by_auditkit
from auditkit.records.environment import REPLAY_VARIABLES

_READING = ("get", "setdefault", "pop")


def unreplayed_variables(sources: Iterable[bytes]) -> list[str]:
    """Variables that are set here, that the sources read by name, and that a replay lacks."""
    named: set[str] = set()
    for source in sources:
        with contextlib.suppress(SyntaxError, ValueError, RecursionError):  # no Python
            named.update(_named(ast.parse(source)))
    return sorted(
        name
        for name in named & os.environ.keys()
        if name not in REPLAY_VARIABLES and not is_set_by_auditkit(name)
    )


def _named(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(value=held, slice=ast.Constant(value=str(name)), ctx=ast.Load()):
                found = _last(held) == "environ"
            case ast.Call(ast.Attribute(held, verb), [ast.Constant(str(name)), *_]):
                found = verb == "getenv" or (verb in _READING and _last(held) == "environ")
            case ast.Call(ast.Name("getenv"), [ast.Constant(str(name)), *_]):
                found = True
            case ast.Compare(left=ast.Constant(str(name)), comparators=[held]):
                found = _last(held) == "environ"
            case _:
                continue
        if found:
            yield name


def _last(node: ast.expr) -> str:
    """``environ`` of ``os.environ``, and of ``environ``."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
