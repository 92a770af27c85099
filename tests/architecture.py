"""The rules that keep the package's shape, as pure functions of its sources.

A rule takes sources by module name and returns its violations, one line each, so that every
rule can be shown to fail on a source that breaks it (see ``test_architecture.py``).
"""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Sources = Mapping[str, str]
Rule = Callable[[Sources], list[str]]

ROOT = "auditkit"

#: Lowest first: a module imports only from earlier groups. A name stands for itself and for
#: everything below it; only the modules of one :data:`FAMILIES` may import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    # 1: words
    ("errors",),
    ("records",),
    # 2: bytes and numbers, without torch and without files
    ("homes", "quote", "der", "weakkeys"),
    ("structure",),
    ("canonical",),
    ("tensorfile", "schema", "seeds", "recipes", "allowedsigners", "artifacts", "locks"),
    ("keys",),
    ("metrics", "inference", "resampling", "multiplicity", "persistence", "outcomes"),
    ("ordering", "snapshotfile", "manifests"),
    ("declared", "magnitudes"),
    ("runfiles",),
    ("distances",),
    # 3: files, signatures, estimates, what is seen of live objects
    ("store",),
    ("wire", "processes"),
    ("switchboard",),
    ("trust", "envelopes"),
    ("signing",),
    ("timestamps", "sigstorebundle"),
    ("estimands", "observe", "agreement"),
    # 4: live programs
    ("perturb", "program"),
    ("session",),
    # 5: the stages; evidence read back
    ("pipeline", "evidence"),
    ("loop", "recordingfolder", "wrapping", "stopping"),
    ("recording",),
    ("watched",),
    ("recordcourse",),
    # 6: a study from start to end, and its evidence compared
    ("launch", "commands", "runfolder", "watchers", "comparison", "judgement", "sampling"),
    ("jobfiles", "attempts", "chunks", "sides", "rowstream", "scripts", "rows", "conversation"),
    ("recorded",),
    ("holding",),
    ("contracts", "listing"),
    ("partings", "jobresults"),
    ("loopjobs",),
    ("tasks",),
    ("recorder",),
    ("integrations",),
    ("seedreplay",),
    ("jobs", "consistency", "pairing", "study", "replay", "recordings", "planning"),
    ("budget", "countersigning", "planbinding", "registering"),
    # 7: the checklist that a study answers; the numbered checks
    ("questions", "reports"),
    ("citations", "fragments"),
    ("estimatetext",),
    ("neurips", "survey"),
    ("checklist",),
    ("content", "verification", "differences"),
    ("verifyrecording",),
    ("verify", "rerun", "reproduction"),
    ("experiments",),
    ("doctor",),
    # 8: the command line
    ("cli",),
    ("__main__",),
)

#: Packages whose modules may import each other (never in a circle). Stages may not.
FAMILIES = ("records", "observe", "perturb", "cli")

#: Where torch may be imported; ``cli.worker`` only inside a function.
TORCH = (
    *("observe", "perturb", "program", "session", "pipeline", "jobs", "watchers"),
    *("recorder", "wrapping", "integrations"),
)
TORCH_LAZILY = ("cli.worker",)

#: Where files may be opened. What has no name (pipes, anonymous temporary files) is no file.
FILES = ("store", "artifacts", "locks", "schema")

MAX_MODULE_LINES = 300
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
    is_package = any(other.startswith(f"{name}.") for other in sources)
    found: list[Import] = []
    for node, in_function in _nodes(sources[name]):
        for target in _targets(node, name if is_package else name.rpartition(".")[0]):
            found.append(Import(target, node.lineno, in_function))
    return found


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
    elif isinstance(node, ast.Call) and node.args:
        function = ast.unparse(node.func)
        named = function.endswith("import_module") or function == "__import__"
        if named and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value)


def edges(sources: Sources) -> Iterator[tuple[str, str, Import]]:
    """Importing module, imported module of the package, and the import."""
    for name in sources:
        for item in imports_of(name, sources):
            if item.target == f"{ROOT}.__version__":
                continue  # a constant of the facade that anybody may read
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


def _layer(name: str) -> int | None:
    return next((n for n, group in enumerate(LAYERS) if _below(name, group)), None)


def _same_family(left: str, right: str) -> bool:
    return any(_below(left, (family,)) and _below(right, (family,)) for family in FAMILIES)


# The rules


def every_module_has_a_layer(sources: Sources) -> list[str]:
    """A new module is given its place in LAYERS before it is used."""
    return [
        f"{name}: has no place in LAYERS of tests/architecture.py"
        for name in sources
        if name != ROOT and _layer(name) is None
    ]


def imports_go_down(sources: Sources) -> list[str]:
    """A module imports only from lower layers; nobody imports the facade."""
    found = []
    for name, target, item in edges(sources):
        here, there = _layer(name), _layer(target)
        if name == ROOT or here is None or (there is None and target != ROOT):
            continue  # the facade names what it exports; modules without a layer: another rule
        if there is None or (there >= here and not _same_family(name, target)):
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
        if _below(name, ("pipeline",)) and _below(target, ("pipeline",)) and name != target
    ]


def records_import_only_the_standard_library(sources: Sources) -> list[str]:
    """Records stay readable without anything installed."""
    found = []
    for name in sources:
        if not _below(name, ("records",)):
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
            lazy = item.in_function and _below(name, TORCH_LAZILY)
            if not _below(name, TORCH) and not lazy:
                found.append(f"{name}:{item.line}: imports {item.target}")
    return found


def only_cli_talks(sources: Sources) -> list[str]:
    """Only the command line prints, exits, and knows click and rich."""
    found = []
    for name, source in sources.items():
        if _below(name, ("cli", "stopping")):  # the latter ends a user's script, quietly
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


def only_the_store_opens_files(sources: Sources) -> list[str]:
    """Files are opened, made and removed in the store and its two neighbours."""
    found = []
    for name, source in sources.items():
        if _below(name, FILES):
            continue
        aliases = _aliases(name, sources)
        for node, _ in _nodes(source):
            if not isinstance(node, ast.Call):
                continue
            called = _dotted(node.func, aliases)
            owner, _, method = called.rpartition(".")
            through_store = owner.startswith(f"{ROOT}.") and _below(owner, FILES)
            opens = _OPENING.fullmatch(called) is not None
            if opens or (owner and method in _PATH_METHODS and not through_store):
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
        if not _below(name, ("cli",))
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
    every_module_has_a_layer,
    imports_go_down,
    no_cycles,
    no_stage_imports_a_stage,
    records_import_only_the_standard_library,
    torch_only_where_programs_live,
    only_cli_talks,
    only_the_store_opens_files,
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


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def _docstring(source: str) -> str | None:
    return ast.get_docstring(ast.parse(source))
