from __future__ import annotations

import subprocess
import sys

import pytest

import auditkit


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
