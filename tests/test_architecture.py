from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from architecture import (
    LAYERS,
    MAX_FUNCTION_LINES,
    MAX_MODULE_LINES,
    RULES,
    Rule,
    every_module_has_a_layer,
    every_module_says_what_it_does,
    functions_are_short,
    imports_go_down,
    imports_of,
    modules_are_short,
    no_cycles,
    no_import_inside_a_function,
    no_stage_imports_a_stage,
    nothing_is_pickled,
    only_cli_talks,
    only_the_store_opens_files,
    read_package,
    records_import_only_the_standard_library,
    torch_only_where_programs_live,
)

PACKAGE = read_package(Path(__file__).parents[1] / "auditkit")

#: What loads torch when it is imported: live programs, and what lives in their processes. All
#: other modules, so also new ones, run without torch: reading, judging and starting workers.
WITH_TORCH = (
    *("observe", "perturb", "pipeline", "integrations", "program", "session", "wrapping"),
    *("loop", "recording", "recordcourse", "recorder", "watched", "watchers"),
    *("jobs", "jobresults", "loopjobs", "rowstream", "tasks"),
)
WITHOUT_TORCH = tuple(
    short
    for short in (name.removeprefix("auditkit.") for name in PACKAGE)
    if short.partition(".")[0] not in ("auditkit", "__main__", *WITH_TORCH)
)

LONG_FUNCTION = "def f():\n" + "    pass\n" * MAX_FUNCTION_LINES

#: A rule, a module that breaks it, and what else there is.
FAULTS: list[tuple[Rule, str, str, dict[str, str]]] = [
    (every_module_has_a_layer, "helpers", "", {}),
    (every_module_has_a_layer, "storehouse", "", {}),
    (imports_go_down, "errors", "from auditkit.store import read_bytes", {}),
    (imports_go_down, "errors", "import auditkit.store", {}),
    (imports_go_down, "errors", "import auditkit.store as s", {}),
    (imports_go_down, "errors", "from auditkit import store", {}),
    (imports_go_down, "errors", "from . import store", {}),
    (imports_go_down, "errors", "from .store import read_bytes", {}),
    (imports_go_down, "records.plan", "from ..store import read_bytes", {}),
    (imports_go_down, "records", "from .. import store", {"records.plan": ""}),
    (imports_go_down, "errors", "if TYPE_CHECKING:\n    from auditkit import store", {}),
    (imports_go_down, "errors", "def f():\n    from auditkit import store", {}),
    (imports_go_down, "errors", "importlib.import_module('auditkit.store')", {}),
    (imports_go_down, "artifacts", "from auditkit import schema", {"schema": ""}),
    (imports_go_down, "verify", "from auditkit import Program", {}),
    (imports_go_down, "verify", "import auditkit", {}),
    (imports_go_down, "store", "from auditkit.cli.group import main", {"cli.group": ""}),
    (no_cycles, "store", "from auditkit import trust", {"trust": "import auditkit.store"}),
    (
        no_cycles,
        "records.plan",
        "if TYPE_CHECKING:\n    from auditkit.records.job import Job",
        {"records.job": "from auditkit.records.plan import StudyPlan"},
    ),
    (
        no_cycles,
        "store",
        "from auditkit import trust",
        {"trust": "def f():\n    from auditkit import keys", "keys": "import auditkit.store"},
    ),
    (
        no_stage_imports_a_stage,
        "pipeline.forker",
        "from auditkit.pipeline.auditor import Auditor",
        {"pipeline.auditor": ""},
    ),
    (
        no_stage_imports_a_stage,
        "pipeline.forker",
        "from .auditor import Auditor",
        {"pipeline.auditor": ""},
    ),
    (records_import_only_the_standard_library, "records.plan", "import numpy as np", {}),
    (records_import_only_the_standard_library, "records.plan", "import auditkit.canonical", {}),
    (torch_only_where_programs_live, "store", "import torch", {}),
    (torch_only_where_programs_live, "store", "from torch.nn import functional", {}),
    (torch_only_where_programs_live, "store", "def f():\n    import torch", {}),
    (torch_only_where_programs_live, "store", "importlib.import_module('torch')", {}),
    (torch_only_where_programs_live, "cli.worker", "import torch", {}),
    (torch_only_where_programs_live, "cli.run", "def f():\n    import torch", {}),
    (only_cli_talks, "store", "import click", {}),
    (only_cli_talks, "store", "from rich.table import Table", {}),
    (only_cli_talks, "store", "print('hello')", {}),
    (only_cli_talks, "store", "say = print", {}),
    (only_cli_talks, "store", "import sys\nsys.exit(1)", {}),
    (only_cli_talks, "store", "from sys import exit as leave\nleave()", {}),
    (only_cli_talks, "store", "raise SystemExit(1)", {}),
    (only_cli_talks, "store", "import sys\nsys.stdout.write('hello')", {}),
    (only_the_store_opens_files, "verify", "open('x')", {}),
    (only_the_store_opens_files, "verify", "import os\nos.open('x', 0)", {}),
    (only_the_store_opens_files, "verify", "from os import open as o\no('x', 0)", {}),
    (only_the_store_opens_files, "verify", "path.open()", {}),
    (only_the_store_opens_files, "verify", "Path('x').read_text()", {}),
    (only_the_store_opens_files, "verify", "(folder / 'x').write_bytes(b'')", {}),
    (only_the_store_opens_files, "verify", "path.unlink()", {}),
    (only_the_store_opens_files, "verify", "import shutil\nshutil.rmtree('x')", {}),
    (only_the_store_opens_files, "verify", "import numpy as np\nnp.load('x')", {}),
    (only_the_store_opens_files, "verify", "store = Path('x')\nstore.read_bytes()", {}),
    (only_the_store_opens_files, "verify", "from io import open\nopen('x')", {}),
    (nothing_is_pickled, "observe.codec", "import pickle", {}),
    (nothing_is_pickled, "observe.codec", "from marshal import loads", {}),
    (nothing_is_pickled, "observe.codec", "import shelve as s", {}),
    (nothing_is_pickled, "observe.codec", "import torch\ntorch.save({}, file)", {}),
    (nothing_is_pickled, "observe.codec", "from torch import load\nload(file)", {}),
    (nothing_is_pickled, "store", "np.load(file, allow_pickle=True)", {}),
    (nothing_is_pickled, "store", "np.load(file, allow_pickle=flag)", {}),
    (no_import_inside_a_function, "verify", "def f():\n    import json", {}),
    (no_import_inside_a_function, "verify", "class C:\n    def f(self):\n        import json", {}),
    (every_module_says_what_it_does, "verify", "x = 1", {}),
    (modules_are_short, "verify", "x = 1\n" * (MAX_MODULE_LINES + 1), {}),
    (functions_are_short, "verify", LONG_FUNCTION, {}),
    (
        functions_are_short,
        "verify",
        "class C:\n    async " + LONG_FUNCTION[:-1].replace("\n", "\n    "),
        {},
    ),
]

#: What looks like a fault and is none.
INNOCENT: list[tuple[str, str]] = [
    ("verify", "from auditkit import __version__"),
    ("verify", "from auditkit import store"),
    ("verify", "from auditkit import store\nstore.read_bytes('x')"),
    ("verify", "from auditkit import store as files\nfiles.write_bytes('x', b'')"),
    ("verify", "from auditkit.store import read_bytes\nread_bytes('x')"),
    ("verify", "text.replace('a', 'b')\nreopen(fingerprint)\nrecord.exit_code"),
    ("verify", "np.asarray(x, allow_pickle=False)\nshutil.get_terminal_size()"),
    ("verify", "import os\nos.fdopen(pipe)"),
    ("store", "open('x')"),
    ("records.plan", "from auditkit.records.digest import Digest\nimport json"),
    ("observe.rng", "import torch"),
    ("cli.worker", "def f():\n    import torch"),
    ("cli.group", "import click\nprint('x')"),
    ("verify", "x = 1\n" * (MAX_MODULE_LINES - 1)),
    ("verify", LONG_FUNCTION.removesuffix("    pass\n")),
]


def planted(module: str, source: str, others: dict[str, str]) -> dict[str, str]:
    names = {"store": '"""."""', **others, module: source}
    return {"auditkit": '"""."""', **{f"auditkit.{name}": text for name, text in names.items()}}


def innocent(module: str, source: str) -> dict[str, str]:
    others = {"store": '"""."""', "records": '"""."""', "records.digest": '"""."""'}
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


def test_the_table_of_layers_names_only_what_exists() -> None:
    listed = [name for group in LAYERS for name in group]
    assert len(listed) == len(set(listed))
    assert [name for name in listed if f"auditkit.{name}" not in PACKAGE] == []


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
        "    importlib.import_module('auditkit.' + name)\n"
        "    assert 'torch' not in sys.modules, 'auditkit.' + name + ' loads torch'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *WITHOUT_TORCH], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
