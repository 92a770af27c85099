"""The rules that keep the package's shape, as pure functions of its sources.

A rule takes sources by module name and returns its violations, one line each, so that every
rule can be shown to fail on a source that breaks it (see ``test_architecture.py``).
"""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Sources = Mapping[str, str]
Rule = Callable[[Sources], list[str]]

ROOT = "auditkit"

#: Lowest first: a module imports only from its own room and from earlier ones. A name stands for
#: itself and for everything below it that has no line of its own.
ROOMS: tuple[str, ...] = (
    "errors",
    "version",
    "manual",
    "records",
    "formats",
    "files",
    "signing",
    "statistics",
    "observe.values",
    "observe.rng",
    "observe.loader",
    "observe.machine",
    "observe.state",
    "observe",
    "extras",
    "perturbations",
    "program",
    "processes",
    "engines",
    "study.stages",
    "study.worker",
    "study",
    "recorder",
    "evidence",
    "replay",
    "verification",
    "diagnose",
    "paper",
    "integrations",
    "api",
    "types",
    "cli",
    "__main__",
)

#: Rooms whose modules know nothing of each other.
STAGES = ("study.stages",)

#: Rooms that import the standard library only, besides errors and records.
STANDARD = ("records", "manual")

#: Rooms where torch may be imported; the command line does so only inside a function.
TORCH = (
    *("observe", "extras", "perturbations", "program", "study.stages", "study.worker"),
    *("recorder", "integrations"),
)
TORCH_LAZILY = ("cli",)

#: Rooms where files may be opened. What has no name (pipes, anonymous temporary files) is no file,
#: and what is part of the package is found where it is used.
FILES = ("files",)
PACKAGED = ("formats.schema", "manual", "paper.self_check")

#: Rooms that print and exit; and the modules that end a user's script, quietly, or processes that
#: they forked.
PRINTERS = ("cli", "__main__")
ENDING = ("recorder.tasks", "processes.forking", "study.worker.branch_processes")

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60

_PRINTERS = {"print", "input", "exit", "quit", "sys.exit", "os._exit", "SystemExit"}
_STREAMS = {"sys.stdout", "sys.stderr"}
_OPENING = re.compile(
    r"open|(io|codecs|gzip|bz2|lzma|tarfile)\.open|io\.FileIO|zipfile\.ZipFile|"
    r"os\.(open|remove|unlink|renames?|replace|mkdir|makedirs|rmdir|removedirs|link|symlink|"
    r"truncate|mkfifo)|"
    r"shutil\.(rmtree|copy\w*|move|make_archive|unpack_archive)|"
    r"tempfile\.(NamedTemporaryFile|mkstemp|mkdtemp)|"
    r"numpy\.(load|loadtxt|genfromtxt|fromfile|memmap|save\w*)|safetensors\.safe_open"
)
_PATH_METHODS = {
    *("open", "read_text", "read_bytes", "write_text", "write_bytes", "touch", "unlink"),
    *("mkdir", "rmdir", "symlink_to", "hardlink_to", "tofile", "save_file", "load_file"),
}
_PICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
_PICKLING_CALLS = {"torch.save", "torch.load", "torch.jit.save", "torch.jit.load"}


@dataclass(frozen=True)
class Import:
    """One imported thing: a module, or a name of one."""

    target: str
    line: int
    in_function: bool


def read_package(folder: Path) -> dict[str, str]:
    """Sources by module name; a package goes by its own name."""
    found = {}
    for file in sorted(folder.rglob("*.py")):
        parts = (folder.name, *file.relative_to(folder).with_suffix("").parts)
        name = ".".join(parts).removesuffix(".__init__")
        found[name] = file.read_text(encoding="utf-8")
    return found


def imports_of(name: str, sources: Sources) -> list[Import]:
    """Everything that a module imports, wherever in it: functions and TYPE_CHECKING included."""
    is_package = name in _packages(tuple(sources))
    return list(_imports(sources[name], name if is_package else name.rpartition(".")[0]))


@functools.cache
def _packages(names: tuple[str, ...]) -> frozenset[str]:
    """Modules that others lie in."""
    parts = (name.split(".") for name in names)
    return frozenset(".".join(path[:length]) for path in parts for length in range(1, len(path)))


@functools.cache
def _imports(source: str, package: str) -> tuple[Import, ...]:
    return tuple(
        Import(target, node.lineno, in_function)
        for node, in_function in _nodes(source)
        for target in _targets(node, package)
    )


@functools.cache
def _nodes(source: str) -> tuple[tuple[ast.stmt | ast.expr, bool], ...]:
    """Every statement and expression, and whether it stands inside a function."""
    return tuple(_walk(ast.parse(source)))


def _walk(tree: ast.AST, in_function: bool = False) -> Iterator[tuple[ast.stmt | ast.expr, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.stmt, ast.expr)):
            yield node, in_function
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from _walk(node, in_function or inside)


def _targets(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *filter(None, [base])])
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        function = ast.unparse(node.func)
        if function.endswith("import_module") or function == "__import__":
            yield str(node.args[0].value)


def edges(sources: Sources) -> Iterator[tuple[str, str, Import]]:
    """Importing module, imported module of the package, and the import."""
    for name in sources:
        for item in imports_of(name, sources):
            known = item.target
            while known and known not in sources:
                known = known.rpartition(".")[0]
            if known:
                yield name, known, item


def _short(name: str) -> str:
    return name.removeprefix(f"{ROOT}.") if name != ROOT else ""


def _below(name: str, places: tuple[str, ...]) -> bool:
    short = _short(name)
    return any(short == place or short.startswith(f"{place}.") for place in places)


@functools.cache
def room_of(name: str) -> str | None:
    """The most particular room that a module lies in."""
    return max((room for room in ROOMS if _below(name, (room,))), key=len, default=None)


def in_rooms(name: str, rooms: tuple[str, ...]) -> bool:
    """Whether the room that a module lies in is one of these, or a part of one."""
    room = room_of(name)
    return room is not None and any(room == r or room.startswith(f"{r}.") for r in rooms)


# The rules


def every_module_has_a_room(sources: Sources) -> list[str]:
    """A new module is given its place in ROOMS before it is used."""
    return [
        f"{name}: has no place in ROOMS of tests/architecture.py"
        for name in sources
        if name != ROOT and room_of(name) is None
    ]


def imports_go_down(sources: Sources) -> list[str]:
    """A module imports only from its own room and lower ones; nobody imports the facade."""
    found = []
    for name, target, item in edges(sources):
        here, there = room_of(name), room_of(target)
        if name == ROOT or here is None or (there is None and target != ROOT):
            continue  # the facade names what it exports; modules without a room: another rule
        if there is None or ROOMS.index(there) > ROOMS.index(here):
            found.append(f"{name}:{item.line}: imports {target}, which is not below it")
    return found


def no_cycles(sources: Sources) -> list[str]:
    """Modules do not import each other in a circle, not even for types or inside functions."""
    graph: dict[str, set[str]] = {name: set() for name in sources}
    for name, target, _ in edges(sources):
        if name != target:
            graph[name].add(target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [" <- ".join(error.args[1])]
    return []


def no_stage_imports_a_stage(sources: Sources) -> list[str]:
    """The stages of the pipeline know nothing of each other."""
    return [
        f"{name}:{item.line}: the stage imports the stage {target}"
        for name, target, item in edges(sources)
        if _below(name, STAGES) and _below(target, STAGES) and name != target
    ]


def standard_library_only(sources: Sources) -> list[str]:
    """Records and manual stay readable without anything installed."""
    found = []
    for name in sources:
        if not _below(name, STANDARD):
            continue
        for item in imports_of(name, sources):
            standard = item.target.partition(".")[0] in sys.stdlib_module_names
            own = item.target.startswith(f"{ROOT}.") and _below(item.target, ("errors", "records"))
            if not standard and not own:
                found.append(f"{name}:{item.line}: imports {item.target}")
    return found


def torch_only_where_programs_live(sources: Sources) -> list[str]:
    """Reading, checking and verifying need no torch."""
    found = []
    for name in sources:
        for item in imports_of(name, sources):
            if item.target.partition(".")[0] not in ("torch", "torchvision", "functorch"):
                continue
            lazy = item.in_function and in_rooms(name, TORCH_LAZILY)
            if not in_rooms(name, TORCH) and not lazy:
                found.append(f"{name}:{item.line}: imports {item.target}")
    return found


def only_cli_talks(sources: Sources) -> list[str]:
    """Only the command line prints, exits, and knows click and rich."""
    found = []
    for name, source in sources.items():
        if _below(name, (*PRINTERS, *ENDING)):
            continue
        for item in imports_of(name, sources):
            if item.target.partition(".")[0] in ("click", "rich"):
                found.append(f"{name}:{item.line}: imports {item.target}")
        aliases = _aliases(name, sources)
        asked = {id(part) for node, _ in _nodes(source) for part in _asked_of_a_type(node)}
        for node, _ in _nodes(source):
            if isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in asked:
                used = _dotted(node, aliases)
                if used in _PRINTERS | _STREAMS:
                    found.append(f"{name}:{node.lineno}: uses {used}")
    return found


def _asked_of_a_type(node: ast.AST) -> list[ast.expr]:
    """Arguments of ``isinstance``: to ask how a block ended is not to end anything."""
    is_question = isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance"
    return node.args if is_question and isinstance(node, ast.Call) else []


def only_one_room_opens_files(sources: Sources) -> list[str]:
    """Files are opened, made and removed in one room."""
    found = []
    for name, source in sources.items():
        if _below(name, (*FILES, *PACKAGED)):
            continue
        aliases = _aliases(name, sources)
        for node, _ in _nodes(source):
            if not isinstance(node, ast.Call):
                continue
            called = _dotted(node.func, aliases)
            owner, _, method = called.rpartition(".")
            through_room = owner.startswith(f"{ROOT}.") and _below(owner, FILES)
            opens = _OPENING.fullmatch(called) is not None
            if opens or (owner and method in _PATH_METHODS and not through_room):
                found.append(f"{name}:{node.lineno}: calls {called}")
    return found


def nothing_is_pickled(sources: Sources) -> list[str]:
    """No format that executes code when it is read."""
    found = []
    for name, source in sources.items():
        for item in imports_of(name, sources):
            if item.target.partition(".")[0] in _PICKLERS:
                found.append(f"{name}:{item.line}: imports {item.target}")
        aliases = _aliases(name, sources)
        for node, _ in _nodes(source):
            if isinstance(node, ast.Call):
                called = _dotted(node.func, aliases)
                allowed = [key for key in node.keywords if key.arg == "allow_pickle"]
                if called in _PICKLING_CALLS or any(not _is_false(key.value) for key in allowed):
                    found.append(f"{name}:{node.lineno}: calls {called}")
    return found


def no_import_inside_a_function(sources: Sources) -> list[str]:
    """Cycles are cut, not dodged; the command line may import late to start fast."""
    return [
        f"{name}:{item.line}: imports {item.target} inside a function"
        for name in sources
        if not _below(name, PRINTERS)
        for item in imports_of(name, sources)
        if item.in_function
    ]


def every_module_says_what_it_does(sources: Sources) -> list[str]:
    """A module has a docstring."""
    return [f"{name}: no docstring" for name in sources if not _docstring(sources[name])]


def modules_are_short(sources: Sources) -> list[str]:
    """A module is split along an idea before it grows too long."""
    lengths = {name: len(source.splitlines()) for name, source in sources.items()}
    return [f"{name}: {n} lines" for name, n in lengths.items() if n > MAX_MODULE_LINES]


def functions_are_short(sources: Sources) -> list[str]:
    """A function fits on a screen."""
    found = []
    for name, source in sources.items():
        for node, _ in _nodes(source):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    found.append(f"{name}:{node.lineno}: {node.name} has {lines} lines")
    return found


RULES: tuple[Rule, ...] = (
    every_module_has_a_room,
    imports_go_down,
    no_cycles,
    no_stage_imports_a_stage,
    standard_library_only,
    torch_only_where_programs_live,
    only_cli_talks,
    only_one_room_opens_files,
    nothing_is_pickled,
    no_import_inside_a_function,
    every_module_says_what_it_does,
    modules_are_short,
    functions_are_short,
)


def _aliases(name: str, sources: Sources) -> dict[str, str]:
    """What each imported name stands for."""
    found: dict[str, str] = {}
    for node, _ in _nodes(sources[name]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    found[alias.asname] = alias.name
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def _dotted(node: ast.expr, aliases: Mapping[str, str]) -> str:
    """``np.load`` as ``numpy.load``; ``?.method`` for a method of an expression."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, aliases)}.{node.attr}"
    return "?"


def arrows(sources: Sources) -> dict[tuple[str, str], int]:
    """How many modules' imports lead from one room to another."""
    pairs = {(name, target) for name, target, _ in edges(sources) if ROOT not in (name, target)}
    found: dict[tuple[str, str], int] = {}
    for name, target in pairs:
        here, there = room_of(name), room_of(target)
        if here is not None and there is not None and here != there:
            found[here, there] = found.get((here, there), 0) + 1
    return found


def shape(sources: Sources) -> str:
    """Rooms, their modules and lines, and what they import: a table to read."""
    between = arrows(sources)
    rows = [f"{'room':16} {'modules':>7} {'lines':>6}  imports from"]
    lengths = {name: len(source.splitlines()) for name, source in sources.items()}
    for room in ROOMS:
        held = [name for name in sources if name != ROOT and room_of(name) == room]
        below = [other for other in ROOMS if (room, other) in between]
        lines = sum(lengths[name] for name in held)
        rows.append(f"{room:16} {len(held):7} {lines:6}  {', '.join(below)}".rstrip())
    rows.append(
        f"{len(ROOMS)} rooms, {len(sources)} modules, {sum(lengths.values())} lines "
        f"(median {statistics.median(lengths.values()):g}, longest {max(lengths.values())}), "
        f"{sum(between.values())} imports between rooms along {len(between)} arrows, "
        f"{sum(len(rule(sources)) for rule in RULES)} broken rules"
    )
    return "\n".join(rows)


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def _docstring(source: str) -> str | None:
    return ast.get_docstring(ast.parse(source))


if __name__ == "__main__":
    print(shape(read_package(Path(__file__).parents[1] / ROOT)))
