from __future__ import annotations

import inspect
import re
import subprocess
import sys
import typing
from dataclasses import is_dataclass
from typing import Any

import pytest

import auditkit
from auditkit import types


def test_all_is_what_the_module_shows() -> None:
    assert sorted(auditkit.__all__) == dir(auditkit)
    assert len(set(auditkit.__all__)) == len(auditkit.__all__)


@pytest.mark.parametrize("name", auditkit.__all__)
def test_every_export_is_there(name: str) -> None:
    value = getattr(auditkit, name)
    if name != "__version__":
        assert value.__name__ == name
        assert value.__module__ == auditkit._HOMES[name]


def test_every_export_has_a_home_and_no_home_is_hidden() -> None:
    assert {*auditkit._HOMES, "__version__"} == set(auditkit.__all__)


def named_by(owner: type) -> set[str]:
    """Classes of auditkit that the public signatures and fields of a class name."""
    members = [getattr(owner, name) for name in vars(owner) if not name.startswith("_")]
    texts = [str(note) for note in inspect.get_annotations(owner).values()]
    for member in (owner, *members):
        target = member.fget if isinstance(member, property) else member
        if callable(target):
            texts.append(str(inspect.signature(target)))
    words = set(re.findall(r"[A-Za-z_]\w*", " ".join(texts)))
    there = vars(sys.modules[owner.__module__])
    classes = (there[word] for word in words if inspect.isclass(there.get(word)))
    return {found.__name__ for found in classes if found.__module__.startswith("auditkit")}


@pytest.mark.parametrize(
    "owner",
    [value for name in auditkit.__all__ if inspect.isclass(value := getattr(auditkit, name))],
    ids=lambda owner: owner.__name__,
)
def test_what_a_public_class_takes_and_gives_is_public_too(owner: type) -> None:
    assert named_by(owner) <= {*auditkit.__all__, *types.__all__}


def reached_from(annotation: Any) -> set[type]:
    """Classes of auditkit that an annotation names, and those that their fields do."""
    found: set[type] = set()
    waiting = [annotation]
    while waiting:
        named = waiting.pop()
        waiting += typing.get_args(named)
        kind = typing.get_origin(named) or named
        if not inspect.isclass(kind) or kind in found or not kind.__module__.startswith("auditkit"):
            continue
        found.add(kind)
        if is_dataclass(kind):
            waiting += typing.get_type_hints(kind).values()
    return found


def test_whatever_a_function_gives_consists_of_public_classes() -> None:
    functions = [
        value for name in auditkit.__all__ if inspect.isfunction(value := getattr(auditkit, name))
    ]
    assert {function.__name__ for function in functions} >= {"verify", "load_manifest", "diff"}
    for function in functions:
        reached = reached_from(typing.get_type_hints(function)["return"])
        public = {*auditkit.__all__, *types.__all__}
        assert {kind.__name__ for kind in reached} <= public, function.__name__


def test_the_public_classes_are_listed_once_in_order() -> None:
    assert list(types.__all__) == sorted(set(types.__all__))
    assert all(inspect.isclass(getattr(types, name)) for name in types.__all__)


def test_a_class_that_names_others_is_seen_to() -> None:
    assert "TrainingObjects" in named_by(auditkit.Program)
    assert "Probe" in named_by(auditkit.Program)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'auditkit' has no attribute 'Programm'"):
        auditkit.Programm  # noqa: B018


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import auditkit\n"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "heavy = loaded - set(sys.stdlib_module_names) - {'auditkit'}\n"
        "assert not heavy, heavy\n"
        "auditkit.StudyPlan, auditkit.AuditError, auditkit.PerturbationSpec\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
