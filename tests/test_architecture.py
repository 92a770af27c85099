from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from architecture import (
    MAX_FUNCTION_LINES,
    MAX_MODULE_LINES,
    ROOMS,
    RULES,
    TORCH,
    Rule,
    every_module_has_a_room,
    every_module_says_what_it_does,
    functions_are_short,
    imports_go_down,
    imports_of,
    in_rooms,
    modules_are_short,
    no_cycles,
    no_import_inside_a_function,
    no_stage_imports_a_stage,
    nothing_is_pickled,
    only_cli_talks,
    only_one_room_opens_files,
    read_package,
    standard_library_only,
    torch_only_where_programs_live,
)

PACKAGE = read_package(Path(__file__).parents[1] / "auditkit")

#: Modules that need what may not be installed.
NEEDS = {"auditkit.engines.dask_engine": "distributed", "auditkit.engines.ray_engine": "ray"}

#: Reading, judging and starting workers: everything outside the rooms where torch is at home.
WITHOUT_TORCH = tuple(
    name
    for name in PACKAGE
    if not in_rooms(name, TORCH)
    and name != "auditkit.__main__"
    and importlib.util.find_spec(NEEDS.get(name, "auditkit"))
)

LONG_FUNCTION = "def f():\n" + "    pass\n" * MAX_FUNCTION_LINES

#: A rule, a module that breaks it, and what else there is.
FAULTS: list[tuple[Rule, str, str, dict[str, str]]] = [
    (every_module_has_a_room, "helpers", "", {}),
    (every_module_has_a_room, "filesystem", "", {}),
    (imports_go_down, "errors", "from auditkit.files.store import read_bytes", {}),
    (imports_go_down, "errors", "import auditkit.files.store", {}),
    (imports_go_down, "errors", "import auditkit.files.store as s", {}),
    (imports_go_down, "errors", "from auditkit.files import store", {}),
    (imports_go_down, "errors", "from .files import store", {}),
    (imports_go_down, "errors", "from .files.store import read_bytes", {}),
    (imports_go_down, "records.plan", "from ..files.store import read_bytes", {}),
    (imports_go_down, "records", "from ..files import store", {"records.plan": ""}),
    (imports_go_down, "errors", "if TYPE_CHECKING:\n    from auditkit.files import store", {}),
    (imports_go_down, "errors", "def f():\n    from auditkit.files import store", {}),
    (imports_go_down, "errors", "importlib.import_module('auditkit.files.store')", {}),
    (imports_go_down, "formats.schema", "from auditkit.files import store", {}),
    (imports_go_down, "observe.rng", "from auditkit.observe import state", {"observe.state": ""}),
    (imports_go_down, "diagnose.runs", "from auditkit import Program", {}),
    (imports_go_down, "diagnose.runs", "import auditkit", {}),
    (imports_go_down, "files.store", "from auditkit.cli.group import main", {"cli.group": ""}),
    (
        no_cycles,
        "files.store",
        "from auditkit.files import locks",
        {"files.locks": "import auditkit.files.store"},
    ),
    (
        no_cycles,
        "records.plan",
        "if TYPE_CHECKING:\n    from auditkit.records.job import Job",
        {"records.job": "from auditkit.records.plan import StudyPlan"},
    ),
    (
        no_cycles,
        "files.store",
        "from auditkit.files import locks",
        {
            "files.locks": "def f():\n    from auditkit.files import artifacts",
            "files.artifacts": "import auditkit.files.store",
        },
    ),
    (
        no_stage_imports_a_stage,
        "study.stages.forker",
        "from auditkit.study.stages.auditor import Auditor",
        {"study.stages.auditor": ""},
    ),
    (
        no_stage_imports_a_stage,
        "study.stages.forker",
        "from .auditor import Auditor",
        {"study.stages.auditor": ""},
    ),
    (standard_library_only, "records.plan", "import numpy as np", {}),
    (standard_library_only, "manual.pages", "import rich", {}),
    (
        standard_library_only,
        "records.plan",
        "import auditkit.formats.canonical",
        {},
    ),
    (torch_only_where_programs_live, "files.store", "import torch", {}),
    (torch_only_where_programs_live, "files.store", "from torch.nn import functional", {}),
    (torch_only_where_programs_live, "files.store", "def f():\n    import torch", {}),
    (torch_only_where_programs_live, "files.store", "importlib.import_module('torch')", {}),
    (torch_only_where_programs_live, "study.runner", "import torch", {}),
    (torch_only_where_programs_live, "cli.worker", "import torch", {}),
    (only_cli_talks, "files.store", "import click", {}),
    (only_cli_talks, "files.store", "from rich.table import Table", {}),
    (only_cli_talks, "files.store", "print('hello')", {}),
    (only_cli_talks, "files.store", "say = print", {}),
    (only_cli_talks, "files.store", "import sys\nsys.exit(1)", {}),
    (only_cli_talks, "files.store", "from sys import exit as leave\nleave()", {}),
    (only_cli_talks, "files.store", "raise SystemExit(1)", {}),
    (only_cli_talks, "files.store", "import sys\nsys.stdout.write('hello')", {}),
    (only_one_room_opens_files, "diagnose.runs", "open('x')", {}),
    (only_one_room_opens_files, "diagnose.runs", "import os\nos.open('x', 0)", {}),
    (
        only_one_room_opens_files,
        "diagnose.runs",
        "from os import open as o\no('x', 0)",
        {},
    ),
    (only_one_room_opens_files, "diagnose.runs", "path.open()", {}),
    (only_one_room_opens_files, "diagnose.runs", "Path('x').read_text()", {}),
    (
        only_one_room_opens_files,
        "diagnose.runs",
        "(folder / 'x').write_bytes(b'')",
        {},
    ),
    (only_one_room_opens_files, "diagnose.runs", "path.unlink()", {}),
    (
        only_one_room_opens_files,
        "diagnose.runs",
        "import shutil\nshutil.rmtree('x')",
        {},
    ),
    (
        only_one_room_opens_files,
        "diagnose.runs",
        "import numpy as np\nnp.load('x')",
        {},
    ),
    (
        only_one_room_opens_files,
        "diagnose.runs",
        "store = Path('x')\nstore.read_bytes()",
        {},
    ),
    (only_one_room_opens_files, "diagnose.runs", "from io import open\nopen('x')", {}),
    (nothing_is_pickled, "observe.values.codec", "import pickle", {}),
    (nothing_is_pickled, "observe.values.codec", "from marshal import loads", {}),
    (nothing_is_pickled, "observe.values.codec", "import shelve as s", {}),
    (nothing_is_pickled, "observe.values.codec", "import torch\ntorch.save({}, file)", {}),
    (nothing_is_pickled, "observe.values.codec", "from torch import load\nload(file)", {}),
    (nothing_is_pickled, "files.store", "np.load(file, allow_pickle=True)", {}),
    (nothing_is_pickled, "files.store", "np.load(file, allow_pickle=flag)", {}),
    (no_import_inside_a_function, "diagnose.runs", "def f():\n    import json", {}),
    (
        no_import_inside_a_function,
        "diagnose.runs",
        "class C:\n    def f(self):\n        import json",
        {},
    ),
    (every_module_says_what_it_does, "diagnose.runs", "x = 1", {}),
    (modules_are_short, "diagnose.runs", "x = 1\n" * (MAX_MODULE_LINES + 1), {}),
    (functions_are_short, "diagnose.runs", LONG_FUNCTION, {}),
    (
        functions_are_short,
        "diagnose.runs",
        "class C:\n    async " + LONG_FUNCTION[:-1].replace("\n", "\n    "),
        {},
    ),
]

#: What looks like a fault and is none.
INNOCENT: list[tuple[str, str]] = [
    ("diagnose.runs", "from auditkit.version import __version__"),
    ("diagnose.runs", "from auditkit.files import store"),
    ("diagnose.runs", "from auditkit.files import store\nstore.read_bytes('x')"),
    (
        "diagnose.runs",
        "from auditkit.files import store as files\nfiles.write_bytes('x', b'')",
    ),
    ("diagnose.runs", "from auditkit.files.store import read_bytes\nread_bytes('x')"),
    ("diagnose.runs", "text.replace('a', 'b')\nreopen(fingerprint)\nrecord.exit_code"),
    ("diagnose.runs", "np.asarray(x, allow_pickle=False)\nshutil.get_terminal_size()"),
    ("diagnose.runs", "import os\nos.fdopen(pipe)"),
    ("files.store", "open('x')"),
    ("records.plan", "from auditkit.records.digest import Digest\nimport json"),
    ("observe.rng.streams", "import torch"),
    ("cli.worker", "def f():\n    import torch"),
    ("cli.group", "import click\nprint('x')"),
    ("diagnose.runs", "x = 1\n" * (MAX_MODULE_LINES - 1)),
    ("diagnose.runs", LONG_FUNCTION.removesuffix("    pass\n")),
]


def planted(module: str, source: str, others: dict[str, str]) -> dict[str, str]:
    names = {"files": '"""."""', "files.store": '"""."""', "version": '"""."""', **others}
    names[module] = source
    return {"auditkit": '"""."""', **{f"auditkit.{name}": text for name, text in names.items()}}


def innocent(module: str, source: str) -> dict[str, str]:
    others = {"records": '"""."""', "records.digest": '"""."""'}
    return planted(module, f'"""."""\n{source}', others)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps(rule: Rule) -> None:
    assert rule(PACKAGE) == []


@pytest.mark.parametrize(
    ("rule", "module", "source", "others"),
    FAULTS,
    ids=[f"{rule.__name__}-{n}" for n, (rule, *_) in enumerate(FAULTS)],
)
def test_a_planted_fault_is_found(
    rule: Rule, module: str, source: str, others: dict[str, str]
) -> None:
    found = rule(planted(module, source, others))
    assert len(found) == 1
    assert module in found[0]


@pytest.mark.parametrize(("module", "source"), INNOCENT, ids=range(len(INNOCENT)))
def test_what_is_allowed_is_not_found(module: str, source: str) -> None:
    sources = innocent(module, source)
    assert [line for rule in RULES for line in rule(sources)] == []


def test_every_rule_has_a_planted_fault() -> None:
    assert {rule for rule, *_ in FAULTS} == set(RULES)


def test_the_table_of_rooms_names_only_what_exists() -> None:
    assert len(ROOMS) == len(set(ROOMS))
    assert [name for name in ROOMS if f"auditkit.{name}" not in PACKAGE] == []


def test_relative_imports_are_resolved() -> None:
    sources = {
        "auditkit": "from . import store",
        "auditkit.records": "from .plan import StudyPlan\nfrom ..errors import AuditError",
        "auditkit.records.plan": "from .digest import Digest\nfrom .. import errors",
    }
    assert {name: [item.target for item in imports_of(name, sources)] for name in sources} == {
        "auditkit": ["auditkit.store"],
        "auditkit.records": ["auditkit.records.plan.StudyPlan", "auditkit.errors.AuditError"],
        "auditkit.records.plan": ["auditkit.records.digest.Digest", "auditkit.errors"],
    }


def test_what_needs_no_torch_loads_none() -> None:
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name + ' loads torch'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *WITHOUT_TORCH], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
