"""Check 4, of the program: what a replay would execute is a file that the manifest lists.

A reviewer reads ``code/``; a target that leads elsewhere would run something else.
"""

from __future__ import annotations

import importlib.machinery
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from auditkit.formats.quote import brief
from auditkit.records.manifest import CodeFile, ProgramRecord
from auditkit.records.opened import OpenedFiles, some_names
from auditkit.records.report import MAX_UNHASHED, UNDECIDED, Finding, OpenedReport
from auditkit.replay.opened import OpenedHere

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
