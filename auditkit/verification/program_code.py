"""Check 4, of the program: what a replay would execute is a file that the manifest lists.

A reviewer reads ``code/``; a target that leads elsewhere would run something else.
"""

from __future__ import annotations

import ast
import importlib.machinery
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from auditkit.errors import AuditError
from auditkit.files import artifacts
from auditkit.formats.quote import brief
from auditkit.program.arguments import unknown_argument
from auditkit.records.manifest import CODE_FOLDER, CodeFile, ProgramRecord
from auditkit.records.opened import OpenedFiles, some_names
from auditkit.records.report import MAX_UNHASHED, UNDECIDED, Finding, OpenedReport
from auditkit.replay.opened import OpenedHere

#: Longest source that is read for what its factory takes, in bytes.
_MAX_SOURCE = 2**20

#: Where Python keeps compiled copies of sources, which it runs in their place.
_CACHE = "__pycache__"


def check_program(program: ProgramRecord) -> Iterator[Finding]:
    """Findings about the program's target and what its code consists of.

    Args:
        program: What the manifest says of it. The command of a script is never executed from a
            record, so that its target is for people.
    """
    if not program.command and not _is_listed(program.target, program.code):
        yield Finding(
            f"program.target is {brief(program.target)}, which is no file that program.code "
            "lists; nothing is executed",
            "program.target",
        )
    for file in program.code:
        if _CACHE in PurePosixPath(file.name).parts:
            yield Finding(
                "compiled code is listed that would run in the place of its source",
                f"code/{file.name}",
            )


def refuse_unknown_arguments(root: Path, program: ProgramRecord, given: Iterable[str]) -> None:
    """Refuse an argument that the recorded factory does not take, before anything runs.

    Its source is read and not executed. Where that does not tell what it takes, nothing is
    refused here: the replay says it.

    Args:
        root: The study's folder.
        program: What the manifest says of the program.
        given: Names of the arguments that the verifier gave.

    Raises:
        UnknownArgument: When there is one.
    """
    names = list(given)
    taken = _taken(root, program) if names else None
    for name in names:
        if taken is not None and name not in taken:
            raise unknown_argument(program.target.partition(":")[2], name, taken)


def _taken(root: Path, program: ProgramRecord) -> list[str] | None:
    """The arguments that the recorded factory takes, as its source says; None where it does not."""
    source, _, name = program.target.partition(":")
    file = next((file for file in program.code if file.name == source), None)
    if file is None or program.command:
        return None
    try:
        text = artifacts.safe_read(
            *(root, f"{CODE_FOLDER}/{file.name}"),
            expected_sha256=file.sha256,
            max_bytes=_MAX_SOURCE,
        )
        tree = ast.parse(text)
    except (AuditError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # whatever is wrong with it, a check says so
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    bound = [node for node in ast.walk(tree) if _binds(node, name)]
    if len(found) != 1 or found != bound or found[0].decorator_list:
        return None
    given = found[0].args
    taken = [*given.posonlyargs, *given.args, *given.kwonlyargs][1:]
    return None if given.kwarg or given.vararg else [argument.arg for argument in taken]


def _binds(node: ast.AST, name: str) -> bool:
    """Whether a node gives a meaning to a name, in whatever scope."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return node.name == name
    if isinstance(node, ast.alias):
        return node.name == "*" or (node.asname or node.name).partition(".")[0] == name
    return isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load)


def check_opened(opened: OpenedFiles | None) -> Iterator[Finding]:
    """Findings about the list of what the program opened: each file once, hashed or not."""
    files = () if opened is None else opened.files
    names = [file.name for file in files]
    if names != sorted(set(names)):
        yield Finding("opened files are not sorted by name, each once", "opened")
    for file in files:
        if len({file.sha256 is None, file.size is None, file.reason is not None}) > 1:
            yield Finding("is listed as hashed and as not hashed", f"opened {brief(file.name)}")


def opened_report(recorded: OpenedFiles | None, here: OpenedHere | None) -> OpenedReport | None:
    """What the program opened, as recorded and as replays here opened it; None where none says."""
    if recorded is None and here in (None, OpenedHere()):
        return None
    unopened = [] if here is None else here.unopened(recorded)
    recorded, here = recorded or OpenedFiles(()), here or OpenedHere()
    names = sorted({*recorded.unhashed, *here.unhashed})
    return OpenedReport(
        hashed=len(recorded.hashed),
        compared=len(here.equal),
        unhashed=tuple(names[:MAX_UNHASHED]),
        n_unhashed=len(names) + max(recorded.left_out, here.left_out),
        unopened=tuple(unopened[:MAX_UNHASHED]),
        n_unopened=len(unopened),
    )


def unopened_finding(recorded: OpenedFiles | None, here: OpenedHere) -> Finding | None:
    """What is said of listed files that no process of a whole replay opened; None without any."""
    names = here.unseen(recorded)
    if not names:
        return None
    text = (
        f"listed as opened, and no process of the replay opened {_it(names)}: {some_names(names)}; "
        "nobody saw the program read what is listed"
    )
    return Finding(text, "opened files", exit_code=UNDECIDED)


def _it(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else f"any of {len(names):,}"


def _is_listed(target: str, code: Sequence[CodeFile]) -> bool:
    """Whether a target, ``FILE.py:NAME`` or ``package.module:NAME``, is a listed file's name."""
    names = {file.name for file in code}
    source, _, _ = target.partition(":")
    if source.endswith(".py"):
        path = PurePosixPath(source)
        return source in names and not path.is_absolute() and ".." not in path.parts
    parts = source.split(".")
    if not all(part.isidentifier() for part in parts):
        return False
    stem = "/".join(parts)
    suffixes = importlib.machinery.all_suffixes()
    return any(f"{stem}{end}" in names or f"{stem}/__init__{end}" in names for end in suffixes)
