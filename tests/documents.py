"""What a document shows: code blocks, tables, commands, options, paths, links."""

from __future__ import annotations

import re
from pathlib import Path

import click

from auditkit.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FOLDER = ROOT / "auditkit" / "manual"
PAGES = {file.stem: file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.md"))}

#: Everything that people read, by the path that a link in it starts from.
DOCUMENTS = {
    ROOT / "README.md": README,
    **{FOLDER / f"{name}.md": text for name, text in PAGES.items()},
}


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """What stands outside code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def table(text: str, *headings: str) -> list[list[str]]:
    """The rows of the table with these headings."""
    head = "| " + " | ".join(headings) + " |\n"
    assert text.count(head) == 1, head
    rows = text.split(head)[1].split("\n\n", maxsplit=1)[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def names(cell: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", cell)


def commands(text: str) -> list[list[str]]:
    """Every call of auditkit in a bash block, in words, up to a command of the user's own."""
    lines = "\n".join(blocks(text, "bash")).splitlines()
    calls = [part.split("#")[0].split() for line in lines for part in re.split("&&|;", line)]
    found = [words[1:] for words in calls if words and words[0] == "auditkit"]
    return [words[: words.index("--")] if "--" in words else words for words in found]


def options_of(*named: str) -> set[str]:
    """The options of a command, or of a command of a group, as its help shows them."""
    with click.Context(main) as context:
        found: click.Command | None = main
        for name in named:
            assert isinstance(found, click.Group), named
            found = found.get_command(context, name)
    assert found is not None, named
    return {name for parameter in found.params for name in parameter.opts if name[:2] == "--"}


def command_names() -> list[str]:
    """Every command that is not hidden."""
    with click.Context(main) as context:
        known = {name: main.get_command(context, name) for name in main.list_commands(context)}
    return [name for name, command in known.items() if command and not command.hidden]


def all_options() -> set[str]:
    """The options of all commands."""
    plain = [name for name in command_names() if name != "timestamp"]
    grouped = [options_of("timestamp", name) for name in ("request", "attach")]
    return {"--help"}.union(*map(options_of, plain), *grouped)
