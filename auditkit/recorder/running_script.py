"""The script that is running, its arguments and sources, and what of them a recording has not."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from auditkit.formats.quote import as_utf8, clipped, printable
from auditkit.formats.redaction import redact_text
from auditkit.observe.machine.code import git_state, user_code
from auditkit.records.manifest import CodeFile, ProgramRecord

#: Arguments that differ, and files, that are named.
_MOST = 8


def command_now() -> tuple[str, ...]:
    """Arguments of the script; a manifest holds no others than those that are UTF-8."""
    return tuple(as_utf8(redact_text(argument)) for argument in sys.argv[1:])


def program_record(code: tuple[CodeFile, ...], description: dict[str, str]) -> ProgramRecord:
    """The script that is running."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    path = Path(main).resolve() if isinstance(main, str) else None
    known = path is not None and any(file.name == path.name for file in code)
    commit, dirty = git_state(path.parent, path.name) if path and known else (None, None)
    return ProgramRecord(
        target=path.name if path and known else "interactive",
        arguments={},
        description=description,
        git_commit=commit,
        git_dirty=dirty,
        code=code,
    )


def changed_files(recorded: ProgramRecord | None) -> str:
    """Names of sources that are others than when a recording began; empty where nobody knows."""
    if recorded is None:
        return ""
    here = {file.name: file.sha256 for file in user_code(main=True)}
    changed = [f.name for f in recorded.code if here.get(f.name, f.sha256) != f.sha256]
    return _listed([printable(name) for name in changed])


def argument_changes(there: Sequence[str], here: Sequence[str]) -> str:
    """What of a script's arguments was left out, changed or added; empty where nothing was."""
    ours, theirs = (list(_options(command)) for command in (here, there))
    added, lines = list((Counter(ours) - Counter(theirs)).elements()), []
    for gone in (Counter(theirs) - Counter(ours)).elements():
        same = next((one for one in added if _name(one) == _name(gone)), None)
        if same is None:
            lines.append(f"{gone} left out")
        else:
            added.remove(same)
            lines.append(f"{gone} -> {same}")
    lines += [f"{one} added" for one in added]
    if not lines and tuple(there) != tuple(here):
        return "their order"
    return _listed([clipped(line) for line in lines])


def _options(command: Sequence[str]) -> Iterator[str]:
    """The arguments, an option together with its value where that is a word of its own."""
    words = [printable(shlex.quote(word)) for word in command]
    while words:
        word = words.pop(0)
        takes = word.startswith("-") and "=" not in word and words
        yield f"{word} {words.pop(0)}" if takes and not words[0].startswith("-") else word


def _name(option: str) -> str:
    """What an option sets; empty of an argument without a name, of which the place decides."""
    if not option.startswith("-") and "=" not in option:
        return ""
    name, _, _ = option.partition(" " if option.startswith("-") and " " in option else "=")
    return name


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _MOST
    return ", ".join(items[:_MOST]) + (f" and {more} more" if more > 0 else "")
